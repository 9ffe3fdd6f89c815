import type { HostConfig, Instance } from '@tandem/core';

import type { RegisterConfig } from './config.ts';
import type { Verdict } from './health.ts';
import { type SlowStart, slowWeight } from './slow-start.ts';

/** What else than its checks decides about a service. */
export interface Circumstances {
  /** Somebody wants it out of rotation, whatever its checks say. Undecided while that is still to be found out. */
  readonly isDrained: boolean | 'undecided';
  /** It went down too often. */
  readonly isHeld: boolean;
  /** An operator's, in place of the configured one. */
  readonly weight: number | undefined;
  /** Undefined: it is not to start slowly, or has done so. */
  readonly slowStart: SlowStart | undefined;
}

export const ORDINARY: Circumstances = {
  isDrained: false,
  isHeld: false,
  weight: undefined,
  slowStart: undefined,
};

/**
 * What shall stand in the registry: an instance, nothing, or whatever stands there now while nobody knows better.
 * The last is what makes a restart of the registrar invisible.
 */
export function announcementOf(
  verdict: Verdict,
  config: RegisterConfig,
  host: HostConfig,
  circumstances: Circumstances = ORDINARY,
): Instance | undefined | 'undecided' {
  const { isDrained, isHeld } = circumstances;
  if (isDrained === true || isHeld) return undefined;
  switch (verdict.health) {
    case 'unknown':
      return 'undecided';
    case 'down':
      return verdict.isFirm ? undefined : 'undecided';
    case 'up':
      return isDrained === 'undecided' ? 'undecided' : instanceOf(config, host, circumstances);
  }
}

/** @param host the host as this service is announced: with its own name and address, if it has some */
function instanceOf(config: RegisterConfig, host: HostConfig, circumstances: Circumstances): Instance {
  const labels = { ...host.labels, ...config.labels };
  const weight = weightOf(config, circumstances);
  const { haproxyServerOptions } = config;
  return {
    name: host.name,
    host: host.address,
    port: config.port,
    ...(weight === undefined ? {} : { weight }),
    ...(haproxyServerOptions === undefined ? {} : { haproxyServerOptions }),
    ...(Object.keys(labels).length === 0 ? {} : { labels }),
  };
}

function weightOf(config: RegisterConfig, { weight, slowStart }: Circumstances): number | undefined {
  const whole = weight ?? config.weight;
  return whole === undefined || slowStart === undefined ? whole : slowWeight(whole, slowStart).weight;
}
