import { SafeName } from '@tandem/core';
import * as z from 'zod';

import { SocketPath } from './lines.ts';
import { GuardSection } from './selection.ts';

/** `discovery` of the host file. Relative paths are relative to that file. */
export const DiscoverySection = z
  .strictObject({
    control: SocketPath()
      .optional()
      .describe(
        'where tandem status and tandem hold reach the daemon; default: discovery.sock beside haproxy.runtime_socket',
      ),
    control_group: SafeName.optional().describe(
      "whose members may use that socket: a name or number; default: the daemon's own group",
    ),
    guard: GuardSection.prefault({}).describe(
      'refusal of an implausible loss, for services without their own',
    ),
  })
  .transform(({ control, control_group: controlGroup, guard }) => ({ control, controlGroup, guard }));

export type DiscoverySettings = z.output<typeof DiscoverySection>;
