import type { Source, SourceScene } from '../source.ts';

/** The announcements of a service below its path of the registry. */
export function registrySource({ registry, path, format }: SourceScene): Source {
  return { watch: (signal) => registry.watch(path, signal, { format }) };
}
