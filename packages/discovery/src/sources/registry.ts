import type { Registry } from '@tandem/registry';

import type { Source } from '../source.ts';

/** The announcements below one path of the registry. */
export function registrySource(registry: Registry, path: string): Source {
  return { watch: (signal) => registry.watch(path, signal) };
}
