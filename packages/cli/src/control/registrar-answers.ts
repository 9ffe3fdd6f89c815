import * as z from 'zod';

import { parseAnswer } from './parse-answer.ts';

const CheckState = z.object({
  check: z.string(),
  health: z.enum(['up', 'down', 'unknown']),
  reason: z.string().optional(),
  warning: z.string().optional(),
  lastProbeMs: z.number().optional(),
});

const RegisteredState = z.object({
  service: z.string(),
  path: z.string(),
  origin: z.string().optional(),
  name: z.string(),
  host: z.string(),
  port: z.number(),
  health: z.enum(['up', 'down', 'unknown']),
  announced: z.boolean(),
  confirmed: z.boolean(),
  role: z.enum(['active', 'outgoing', 'waiting']),
  waitsFor: z.string().optional(),
  drained: z.array(z.enum(['operator', 'file', 'shutdown'])).readonly(),
  weight: z.object({
    configured: z.number().optional(),
    override: z.number().optional(),
    announced: z.number().optional(),
  }),
  flapHold: z.object({ remainingMs: z.number(), count: z.number() }).optional(),
  rateLimitedForMs: z.number().optional(),
  checks: z.array(CheckState).readonly(),
});

const Problem = z.object({
  file: z.string(),
  line: z.number().optional(),
  column: z.number().optional(),
  path: z.string(),
  reason: z.string(),
  remedy: z.string().optional(),
});

const State = z.object({
  registry: z.enum(['connecting', 'connected', 'suspended', 'lost', 'closed', 'failed']),
  services: z.array(RegisteredState).readonly(),
  overdue: z.array(z.string()).readonly(),
  problems: z.array(Problem).readonly(),
});

const Overridden = z.object({ remembered: z.boolean(), confirmed: z.boolean().optional() });

const Reported = z.object({ check: z.string() });

/** What the registrar says of itself, after JSON. */
export type RegistrarState = z.output<typeof State>;
export type RegisteredState = z.output<typeof RegisteredState>;
export type CheckState = z.output<typeof CheckState>;
export type Overridden = z.output<typeof Overridden>;

export const parseRegistrarState = (answer: unknown): RegistrarState =>
  parseAnswer('registrar', State, answer);
export const parseOverridden = (answer: unknown): Overridden => parseAnswer('registrar', Overridden, answer);
export const parseReported = (answer: unknown): z.output<typeof Reported> =>
  parseAnswer('registrar', Reported, answer);
