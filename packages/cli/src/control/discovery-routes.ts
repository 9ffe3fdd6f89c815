import type { ControlAnswer, ControlRoute } from '@tandem/core';
import type { Discovery, HoldAnswer } from '@tandem/discovery';
import * as z from 'zod';

import { badRequest, listCandidates, refuse } from './refusals.ts';

const HoldBody = z.strictObject({ kind: z.enum(['drain', 'maint']) });

/** What operators may ask of a discovery daemon. */
export function discoveryRoutes(discovery: Pick<Discovery, 'hold' | 'release' | 'state'>): ControlRoute[] {
  const holds = '/v1/services/:service/holds/:instance';
  return [
    { method: 'GET', path: '/v1/state', answer: () => ({ ok: true, body: discovery.state() }) },
    {
      method: 'PUT',
      path: holds,
      async answer({ params, body }) {
        const wanted = HoldBody.safeParse(body);
        if (!wanted.success) return badRequest('the body must be {"kind": "drain"} or {"kind": "maint"}');
        const { service = '', instance = '' } = params;
        return holdAnswer(await discovery.hold(service, instance, wanted.data.kind));
      },
    },
    {
      method: 'DELETE',
      path: holds,
      async answer({ params: { service = '', instance = '' } }) {
        return holdAnswer(await discovery.release(service, instance));
      },
    },
  ];
}

function holdAnswer(answer: HoldAnswer): ControlAnswer {
  if (answer.ok) return { ok: true, body: { instance: answer.instance, remembered: answer.remembered } };
  const { reason, candidates } = answer;
  const list = listCandidates(candidates);
  switch (reason) {
    case 'unknown-service':
      return refuse(404, 'UNKNOWN_SERVICE', `no such service. Known: ${list}`);
    case 'unknown-instance':
      return refuse(404, 'UNKNOWN_INSTANCE', `no such instance. Known: ${list}`);
    case 'not-held':
      return refuse(404, 'NOT_HELD', `that instance is not held. Held: ${list}`);
    case 'ambiguous-instance':
      return refuse(409, 'AMBIGUOUS_INSTANCE', `several instances are meant, name one of them: ${list}`);
  }
}
