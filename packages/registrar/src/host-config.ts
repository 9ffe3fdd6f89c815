import { duration, SafeName, SocketPath } from '@tandem/core';
import * as z from 'zod';

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
    shutdown_delay: duration({ minMs: 0, maxMs: 3_600_000 })
      .prefault('0ms')
      .describe('from the withdrawal at SIGTERM to the end of the daemon; the checks go on meanwhile'),
    heartbeat_file: z
      .string()
      .min(1)
      .optional()
      .describe('touched every second while all checks make progress, for whoever watches the daemon'),
  })
  .transform(({ control, control_group, shutdown_delay, heartbeat_file }) => ({
    control,
    controlGroup: control_group,
    shutdownDelayMs: shutdown_delay,
    heartbeatFile: heartbeat_file,
  }));

export type RegistrarSettings = z.output<typeof RegistrarSection>;
