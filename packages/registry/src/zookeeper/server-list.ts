import { isIP } from 'node:net';

import { formatEndpoint, type Log } from '@tandem/core';

import { createNames, type Resolve } from './names.ts';
import { type ServerAddress, shuffled } from './servers.ts';

/** One address to try, and what the configuration calls it. */
export interface Target {
  readonly host: string;
  readonly address: string;
  readonly port: number;
}

/** Which address is tried next. A name with several addresses is several servers. */
export interface ServerList {
  /**
   * Goes through all addresses, then resolves every name again and goes through what they are by then: the one that was
   * tried longest ago first, and new ones before all others in an order of chance. Undefined when no name has ever had
   * an address. Rejects only with the reason of the signal.
   */
  next(signal: AbortSignal): Promise<Target | undefined>;
  /** Somebody has answered: next time begins with resolving. */
  restart(): void;
  /** How many there are to try, as far as is known; at least 1. */
  readonly count: number;
}

export function createServerList(options: {
  servers: readonly ServerAddress[];
  resolve: Resolve;
  random: () => number;
  log: Log;
}): ServerList {
  const { servers, resolve, random, log } = options;
  const hosts = servers.map(({ host }) => host).filter((host) => isIP(host) === 0);
  const names = createNames({ hosts, hasOthers: hosts.length < servers.length, resolve, log });
  /** When each was tried last, in attempts. */
  const tried = new Map<string, number>();
  let attempts = 0;
  let count = servers.length;
  let round: Target[] = [];

  async function compose(signal: AbortSignal): Promise<Target[]> {
    await names.refresh(signal);
    const targets = servers.flatMap(({ host, port }) =>
      (isIP(host) === 0 ? names.addresses(host) : [host]).map((address) => ({ host, address, port })),
    );
    const known = new Map(targets.map((target) => [formatTarget(target), target]));
    for (const target of tried.keys()) if (!known.has(target)) tried.delete(target);
    count = Math.max(1, known.size);
    const age = (target: Target) => tried.get(formatTarget(target)) ?? 0;
    return shuffled([...known.values()], random).toSorted((a, b) => age(a) - age(b));
  }

  return {
    async next(signal) {
      if (round.length === 0) round = await compose(signal);
      const target = round.shift();
      if (target !== undefined) tried.set(formatTarget(target), (attempts += 1));
      return target;
    },
    restart() {
      round = [];
    },
    get count() {
      return count;
    },
  };
}

/** `10.0.0.1:2181`, `zk1:2181 (10.0.0.1)` */
export function formatTarget({ host, address, port }: Target): string {
  const server = formatEndpoint({ host, port });
  return host === address ? server : `${server} (${address})`;
}
