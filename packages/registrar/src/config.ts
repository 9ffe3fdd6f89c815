import { Labels, Port } from '@tandem/core';
import * as z from 'zod';

import { type CheckConfig, CheckSection } from './checks/kinds.ts';

/** The `register:` block of a service file. */
export const RegisterSection = z
  .strictObject({
    port: Port.describe('where clients reach the service on this host'),
    weight: z
      .number()
      .int()
      .min(0)
      .max(256)
      .optional()
      .describe('share of traffic relative to the other instances; 0 gets none'),
    labels: Labels.default({}).describe('added to those of the host; the same key wins over the host'),
    checks: z
      .array(CheckSection)
      .default([])
      .describe('all must pass for the service to be announced; none: always announced'),
  })
  .transform(({ port, weight, labels, checks }): RegisterConfig => ({
    port,
    ...(weight === undefined ? {} : { weight }),
    labels,
    checks,
  }));

/** What a service file says about its registration, with everything filled in. */
export interface RegisterConfig {
  readonly port: number;
  readonly weight?: number;
  readonly labels: Readonly<Record<string, string>>;
  readonly checks: readonly CheckConfig[];
}

/** One service that this host shall announce while it is healthy. */
export interface ServiceRegistration {
  readonly service: string;
  /** Where in the registry, such as `/services/web`. */
  readonly path: string;
  readonly config: RegisterConfig;
}
