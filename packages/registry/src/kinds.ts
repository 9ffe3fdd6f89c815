import { type Log, RegistryPath } from '@tandem/core';
import * as z from 'zod';

import type { MemoryStore } from './memory/store.ts';
import type { Registry } from './registry.ts';
import { resolveFiles, type ZooKeeperConfig, ZooKeeperSection } from './zookeeper/config.ts';

/** Every kind of registry: a key in the host file, its schema here, its factory below. */
const KINDS = {
  zookeeper: ZooKeeperSection.optional(),
  memory: z
    .strictObject({})
    .optional()
    .describe('nowhere but in this process, for dry runs: nobody else sees it'),
};

/** Which registry, as it was configured. */
export type RegistryKind =
  { readonly kind: 'zookeeper'; readonly zookeeper: ZooKeeperConfig } | { readonly kind: 'memory' };

export type RegistryConfig = RegistryKind & { readonly pathTemplate: string };

/** `registry` of the host file: one key per kind, exactly one of them given. */
export const RegistrySection = z
  .strictObject({
    ...KINDS,
    path_template: z
      .string()
      .default('/services/{service}')
      .refine((text) => text.split('{service}').length === 2, 'must contain {service} exactly once')
      .refine(
        (text) => RegistryPath.safeParse(text.replace('{service}', 'x')).success,
        'must be an absolute path such as /services/{service}',
      )
      .describe('the path of a service that names none'),
  })
  .transform((section, context): RegistryConfig => {
    const given = kindsOf(section);
    const [only] = given;
    // A mistyped kind has been named already.
    if (context.issues.length > 0) return z.NEVER;
    if (only !== undefined && given.length === 1) return { ...only, pathTemplate: section.path_template };
    const known = Object.keys(KINDS).join(', ');
    context.addIssue({ code: 'custom', message: `must have exactly one kind of registry (known: ${known})` });
    return z.NEVER;
  });

function kindsOf({ zookeeper, memory }: z.output<z.ZodObject<typeof KINDS>>): RegistryKind[] {
  return [
    ...(zookeeper === undefined ? [] : [{ kind: 'zookeeper', zookeeper } as const]),
    ...(memory === undefined ? [] : [{ kind: 'memory' } as const]),
  ];
}

export interface OpenOptions {
  readonly log: Log;
  /** Where the registry keeps what a successor needs to take over; without it nothing is left to one. */
  readonly resumeFile?: string;
  /** What registries in memory share when they are opened with the same one. Default: nothing. */
  readonly store?: MemoryStore;
}

/** The same with every file that it names absolute. */
export function resolveRegistryFiles(
  config: RegistryConfig,
  absolute: (file: string) => string,
): RegistryConfig {
  return config.kind === 'zookeeper'
    ? { ...config, zookeeper: resolveFiles(config.zookeeper, absolute) }
    : config;
}

/** What is wrong with the files that the configuration names, such as certificates; connects to nobody. */
export async function findRegistryProblems(
  config: RegistryConfig,
): Promise<{ key: string; reason: string; remedy: string }[]> {
  if (config.kind !== 'zookeeper') return [];
  const { findFileProblems } = await import('./zookeeper/access.ts');
  return findFileProblems(config.zookeeper);
}

/**
 * Opens the registry that the configuration names. Returns at once; connecting goes on by itself. Rejects with
 * `CONFIG_INVALID` when a file that the configuration names is missing or does not hold what it should.
 */
export async function openRegistry(config: RegistryConfig, options: OpenOptions): Promise<Registry> {
  switch (config.kind) {
    case 'zookeeper': {
      const { openZooKeeperRegistry } = await import('./zookeeper/registry.ts');
      return openZooKeeperRegistry({ config: config.zookeeper, ...options });
    }
    case 'memory': {
      const { openMemoryRegistry } = await import('./memory/registry.ts');
      if (options.store === undefined)
        options.log.warn({}, 'the registry is in the memory of this process, nobody else sees it');
      return openMemoryRegistry(options);
    }
  }
}

/** The path of a service under the template. */
export function servicePath(config: Pick<RegistryConfig, 'pathTemplate'>, service: string): string {
  return config.pathTemplate.replace('{service}', () => service);
}
