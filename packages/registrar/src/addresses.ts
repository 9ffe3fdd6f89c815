import { BlockList, isIP } from 'node:net';

import { type AddressResolver, createBackoff, type DnsAnswer, type Log } from '@tandem/core';

import type { Clock } from './clock.ts';
import type { Memory } from './memory.ts';

/** What the names stand for that services are announced by. */
export interface Addresses {
  /** Which names matter from now on, as a whole. Addresses among them need no looking up. */
  want(names: ReadonlySet<string>): void;
  /** The address of a name, or an address itself. Undefined while nobody knows. */
  of(name: string): string | undefined;
  stop(): void;
}

export interface AddressesDeps {
  readonly resolver: AddressResolver;
  readonly memory: Pick<Memory, 'recallAddress' | 'noteAddress'>;
  readonly clock: Clock;
  readonly log: Log;
  /** Called when a name has got another address than before. */
  readonly onChange: () => void;
}

const RETRY = { baseMs: 1_000, maxMs: 30_000 };
const TTL = { minMs: 1_000, maxMs: 300_000 };

/** What means nothing, or something else, on other hosts. */
const USELESS = new BlockList();
USELESS.addSubnet('127.0.0.0', 8);
USELESS.addAddress('0.0.0.0');
USELESS.addSubnet('::', 127, 'ipv6');
USELESS.addSubnet('fe80::', 10, 'ipv6');

/**
 * Follows names as their records say. An address that was known stays until another one is: neither an outage of the DNS
 * nor its word that there is no such name takes a service away.
 */
export function createAddresses(deps: AddressesDeps): Addresses {
  const { memory } = deps;
  const known = new Map<string, string>();
  const followed = new Map<string, AbortController>();

  function learn(name: string, address: string): void {
    const before = known.get(name);
    if (before === address) return;
    known.set(name, address);
    memory.noteAddress(name, address);
    deps.log.info(
      { host: name, address, ...(before === undefined ? {} : { before }) },
      'found the address of a host',
    );
    deps.onChange();
  }

  return {
    want(names) {
      for (const [name, following] of followed) {
        if (names.has(name)) continue;
        following.abort(new Error('not wanted any more'));
        followed.delete(name);
        known.delete(name);
      }
      for (const name of names) {
        if (isIP(name) !== 0 || followed.has(name)) continue;
        const following = new AbortController();
        followed.set(name, following);
        const remembered = memory.recallAddress(name);
        if (remembered !== undefined) known.set(name, remembered);
        follow({ ...deps, name, signal: following.signal, current: () => known.get(name), learn });
      }
    },
    of: (name) => (isIP(name) === 0 ? known.get(name) : name),
    stop() {
      for (const following of followed.values()) following.abort(new Error('stopped'));
      followed.clear();
    },
  };
}

interface Following extends AddressesDeps {
  readonly name: string;
  readonly signal: AbortSignal;
  readonly current: () => string | undefined;
  readonly learn: (name: string, address: string) => void;
}

function follow(following: Following): void {
  const { resolver, clock, log, name, signal, current, learn } = following;
  const backoff = createBackoff(RETRY, clock.random);
  let isFailing = false;
  let cancel = () => {};
  signal.addEventListener('abort', () => cancel(), { once: true });

  async function look(): Promise<void> {
    const answer = await resolver.resolve(name, signal).catch((error: unknown) => failed(String(error)));
    if (signal.aborted) return;
    const choice = chooseAddress(answer, current());
    if (choice.ok) {
      isFailing = false;
      backoff.reset();
      learn(name, choice.address);
    } else {
      const facts = { host: name, reason: choice.reason, address: current() };
      if (!isFailing)
        log.error(facts, 'cannot find the address of a host, what is announced by it stays as it is');
      isFailing = true;
    }
    cancel = clock.after(choice.ok ? choice.ttlMs : backoff.next(), () => void look());
  }
  void look();
}

type Choice =
  | { readonly ok: true; readonly address: string; readonly ttlMs: number }
  | { readonly ok: false; readonly reason: string };

/** Of several the one that it was; else the first, in an order that does not change from answer to answer. */
export function chooseAddress(answer: DnsAnswer<string>, current: string | undefined): Choice {
  if (answer.kind !== 'found') return { ok: false, reason: answer.reason };
  const usable = answer.records.filter((address) => !isUseless(address)).toSorted();
  const [first] = usable;
  if (first === undefined)
    return { ok: false, reason: `it stands for ${answer.records.join(', ')}, which no other host can use` };
  const address = current !== undefined && usable.includes(current) ? current : first;
  return { ok: true, address, ttlMs: Math.min(TTL.maxMs, Math.max(TTL.minMs, answer.ttlMs)) };
}

/** Many a machine has its own name in its file of hosts as 127.0.1.1. */
function isUseless(address: string): boolean {
  return USELESS.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4');
}

function failed(reason: string): DnsAnswer<string> {
  return { kind: 'failed', reason };
}
