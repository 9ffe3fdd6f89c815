import * as z from 'zod';

import { SocketPath } from './lines.ts';
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
  })
  .transform(({ control, guard }) => ({ control, guard }));

export type DiscoverySettings = z.output<typeof DiscoverySection>;
