import * as z from 'zod';

import { SocketPath } from './lines.ts';
import { FilesSection, TemplatesSection } from './outputs.ts';
import { GuardSection } from './selection.ts';

/** `discovery` of the host file. Relative paths are relative to that file. */
export const DiscoverySection = z
  .strictObject({
    control: SocketPath()
      .default('/run/tandem/discovery.sock')
      .describe('where tandem hold and tandem status reach the daemon'),
    guard: GuardSection.prefault({}).describe(
      'refusal of an implausible loss, for services without their own',
    ),
    files: FilesSection.optional().describe('the instances of every service as JSON'),
    templates: TemplatesSection.default([]).describe('files of other programs, such as nginx.conf'),
  })
  .transform(({ control, guard, files, templates }) => ({ control, guard, files, templates }));

export type DiscoverySettings = z.output<typeof DiscoverySection>;
