import { SafeName, SocketPath } from '@tandem/core';
import * as z from 'zod';

import { finderKeys } from './finders/kinds.ts';

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
    ...finderKeys,
  })
  .transform(({ control, control_group: controlGroup, docker }) => ({ control, controlGroup, docker }));

export type RegistrarSettings = z.output<typeof RegistrarSection>;
