import { duration, type Instance, Port } from '@tandem/core';
import * as z from 'zod';

/** Labels that an instance must have, each with this value or one of these. */
export const FilterSection = z.record(
  z.string().min(1),
  z.union([z.string().transform((value) => [value]), z.array(z.string()).min(1)]),
);

/** Refusal of an implausible loss. */
export const GuardSection = z
  .strictObject({
    max_lost_percent: z.number().min(0).max(100).default(50).describe('100 switches it off'),
    min_instances: z.number().int().min(1).default(3).describe('smaller services are not guarded'),
    hold: duration({ minMs: 0, maxMs: 24 * 3_600_000 })
      .prefault('30s')
      .describe('how long a loss is held'),
    window: duration({ minMs: 0, maxMs: 3_600_000 })
      .prefault('5s')
      .describe('losses within this time count as one'),
  })
  .transform((section) => ({
    maxLostPercent: section.max_lost_percent,
    minInstances: section.min_instances,
    holdMs: section.hold,
    windowMs: section.window,
  }));

export const LocalitySection = z
  .strictObject({
    prefer: z.array(z.string().min(1)).min(1).describe('labels from near to far, such as [zone, region]'),
    spill_below: z
      .number()
      .int()
      .min(1)
      .default(1)
      .describe('with fewer instances than this, those of the next label join'),
  })
  .transform((section) => ({ prefer: section.prefer, spillBelow: section.spill_below }));

export const SubsetSection = z.strictObject({
  size: z.number().int().min(1).describe('how many instances this host uses of the service'),
});

/** An instance that somebody wrote into a configuration. */
export const ConfiguredInstance = z
  .strictObject({
    name: z.string().max(63).default(''),
    host: z.string().min(1).max(253),
    port: Port,
    weight: z.number().int().min(0).max(256).optional(),
    labels: z.record(z.string(), z.string()).optional(),
  })
  .transform(({ name, host, port, weight, labels }): Instance => ({
    name,
    host,
    port,
    ...(weight === undefined ? {} : { weight }),
    ...(labels === undefined ? {} : { labels }),
  }));

export type Filter = z.output<typeof FilterSection>;
export type GuardPolicy = z.output<typeof GuardSection>;
export type LocalityPolicy = z.output<typeof LocalitySection>;
