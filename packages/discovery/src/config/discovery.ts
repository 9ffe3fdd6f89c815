import { MAX_CONTROL_PATH, SafeName, SocketPath } from '@tandem/core';
import * as z from 'zod';

import { FilesSection, TemplatesSection } from './outputs.ts';
import { GuardSection } from './selection.ts';

/** `discovery` of the host file. Relative paths are relative to that file. */
export const DiscoverySection = z
  .strictObject({
    control: SocketPath(MAX_CONTROL_PATH)
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
    files: FilesSection.optional().describe('the instances of every service as JSON'),
    templates: TemplatesSection.default([]).describe('files of other programs, such as nginx.conf'),
  })
  .transform(({ control, control_group: controlGroup, guard, files, templates }) => ({
    control,
    controlGroup,
    guard,
    files,
    templates,
  }));

export type DiscoverySettings = z.output<typeof DiscoverySection>;
