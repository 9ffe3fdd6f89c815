import type { HostConfig, Instance } from '@tandem/core';

import type { RegisterConfig } from './config.ts';
import type { Health } from './health.ts';

/**
 * What shall stand in the registry: an instance, nothing, or whatever stands there now while nobody knows better.
 * The last is what makes a restart of the registrar invisible.
 */
export function announcementOf(
  health: Health,
  config: RegisterConfig,
  host: HostConfig,
): Instance | undefined | 'undecided' {
  switch (health) {
    case 'unknown':
      return 'undecided';
    case 'down':
      return undefined;
    case 'up':
      return instanceOf(config, host);
  }
}

function instanceOf(config: RegisterConfig, host: HostConfig): Instance {
  const labels = { ...host.labels, ...config.labels };
  return {
    name: host.name,
    host: host.address,
    port: config.port,
    ...(config.weight === undefined ? {} : { weight: config.weight }),
    ...(Object.keys(labels).length === 0 ? {} : { labels }),
  };
}
