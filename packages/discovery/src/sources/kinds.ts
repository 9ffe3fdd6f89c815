import * as z from 'zod';

import type { Source, SourceScene } from '../source.ts';
import { type DockerConfig, DockerSection, dockerSource } from './docker.ts';
import { type MarathonConfig, MarathonSection, marathonSource } from './marathon.ts';
import { registrySource } from './registry.ts';
import { type StaticConfig, StaticSection, staticSource } from './static.ts';

/** Every kind of source: a key in the configuration, its schema here, its factory below. */
const KINDS = {
  registry: z
    .strictObject({})
    .optional()
    .describe('the announcements in the registry, below the path of the service'),
  static: StaticSection.optional().describe('instances that stand here, and never change'),
  docker: DockerSection.optional().describe('containers that publish a port'),
  marathon: MarathonSection.optional().describe('the tasks of an app of Marathon'),
};

/** One source as it was configured: plain data, equal when its meaning is equal. */
export type SourceConfig =
  | { readonly kind: 'registry' }
  | { readonly kind: 'static'; readonly options: StaticConfig }
  | { readonly kind: 'docker'; readonly options: DockerConfig }
  | { readonly kind: 'marathon'; readonly options: MarathonConfig };

/** `source`: a map with a single key, the kind. */
export const SourceSection = z.strictObject(KINDS).transform((entry, context): SourceConfig => {
  const given = configsOf(entry);
  const [only] = given;
  // A mistyped kind has been named already.
  if (context.issues.length > 0) return z.NEVER;
  if (only !== undefined && given.length === 1) return only;
  const known = Object.keys(KINDS).join(', ');
  context.addIssue({ code: 'custom', message: `must have exactly one kind of source (known: ${known})` });
  return z.NEVER;
});

function configsOf(entry: z.output<z.ZodObject<typeof KINDS>>): SourceConfig[] {
  return [
    ...(entry.registry === undefined ? [] : [{ kind: 'registry' } as const]),
    ...(entry.static === undefined ? [] : [{ kind: 'static', options: entry.static } as const]),
    ...(entry.docker === undefined ? [] : [{ kind: 'docker', options: entry.docker } as const]),
    ...(entry.marathon === undefined ? [] : [{ kind: 'marathon', options: entry.marathon } as const]),
  ];
}

/** Makes a configured source ready to be watched. Reads and connects to nothing before somebody watches. */
export function createSource(config: SourceConfig, scene: SourceScene): Source {
  switch (config.kind) {
    case 'registry':
      return registrySource(scene);
    case 'static':
      return staticSource(config.options);
    case 'docker':
      return dockerSource(config.options, scene);
    case 'marathon':
      return marathonSource(config.options, scene);
  }
}
