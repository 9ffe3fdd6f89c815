import { isIP } from 'node:net';

import {
  type AddressResolver,
  compareAddresses,
  createBackoff,
  type DnsAnswer,
  type Instance,
  type Log,
  messageOf,
  queryName,
  type Rank,
  sleepOrAborted,
} from '@tandem/core';

import type { AddressMemory } from './address-memory.ts';
import { toldOnce } from './source.ts';

export type Found =
  | { readonly kind: 'address'; readonly address: string }
  | { readonly kind: 'unknown'; readonly reason: string };

/** The names of one snapshot after the other, each followed by itself. */
export interface HostNames {
  follow(instances: readonly Instance[]): void;
  find(host: string): Found;
  /** Whether one of them is new, and no nameserver has said anything of it yet. */
  areAwaited(): boolean;
  /** Those that are new now have had their time. */
  awaitNoLonger(): void;
  /** Whether no nameserver has ever answered. */
  isAway(): boolean;
  close(): Promise<void>;
}

interface NameState {
  readonly controller: AbortController;
  found: Found;
}

/** An address stays for so long before the name is asked for again. */
const MIN_TTL_MS = 1_000;
const MAX_TTL_MS = 30_000;
/** A name that has no address yet is asked for again soon. */
const FIRST_RETRY_MS = 250;

const NO_NAME: Found = {
  kind: 'unknown',
  reason: 'the host is neither an address nor the name of a host',
};
const PENDING: Found = { kind: 'unknown', reason: 'no nameserver has answered yet' };

/** Asks on, and tells when what is found has changed. */
export function followHostNames(
  { resolver, memory, log }: { resolver: AddressResolver; memory: AddressMemory; log: Log },
  onChange: () => void,
): HostNames {
  const states = new Map<string, NameState>();
  const running = new Set<Promise<void>>();
  const awaited = new Set<NameState>();
  /** Those whose address is an old one. */
  const failing = new Set<string>();
  const by = {};
  let isAnswered = false;
  const say = toldOnce((trouble) => {
    const names = [...failing].slice(0, 10);
    if (trouble === undefined) log.info({}, 'the names of all hosts are answered again');
    else log.warn({ names }, 'names of hosts are not answered, keeping the addresses that they had');
  });

  function take(name: string, state: NameState, answer: DnsAnswer<string>): void {
    const before = state.found;
    if (answer.kind !== 'failed') isAnswered = true;
    state.found = nextFound(lastKnown(name, state.found, memory), answer);
    const { found } = state;
    // While nobody knows anything of it, a snapshot waits for another try.
    const wasAwaited = (answer.kind !== 'failed' || found.kind === 'address') && awaited.delete(state);
    if (answer.kind === 'found' && found.kind === 'address') memory.remember(name, found.address);
    if (answer.kind !== 'found' && found.kind === 'address') failing.add(name);
    else failing.delete(name);
    say(failing.size > 0 ? 'failing' : undefined);
    if (wasAwaited || found !== before) onChange();
  }

  async function keep(name: string, state: NameState): Promise<void> {
    const { signal } = state.controller;
    const pace = createPace();
    await memory.load();
    for (let rank: Rank = 'new'; !signal.aborted;) {
      const answer: DnsAnswer<string> = await resolver
        .resolve(name, signal, { by, rank })
        .catch((error: unknown): DnsAnswer<string> => ({ kind: 'failed', reason: messageOf(error) }));
      if (signal.aborted) return;
      take(name, state, answer);
      rank = answer.kind === 'found' ? 'known' : 'failing';
      if (await sleepOrAborted(pace(answer, state.found), signal)) return;
    }
  }

  function forget(name: string, state: NameState): void {
    state.controller.abort();
    states.delete(name);
    awaited.delete(state);
    failing.delete(name);
  }

  return {
    follow(instances) {
      const wanted = namesOf(instances);
      for (const [name, state] of states) if (!wanted.has(name)) forget(name, state);
      for (const name of wanted) {
        if (states.has(name)) continue;
        const state: NameState = { controller: new AbortController(), found: PENDING };
        states.set(name, state);
        awaited.add(state);
        const done = keep(name, state).finally(() => running.delete(done));
        running.add(done);
      }
    },
    find(host) {
      const name = queryName(host);
      return name === undefined ? NO_NAME : (states.get(name)?.found ?? PENDING);
    },
    areAwaited: () => awaited.size > 0,
    awaitNoLonger() {
      awaited.clear();
      for (const [name, state] of states)
        if (state.found === PENDING) state.found = lastKnown(name, state.found, memory);
    },
    isAway: () => !isAnswered && states.size > 0,
    async close() {
      for (const { controller } of states.values()) controller.abort();
      await Promise.all(running);
    },
  };
}

/** What a name stands for now, or, before anybody has answered, in a former life. */
function lastKnown(name: string, found: Found, memory: AddressMemory): Found {
  const address = found.kind === 'address' ? undefined : memory.recall(name);
  return address === undefined ? found : { kind: 'address', address };
}

/** How long a name is left alone after an answer. */
function createPace(): (answer: DnsAnswer<string>, found: Found) => number {
  const unheardOf = createBackoff({ baseMs: FIRST_RETRY_MS, maxMs: MAX_TTL_MS });
  const unanswered = createBackoff({ baseMs: MIN_TTL_MS, maxMs: MAX_TTL_MS });
  return (answer, found) => {
    if (answer.kind === 'failed' && found.kind === 'unknown') return unheardOf.next();
    if (answer.kind === 'found') unanswered.reset();
    const ms = answer.kind === 'found' ? answer.ttlMs : unanswered.next();
    return Math.max(MIN_TTL_MS, Math.min(ms, MAX_TTL_MS));
  };
}

function namesOf(instances: readonly Instance[]): Set<string> {
  const names = new Set<string>();
  for (const { host } of instances) {
    const name = isIP(host) === 0 ? queryName(host) : undefined;
    if (name !== undefined) names.add(name);
  }
  return names;
}

/** What was found before, unless there is something better. */
function nextFound(before: Found, answer: DnsAnswer<string>): Found {
  if (answer.kind !== 'found') {
    if (before.kind === 'address' || before.reason === answer.reason) return before;
    return { kind: 'unknown', reason: answer.reason };
  }
  const addresses = answer.records.filter((record) => isIP(record) !== 0).toSorted(compareAddresses);
  const [lowest] = addresses;
  if (lowest === undefined || (before.kind === 'address' && addresses.includes(before.address)))
    return before;
  return { kind: 'address', address: lowest };
}
