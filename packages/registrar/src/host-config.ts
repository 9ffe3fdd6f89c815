import { duration, MAX_CONTROL_PATH, SafeName, SocketPath } from '@tandem/core';
import * as z from 'zod';

import { finderKeys } from './finders/kinds.ts';
import { FlapDampingSection } from './flap.ts';
import { RateLimitSection } from './rate-limit.ts';

/** `registrar` of the host file. Relative paths are relative to that file. */
export const RegistrarSection = z
  .strictObject({
    control: SocketPath(MAX_CONTROL_PATH)
      .optional()
      .describe(
        'where tandem drain, tandem services and services that report themselves reach the daemon; default: ' +
          'registrar.sock beside discovery.control',
      ),
    control_group: SafeName.optional().describe(
      "whose members may use that socket: a name or number; default: the daemon's own group",
    ),
    drain_file: z
      .string()
      .min(1)
      .optional()
      .describe('while this file exists, no service of the host is announced'),
    shutdown_delay: duration({ minMs: 0, maxMs: 3_600_000 })
      .prefault('0ms')
      .describe('from the withdrawal at SIGTERM to the end of the daemon; the checks go on meanwhile'),
    heartbeat_file: z
      .string()
      .min(1)
      .optional()
      .describe('touched every second while all checks make progress, for whoever watches the daemon'),
    rate_limit: RateLimitSection.optional().describe('of the announcements of all services together'),
    flap_damping: FlapDampingSection.optional().describe(
      'holds down what goes down again and again; for services that do not say otherwise',
    ),
    ...finderKeys,
  })
  .transform((keys) => ({
    control: keys.control,
    controlGroup: keys.control_group,
    drainFile: keys.drain_file,
    shutdownDelayMs: keys.shutdown_delay,
    heartbeatFile: keys.heartbeat_file,
    rateLimit: keys.rate_limit,
    flapDamping: keys.flap_damping === false ? undefined : keys.flap_damping,
    docker: keys.docker,
  }));

export type RegistrarSettings = z.output<typeof RegistrarSection>;
