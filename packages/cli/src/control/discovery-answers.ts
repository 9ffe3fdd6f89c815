import * as z from 'zod';

import { parseAnswer } from './parse-answer.ts';

const Rejected = z.object({ place: z.string(), reason: z.string() });

const InstanceState = z.object({
  id: z.string(),
  name: z.string(),
  endpoint: z.string(),
  weight: z.number(),
  offered: z.boolean(),
  held: z.enum(['drain', 'maint']).optional(),
  guarded: z.boolean(),
  fallback: z.boolean(),
});

const ServiceState = z.object({
  service: z.string(),
  path: z.string(),
  use: z.enum(['unknown', 'source', 'saved', 'kept', 'fallback']),
  instances: z.array(InstanceState).readonly(),
  guardMs: z.number().optional(),
  rejected: z.array(Rejected).readonly(),
  sourceError: z.string().optional(),
});

const Aside = z.object({
  kind: z.enum(['service', 'shared-frontend', 'port-range', 'section']),
  name: z.string(),
  reason: z.string(),
  goesOn: z.boolean(),
});

const ForeignHold = z.object({ service: z.string(), server: z.string(), kind: z.enum(['drain', 'maint']) });

/** What the discovery daemon says of itself: its `DiscoveryState`, after JSON. */
const State = z.object({
  phase: z.enum(['starting', 'serving']),
  services: z.array(ServiceState).readonly(),
  haproxy: z.object({
    running: z.object({ version: z.string(), incarnation: z.string(), mark: z.string() }).optional(),
    applied: z.object({ agoMs: z.number(), tookMs: z.number() }).optional(),
    problem: z.string().optional(),
    refused: z.string().optional(),
    setAside: z.array(Aside).readonly(),
    foreignHolds: z.array(ForeignHold).readonly(),
  }),
});

const Held = z.object({ instance: z.string(), remembered: z.boolean() });

export type DaemonState = z.output<typeof State>;
export type AsideState = z.output<typeof Aside>;
export type ServiceState = z.output<typeof ServiceState>;
export type InstanceState = z.output<typeof InstanceState>;

export const parseState = (answer: unknown): DaemonState => parseAnswer('discovery', State, answer);
export const parseHeld = (answer: unknown): z.output<typeof Held> => parseAnswer('discovery', Held, answer);
