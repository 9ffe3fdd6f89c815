import * as z from 'zod';

import type { Source, SourceScene } from '../source.ts';
import { type DnsConfig, DnsSection, dnsSource } from './dns.ts';
import { type DockerConfig, DockerSection, dockerSource, resolveDockerFiles } from './docker.ts';
import { type FileConfig, FileSection, fileSource } from './file.ts';
import { type MarathonConfig, MarathonSection, marathonSource, resolveMarathonFiles } from './marathon.ts';
import { type MultiConfig, multiSection, multiSource } from './multi.ts';
import { registrySource } from './registry.ts';
import { type StaticConfig, StaticSection, staticSource } from './static.ts';

/** Every kind of source: a key in the configuration, its schema here, its factory below. */
const KINDS = {
  registry: z
    .strictObject({})
    .optional()
    .describe('the announcements in the registry, below the path of the service'),
  static: StaticSection.optional().describe('instances that stand here, and never change'),
  file: FileSection.optional().describe('a file that something else on this host writes'),
  dns: DnsSection.optional().describe('names that stand for the instances'),
  multi: z
    .lazy(() => multiSection(SourceSection))
    .optional()
    .describe('several sources as one'),
  docker: DockerSection.optional().describe('containers that publish a port'),
  marathon: MarathonSection.optional().describe('the tasks of an app of Marathon'),
};

/** One source as it was configured: plain data, equal when its meaning is equal. */
export type SourceConfig =
  | { readonly kind: 'registry' }
  | { readonly kind: 'static'; readonly options: StaticConfig }
  | { readonly kind: 'file'; readonly options: FileConfig }
  | { readonly kind: 'dns'; readonly options: DnsConfig }
  | { readonly kind: 'multi'; readonly options: MultiConfig }
  | { readonly kind: 'docker'; readonly options: DockerConfig }
  | { readonly kind: 'marathon'; readonly options: MarathonConfig };

/** `source`: a map with a single key, the kind. */
export const SourceSection: z.ZodType<SourceConfig> = z
  .strictObject(KINDS)
  .transform((entry, context): SourceConfig => {
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
    ...(entry.file === undefined ? [] : [{ kind: 'file', options: entry.file } as const]),
    ...(entry.dns === undefined ? [] : [{ kind: 'dns', options: entry.dns } as const]),
    ...(entry.multi === undefined ? [] : [{ kind: 'multi', options: entry.multi } as const]),
    ...(entry.docker === undefined ? [] : [{ kind: 'docker', options: entry.docker } as const]),
    ...(entry.marathon === undefined ? [] : [{ kind: 'marathon', options: entry.marathon } as const]),
  ];
}

/** The same with every file that it names absolute. */
export function resolveSourceFiles(config: SourceConfig, absolute: (file: string) => string): SourceConfig {
  switch (config.kind) {
    case 'registry':
    case 'static':
    case 'dns':
      return config;
    case 'file':
      return { ...config, options: { path: absolute(config.options.path) } };
    case 'docker':
      return { ...config, options: resolveDockerFiles(config.options, absolute) };
    case 'marathon':
      return { ...config, options: resolveMarathonFiles(config.options, absolute) };
    case 'multi': {
      const sources = config.options.sources.map((part) => ({
        ...part,
        source: resolveSourceFiles(part.source, absolute),
      }));
      return { ...config, options: { ...config.options, sources } };
    }
  }
}

/** Makes a configured source ready to be watched. Reads and connects to nothing before somebody watches. */
export function createSource(config: SourceConfig, scene: SourceScene): Source {
  switch (config.kind) {
    case 'registry':
      return registrySource(scene);
    case 'static':
      return staticSource(config.options);
    case 'file':
      return fileSource(config.options, scene.log);
    case 'dns':
      return dnsSource(config.options, scene.log);
    case 'multi':
      return multiSource(config.options, { ...scene, create: (part) => createSource(part, scene) });
    case 'docker':
      return dockerSource(config.options, scene);
    case 'marathon':
      return marathonSource(config.options, scene);
  }
}
