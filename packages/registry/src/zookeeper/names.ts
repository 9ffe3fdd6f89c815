import { lookup } from 'node:dns/promises';

import { type Log, messageOf, withDeadline } from '@tandem/core';

/** All addresses of a host name, by whatever the system is set up to ask. Rejects when there is none. */
export type Resolve = (host: string) => Promise<readonly string[]>;

/** A set of host names, and the addresses that each was last known to have. */
export interface Names {
  /**
   * Asks for every name again, and waits: shortly as long as there is anybody to try without an answer, longer if not.
   * What comes later counts from the next time on. Rejects only with the reason of the signal.
   */
  refresh(signal: AbortSignal): Promise<void>;
  /** None for a name that never resolved. */
  addresses(host: string): readonly string[];
}

/** A resolver that is slow, or away, must not cost a session that could be saved by an address that is known. */
const PATIENCE_MS = 250;
/** A lookup cannot be cancelled: it is left to end in its own time, and nobody asks again for that name before. */
const DEADLINE_MS = 5_000;

export async function resolveBySystem(host: string): Promise<readonly string[]> {
  const found = await lookup(host, { all: true, verbatim: true });
  return found.map(({ address }) => address);
}

/** `hasOthers`: there is somebody to try even if no name resolves. */
export function createNames(options: {
  hosts: readonly string[];
  hasOthers: boolean;
  resolve: Resolve;
  log: Log;
}): Names {
  const { hosts, hasOthers, resolve, log } = options;
  const names = new Map([...new Set(hosts)].map((host) => [host, new Name(host, resolve, log)]));

  return {
    async refresh(signal) {
      if (names.size === 0) return;
      const all = [...names.values()];
      const mayHurry = hasOthers || all.some(({ addresses }) => addresses.length > 0);
      const lookups = all.map((name) => name.ask());
      try {
        await withDeadline(signal, mayHurry ? PATIENCE_MS : DEADLINE_MS, () => Promise.all(lookups));
      } catch {
        signal.throwIfAborted();
        for (const name of all) name.judge();
      }
    },
    addresses: (host) => names.get(host)?.addresses ?? [],
  };
}

class Name {
  readonly #host: string;
  readonly #resolve: Resolve;
  readonly #log: Log;
  readonly #told = new Set<string>();
  #asking: { readonly since: number; readonly done: Promise<void> } | undefined;
  addresses: readonly string[] = [];

  constructor(host: string, resolve: Resolve, log: Log) {
    this.#host = host;
    this.#resolve = resolve;
    this.#log = log;
  }

  /** Never rejects. */
  ask(): Promise<void> {
    this.#asking ??= { since: performance.now(), done: this.#ask() };
    return this.#asking.done;
  }

  /** Tells of a lookup that takes too long. */
  judge(): void {
    if (this.#asking === undefined) return;
    // A timer may be early by a part of a millisecond.
    if (performance.now() - this.#asking.since < DEADLINE_MS - 1) return;
    this.#fail(`no answer within ${DEADLINE_MS} ms`);
  }

  async #ask(): Promise<void> {
    try {
      const addresses = await this.#resolve(this.#host);
      if (addresses.length === 0) this.#fail('it has no address');
      else this.#succeed(addresses);
    } catch (error) {
      this.#fail(messageOf(error));
    } finally {
      this.#asking = undefined;
    }
  }

  #succeed(addresses: readonly string[]): void {
    this.addresses = addresses;
    if (this.#told.size > 0)
      this.#log.info({ host: this.#host, addresses }, 'a ZooKeeper server resolves again');
    this.#told.clear();
  }

  #fail(reason: string): void {
    if (this.#told.has(reason)) return;
    this.#told.add(reason);
    const facts = { host: this.#host, reason };
    if (this.addresses.length === 0) this.#log.warn(facts, 'cannot resolve a ZooKeeper server');
    else
      this.#log.warn(
        { ...facts, addresses: this.addresses },
        'cannot resolve a ZooKeeper server, using the addresses it had',
      );
  }
}
