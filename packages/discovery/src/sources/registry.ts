import type { Registry } from '@tandem/registry';

import type { DiscoveredService } from '../config.ts';
import type { Source } from '../source.ts';

/** The announcements of a service below its path of the registry. */
export function registrySource(registry: Registry, { path, config }: DiscoveredService): Source {
  return { watch: (signal) => registry.watch(path, signal, { format: config.format }) };
}
