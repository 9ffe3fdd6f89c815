import { type Log, RegistryPath } from '@tandem/core';
import * as z from 'zod';

import type { Registry } from './registry.ts';
import { resolveFiles, ZooKeeperSection } from './zookeeper/config.ts';

/** `registry` of the host file: one key per kind, exactly one of them given. */
export const RegistrySection = z
  .strictObject({
    zookeeper: ZooKeeperSection,
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
  .transform((section) => ({ zookeeper: section.zookeeper, pathTemplate: section.path_template }));

export type RegistryConfig = z.output<typeof RegistrySection>;

/** The same with every file that it names absolute. */
export function resolveRegistryFiles(
  config: RegistryConfig,
  absolute: (file: string) => string,
): RegistryConfig {
  return { ...config, zookeeper: resolveFiles(config.zookeeper, absolute) };
}

/** What is wrong with the files that the configuration names, such as certificates; connects to nobody. */
export async function findRegistryProblems(
  config: RegistryConfig,
): Promise<{ key: string; reason: string; remedy: string }[]> {
  const { findFileProblems } = await import('./zookeeper/access.ts');
  return findFileProblems(config.zookeeper);
}

/**
 * Opens the registry that the configuration names. Returns at once; connecting goes on by itself. Rejects with
 * `CONFIG_INVALID` when a file that the configuration names is missing or does not hold what it should.
 */
export async function openRegistry(
  config: RegistryConfig,
  options: { log: Log; resumeFile?: string },
): Promise<Registry> {
  const { openZooKeeperRegistry } = await import('./zookeeper/registry.ts');
  return openZooKeeperRegistry({ config: config.zookeeper, ...options });
}

/** The path of a service under the template. */
export function servicePath(config: Pick<RegistryConfig, 'pathTemplate'>, service: string): string {
  return config.pathTemplate.replace('{service}', () => service);
}
