import { type Log, RegistryPath } from '@tandem/core';
import * as z from 'zod';

import type { Registry } from './registry.ts';
import { ZooKeeperSection } from './zookeeper/config.ts';

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

/** Opens the registry that the configuration names. Returns at once; connecting goes on by itself. */
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
