import type { Registry } from '@tandem/registry';

import type { DiscoveredService } from '../config.ts';
import type { Source } from '../source.ts';
import { registrySource } from './registry.ts';

/** The source that a service's configuration names. */
export function createSource(service: DiscoveredService, deps: { registry: Registry }): Source {
  return registrySource(deps.registry, service);
}
