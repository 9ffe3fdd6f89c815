import { once } from 'node:events';
import { isIP } from 'node:net';

import {
  type AddressResolver,
  type Instance,
  type Log,
  messageOf,
  type Rejection,
  uniqueInstances,
} from '@tandem/core';

import type { AddressMemory } from './address-memory.ts';
import { withAddresses } from './addresses.ts';
import type { Source } from './source.ts';

/** The instances that a configuration names for the time without others, with addresses for hosts. */
export interface Fallback {
  /** The same array as long as nothing has changed. Empty while no name has ever had an address. */
  readonly instances: readonly Instance[];
  readonly rejected: readonly Rejection[];
  end(): void;
}

/** @param before what is used until one of the configured names has an address */
export function followFallback(
  configured: readonly Instance[],
  deps: {
    readonly resolver: AddressResolver;
    readonly memory: AddressMemory;
    readonly log: Log;
    readonly onChange: () => void;
  },
  before: readonly Instance[] = [],
): Fallback {
  const unique = uniqueInstances(configured);
  if (unique.every(({ host }) => isIP(host) !== 0)) return { instances: unique, rejected: [], end() {} };
  const controller = new AbortController();
  let instances = before;
  let rejected: readonly Rejection[] = [];
  const source: Source = {
    async *watch(signal) {
      yield { instances: unique, rejected: [] };
      if (!signal.aborted) await once(signal, 'abort');
    },
  };
  void (async () => {
    try {
      for await (const snapshot of withAddresses(source, deps).watch(controller.signal)) {
        ({ rejected } = snapshot);
        if (snapshot.instances.length > 0) ({ instances } = snapshot);
        deps.onChange();
      }
    } catch (error) {
      deps.log.error({ err: messageOf(error) }, 'cannot follow the names of a fallback');
    }
  })();
  return {
    get instances() {
      return instances;
    },
    get rejected() {
      return rejected;
    },
    end: () => controller.abort(),
  };
}
