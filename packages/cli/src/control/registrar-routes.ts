import {
  type ConfigProblem,
  type ControlAnswer,
  type ControlRequest,
  type ControlRoute,
  duration,
  isTandemError,
  withDeadline,
} from '@tandem/core';
import type {
  OverrideAnswer,
  Registrar,
  Report,
  ReportAnswer,
  Reports,
  ServiceStatus,
} from '@tandem/registrar';
import type { RegistryStatus } from '@tandem/registry';
import * as z from 'zod';

import { badRequest, listCandidates, refuse } from './refusals.ts';

/** As long as anybody waits for a registry; `tandem drain --wait` says so, too. */
export const MAX_WAIT_MS = 600_000;
/** What an answer may take beside the wait. */
const ANSWER_MS = 10_000;

const DrainBody = z.strictObject({ wait: duration({ maxMs: MAX_WAIT_MS }).optional() }).prefault({});
const WeightBody = z.strictObject({ weight: z.number().int().min(0).max(256) });
const ReportBody = z.strictObject({
  status: z.enum(['pass', 'warn', 'fail']),
  reason: z.string().optional(),
  check: z.string().optional(),
});

/** What a registrar is asked through its control socket. */
export interface RegistrarFront {
  readonly registrar: Pick<Registrar, 'drain' | 'undrain' | 'setWeight' | 'agreed' | 'status' | 'overdue'>;
  readonly reports: Pick<Reports, 'take'>;
  readonly registry: { readonly status: RegistryStatus };
  /** What is wrong with service files at present. */
  readonly problems: () => readonly ConfigProblem[];
  /** Resolves when the service files were looked at for the first time: before, every service is unknown. */
  readonly started: Promise<void>;
}

/** What operators, and the services themselves, may ask of a registrar. None of it needs the registry to be there. */
export function registrarRoutes(front: RegistrarFront): ControlRoute[] {
  const routes = [...stateRoutes(front), ...overrideRoutes(front), reportRoute(front)];
  return routes.map((route) => ({
    ...route,
    async answer(request) {
      await front.started;
      return route.answer(request);
    },
  }));
}

function stateRoutes({ registrar, registry, problems }: RegistrarFront): ControlRoute[] {
  return [
    {
      method: 'GET',
      path: '/v1/state',
      answer: () => ({
        ok: true,
        body: {
          registry: registry.status.state,
          services: registrar.status(),
          overdue: registrar.overdue(),
          problems: problems(),
        },
      }),
    },
  ];
}

/** A drain or a weight; each of a service, and the drain of all of them, too. */
function overrideRoutes({ registrar }: RegistrarFront): ControlRoute[] {
  const drain = { one: '/v1/services/:service/drain', all: '/v1/drain' };
  const weight = '/v1/services/:service/weight';
  const limitMs = MAX_WAIT_MS + ANSWER_MS;
  return [
    ...[drain.one, drain.all].flatMap((path): ControlRoute[] => [
      { method: 'PUT', path, limitMs, answer: (request) => drainAndWait(registrar, request) },
      {
        method: 'DELETE',
        path,
        answer: async ({ params: { service } }) => overrideAnswer(await registrar.undrain(service)),
      },
    ]),
    {
      method: 'PUT',
      path: weight,
      async answer({ params: { service = '' }, body }) {
        const wanted = WeightBody.safeParse(body);
        if (!wanted.success) return badRequest('the body must be {"weight": N} with N from 0 to 256');
        return overrideAnswer(await registrar.setWeight(service, wanted.data.weight));
      },
    },
    {
      method: 'DELETE',
      path: weight,
      answer: async ({ params: { service = '' } }) =>
        overrideAnswer(await registrar.setWeight(service, undefined)),
    },
  ];
}

async function drainAndWait(
  registrar: RegistrarFront['registrar'],
  { params: { service }, body, signal }: ControlRequest,
): Promise<ControlAnswer> {
  const wanted = DrainBody.safeParse(body);
  if (!wanted.success)
    return badRequest('the body must be empty, or {"wait": "10s"} with a duration of at most 10m');
  const drained = await registrar.drain(service);
  const { wait } = wanted.data;
  if (!drained.ok || wait === undefined) return overrideAnswer(drained);
  const confirmed = await isDoneWithin(wait, signal, (signal) => registrar.agreed(service, signal));
  return { ok: true, body: { remembered: drained.remembered, confirmed } };
}

async function isDoneWithin(
  limitMs: number,
  signal: AbortSignal,
  task: (signal: AbortSignal) => Promise<void>,
): Promise<boolean> {
  try {
    await withDeadline(signal, limitMs, task);
    return true;
  } catch (error) {
    if (signal.aborted || !isTandemError(error, 'DEADLINE_EXCEEDED')) throw error;
    return false;
  }
}

function overrideAnswer(answer: OverrideAnswer): ControlAnswer {
  if (answer.ok) return { ok: true, body: { remembered: answer.remembered } };
  return refuse(404, 'UNKNOWN_SERVICE', `no such service. Known: ${listCandidates(answer.candidates)}`);
}

function reportRoute({ registrar, reports }: RegistrarFront): ControlRoute {
  return {
    method: 'POST',
    path: '/v1/services/:service/health',
    answer({ params: { service = '' }, body }) {
      const wanted = ReportBody.safeParse(body);
      if (!wanted.success)
        return badRequest(
          'the body must be {"status": "pass"}, "warn" or "fail", and may have a "reason" and a "check"',
        );
      const { check, status, reason } = wanted.data;
      const report: Report = reason === undefined ? { status } : { status, reason };
      return reportAnswer(service, reports.take(service, report, check), () => registrar.status());
    },
  };
}

function reportAnswer(
  service: string,
  answer: ReportAnswer,
  services: () => readonly ServiceStatus[],
): ControlAnswer {
  if (answer.ok) return { ok: true, body: { check: answer.check } };
  const list = listCandidates(answer.candidates);
  switch (answer.reason) {
    case 'unknown-service':
      return services().some((known) => known.service === service)
        ? refuse(409, 'NO_PUSH_CHECK', `that service has no push check. Services that have one: ${list}`)
        : refuse(404, 'UNKNOWN_SERVICE', `no such service. Those that report themselves: ${list}`);
    case 'unknown-check':
      return refuse(404, 'UNKNOWN_CHECK', `name one of its push checks: ${list}`);
  }
}
