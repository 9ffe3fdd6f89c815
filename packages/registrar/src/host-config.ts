import { duration, SafeName, SocketPath } from '@tandem/core';
import * as z from 'zod';

import { FlapDampingSection } from './flap.ts';
import { RateLimitSection } from './rate-limit.ts';

/** `registrar` of the host file. Relative paths are relative to that file. */
export const RegistrarSection = z
  .strictObject({
    control: SocketPath()
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
    rate_limit: RateLimitSection.optional().describe('of the announcements of all services together'),
    heartbeat_file: z
      .string()
      .min(1)
      .optional()
      .describe('touched every second while all checks make progress, for whoever watches the daemon'),
    flap_damping: FlapDampingSection.optional().describe(
      'holds down what goes down again and again; for services that do not say otherwise',
    ),
  })
  .transform(({ control, control_group, drain_file, shutdown_delay, heartbeat_file, ...limits }) => ({
    control,
    controlGroup: control_group,
    drainFile: drain_file,
    shutdownDelayMs: shutdown_delay,
    heartbeatFile: heartbeat_file,
    rateLimit: limits.rate_limit,
    flapDamping: limits.flap_damping,
  }));

export type RegistrarSettings = z.output<typeof RegistrarSection>;
