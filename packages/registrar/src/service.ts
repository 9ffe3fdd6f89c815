import { isDeepStrictEqual } from 'node:util';

import type { AddressResolver, Log } from '@tandem/core';
import type { Announcer } from '@tandem/registry';

import { type AnnouncingDeps, type AnnouncingStatus, createAnnouncing } from './announcing.ts';
import type { Check, CheckContext } from './check.ts';
import { type CheckConfig, createCheck, scheduleOf } from './checks/kinds.ts';
import type { ServiceRegistration } from './config.ts';
import { combineHealth, type Health, type Verdict } from './health.ts';
import type { Spread } from './pacing.ts';
import { createProbeLoop, type ProbeLoop } from './probe-loop.ts';
import type { Reports } from './reports.ts';

export interface CheckStatus {
  /** Where it stands in the configuration, such as `checks[0].http`. */
  readonly check: string;
  readonly health: Health;
  /** Why the last probe failed. */
  readonly reason?: string;
  /** What the last probe warned of, though it passed. */
  readonly warning?: string;
  /** How long the last probe took, in milliseconds. */
  readonly lastProbeMs?: number;
}

/** Turns a configured check into one that can be probed. */
export type CheckFactory = (config: CheckConfig, context: CheckContext) => Check;

export interface ServiceDeps extends AnnouncingDeps {
  readonly spread: Spread;
  readonly resolver: AddressResolver;
  readonly reports: Reports;
  readonly createCheck?: CheckFactory;
}

/** One service of this host at one place: its checks, its health, and what stands in the registry because of them. */
export interface Service {
  /**
   * The registration has changed, its place has not. Checks that stayed the same go on with what they know. An announcer
   * that takes over from another one is told what the service knows.
   */
  update(registration: ServiceRegistration, successor?: Announcer): void;
  /** Something else than its checks may have changed: decides anew. */
  reconsider(): void;
  readonly health: Health;
  /** Whether the last word to the registry was an instance. */
  readonly isAnnounced: boolean;
  /** Resolves when the registry has confirmed what is meant now. */
  agreed(signal: AbortSignal): Promise<void>;
  status(): AnnouncingStatus & { readonly health: Health; readonly checks: readonly CheckStatus[] };
  /** Its checks that should have made progress by now, by the clock. */
  overdue(now: number): string[];
  /** It leaves the rotation on purpose: when it comes back, it starts anew. */
  forgetStart(): void;
  /** Ends all probing. What stands in the registry stays. */
  stop(): Promise<void>;
}

interface RunningCheck {
  readonly config: CheckConfig;
  readonly loop: ProbeLoop;
}

export function createService(deps: ServiceDeps, registration: ServiceRegistration): Service {
  const makeCheck = deps.createCheck ?? createCheck;
  const { clock, log } = deps.situation;
  const announcing = createAnnouncing(deps, registration);
  let current = registration;
  let running: RunningCheck[] = [];
  let ended: Promise<unknown> = Promise.resolve();

  function verdict() {
    return combineHealth([...running.map(({ loop }) => loop), ...verdictsOf(current)]);
  }

  function decide(): void {
    announcing.consider(verdict(), current);
  }

  function start(config: CheckConfig): RunningCheck {
    let told: Health = 'unknown';
    const loop = createProbeLoop({
      check: makeCheck(
        config,
        contextOf(() => current, deps),
      ),
      schedule: scheduleOf(config),
      clock,
      spread: deps.spread,
      onVerdict: () => {
        const { health, reason } = loop;
        const facts = { ...factsOf(check), health, ...(reason === undefined ? {} : { reason }) };
        if (health !== told) log.info(facts, 'health changed');
        told = health;
        decide();
      },
      onBroken: (error) => log.error({ ...factsOf(check), err: error }, 'check is broken'),
      onStuck: () => log.error(factsOf(check), 'a probe does not end, none is begun before it has'),
    });
    const check = { config, loop };
    return check;
  }

  /** The names of now: a check that goes on may have got another place or another service. */
  function factsOf(check: RunningCheck): { service: string; check: string } {
    return { service: current.service, check: nameOf(check.config, running.indexOf(check)) };
  }

  function apply(): void {
    const spare = [...running];
    running = current.config.checks.map((config) => {
      const at = spare.findIndex((candidate) => isDeepStrictEqual(candidate.config, config));
      return spare.splice(at, at === -1 ? 0 : 1)[0] ?? start(config);
    });
    ended = Promise.all([ended, ...spare.map(({ loop }) => loop.stop())]);
    decide();
  }

  apply();
  return {
    update(registration, successor) {
      tellFinding(log, current, registration);
      current = registration;
      if (successor !== undefined) announcing.handOver(successor);
      apply();
    },
    reconsider: decide,
    get health() {
      return verdict().health;
    },
    get isAnnounced() {
      return announcing.isAnnounced;
    },
    agreed: (signal) => announcing.agreed(signal),
    status: () => ({
      ...announcing.status(current),
      health: verdict().health,
      checks: [...running.map(statusOf), ...findingsOf(current)],
    }),
    overdue: (now) =>
      running.flatMap(({ config, loop }, index) =>
        now > loop.dueBy ? [`${current.service} ${nameOf(config, index)}`] : [],
      ),
    forgetStart: () => announcing.forgetStart(),
    async stop() {
      announcing.stop();
      await Promise.all([ended, ...running.map(({ loop }) => loop.stop())]);
    },
  };
}

function findingsOf({ finding }: ServiceRegistration): CheckStatus[] {
  return finding === undefined ? [] : [finding];
}

/** Whoever found it knows: there is nothing to wait for. */
function verdictsOf(registration: ServiceRegistration): Verdict[] {
  return findingsOf(registration).map(({ health }) => ({ health, isFirm: true }));
}

/** Like the results of checks, it is told when it changes. */
function tellFinding(
  log: Log,
  before: ServiceRegistration,
  { service, origin, finding }: ServiceRegistration,
): void {
  if (finding === undefined || before.finding?.health === finding.health) return;
  log.info({ service, origin, ...finding }, 'health changed');
}

function contextOf(
  current: () => ServiceRegistration,
  { resolver, reports }: Pick<ServiceDeps, 'resolver' | 'reports'>,
): CheckContext {
  return {
    // It may be renamed while the check goes on.
    get service() {
      return current().service;
    },
    port: current().config.port,
    resolver,
    reports,
  };
}

function statusOf({ config, loop }: RunningCheck, index: number): CheckStatus {
  const { health, reason, warning, lastProbeMs } = loop;
  return {
    check: nameOf(config, index),
    health,
    ...(reason === undefined ? {} : { reason }),
    ...(warning === undefined ? {} : { warning }),
    ...(lastProbeMs === undefined ? {} : { lastProbeMs }),
  };
}

function nameOf(config: CheckConfig, index: number): string {
  return `checks[${index}].${config.kind}`;
}
