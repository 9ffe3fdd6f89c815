import * as z from 'zod';

import type { Source, SourceScene } from '../source.ts';
import { registrySource } from './registry.ts';

/** Every kind of source: a key in the configuration, its schema here, its factory below. */
const KINDS = {
  registry: z
    .strictObject({})
    .optional()
    .describe('the announcements in the registry, below the path of the service'),
};

/** One source as it was configured: plain data, equal when its meaning is equal. */
export type SourceConfig = { readonly kind: 'registry' };

/** `source`: a map with a single key, the kind. */
export const SourceSection = z.strictObject(KINDS).transform((entry, context): SourceConfig => {
  if (context.issues.length > 0) return z.NEVER;
  if (entry.registry !== undefined) return { kind: 'registry' };
  const known = Object.keys(KINDS).join(', ');
  context.addIssue({ code: 'custom', message: `must have exactly one kind of source (known: ${known})` });
  return z.NEVER;
});

export function createSource(config: SourceConfig, scene: SourceScene): Source {
  switch (config.kind) {
    case 'registry':
      return registrySource(scene);
  }
}
