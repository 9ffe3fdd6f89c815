import { isIP } from 'node:net';

import {
  createBackoff,
  type Instance,
  instanceId,
  type Log,
  messageOf,
  type Rejection,
  sleepOrAborted,
  type Snapshot,
  uniqueInstances,
} from '@tandem/core';

import { placeAfter } from './catalog.ts';
import { compareAddresses, createDnsClient, type DnsAnswer, queryName } from './dns.ts';
import { createHostsFile } from './hosts-file.ts';
import { publishedBy, reuseRecords, type Source, toldOnce } from './source.ts';

/** What the name of a host stands for. */
export interface AddressResolver {
  /** Ends in reasonable time. Rejects only with the reason of the signal. */
  resolve(name: string, signal: AbortSignal): Promise<DnsAnswer<string>>;
}

const DNS_TIMEOUT_MS = 2_000;
const MIN_TTL_MS = 1_000;
const MAX_TTL_MS = 30_000;
/** How long a snapshot waits for the names that are new in it. */
const NEW_NAMES_MS = 1_000;

/**
 * By the system's file of hosts, then by the DNS; `localhost` is this host wherever nobody says otherwise (RFC 6761).
 * Not by the system's own lookup, which would also know search domains and other directories: see `createDnsClient`.
 */
export function createAddressResolver(
  options: { readonly nameservers?: readonly string[]; readonly hostsFile?: string } = {},
): AddressResolver {
  const client = createDnsClient({ nameservers: options.nameservers, timeoutMs: DNS_TIMEOUT_MS });
  const hosts = createHostsFile(options.hostsFile ?? '/etc/hosts');
  const own = (records: readonly string[]): DnsAnswer<string> => ({
    kind: 'found',
    records,
    ttlMs: MAX_TTL_MS,
  });
  return {
    async resolve(name, signal) {
      const listed = await hosts.find(name, signal);
      const four = listed.filter((address) => isIP(address) === 4);
      if (listed.length > 0) return own(four.length > 0 ? four : listed);
      if (/(^|\.)localhost$/.test(name)) return own(['127.0.0.1']);
      return client.addresses(name, 'any', signal);
    },
  };
}

/**
 * The same instances with addresses for hosts. Each name has one address at a time, which stays as long as the name
 * stands for it, and when nobody answers; the announcement says whether there is an instance, the DNS only where. One
 * whose name has never been answered is set aside with the reason. A snapshot waits a second at most for the names that
 * are new in it, so that one that takes the place of another leaves no gap; nobody waits longer for the names of others.
 * While nothing at all can be told, because every name is unknown and no nameserver answers, it says nothing.
 */
export function withAddresses(source: Source, deps: { resolver: AddressResolver; log: Log }): Source {
  return {
    watch: (signal) =>
      publishedBy(signal, async (publish, signal) => {
        const resolved = new WeakMap<Instance, Instance>();
        let announced: Snapshot | undefined;
        let hasNames = false;
        let shown: Snapshot | undefined;
        let hold: NodeJS.Timeout | undefined;
        let turn: NodeJS.Immediate | undefined;
        // The answers of a thousand names come together, and are one change.
        const names = createNames(deps, () => {
          turn ??= setImmediate(() => {
            turn = undefined;
            update();
          });
        });
        function update(): void {
          if (announced === undefined) return;
          if (names.areAwaited()) {
            hold ??= setTimeout(() => {
              // After a stall of this process, answers that have arrived in time are looked at first.
              setImmediate(() => {
                names.awaitNoLonger();
                update();
              });
            }, NEW_NAMES_MS);
            return;
          }
          clearTimeout(hold);
          hold = undefined;
          const view = hasNames ? viewOf(announced, names, resolved) : announced;
          if (view.instances.length === 0 && names.isAway()) return;
          const snapshot = view === announced ? announced : reuseRecords(shown, view);
          if (snapshot === shown) return;
          shown = snapshot;
          publish(snapshot);
        }
        try {
          for await (const snapshot of source.watch(signal)) {
            hasNames = needsNames(snapshot.instances, hasNames ? [] : announced?.instances);
            announced = snapshot;
            names.follow(hasNames ? snapshot.instances : []);
            update();
          }
        } finally {
          clearTimeout(hold);
          clearImmediate(turn);
          await names.close();
        }
      }),
  };
}

/**
 * Whether a host of these instances is a name. Those that were there before are not looked at again.
 * @param before without names, in the order of snapshots
 */
function needsNames(instances: readonly Instance[], before: readonly Instance[] = []): boolean {
  let there = 0;
  for (const instance of instances) {
    if (instance === before[there]) {
      there += 1;
      continue;
    }
    there = placeAfter(instance, before, there);
    if (instance !== before[there - 1] && isIP(instance.host) === 0) return true;
  }
  return false;
}

function viewOf(announced: Snapshot, names: Names, resolved: WeakMap<Instance, Instance>): Snapshot {
  const instances: Instance[] = [];
  const rejected: Rejection[] = [];
  for (const instance of announced.instances) {
    if (isIP(instance.host) !== 0) {
      instances.push(instance);
      continue;
    }
    const found = names.find(instance.host);
    if (found.kind === 'address') {
      const before = resolved.get(instance);
      const same = before?.host === found.address ? before : { ...instance, host: found.address };
      resolved.set(instance, same);
      instances.push(same);
    } else if (found.kind === 'unknown')
      rejected.push({ place: instanceId(instance).slice(0, 128), reason: found.reason });
  }
  return { instances: uniqueInstances(instances), rejected: [...announced.rejected, ...rejected] };
}

type Found =
  | { readonly kind: 'address'; readonly address: string }
  | { readonly kind: 'unknown'; readonly reason: string }
  | { readonly kind: 'pending' };

/** The names of one snapshot after the other, each followed by itself. */
interface Names {
  follow(instances: readonly Instance[]): void;
  find(host: string): Found;
  /** Whether one of them is new, and is being asked for. */
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
  isAwaited: boolean;
  isFailing: boolean;
}

const NO_NAME: Found = {
  kind: 'unknown',
  reason: 'the host is neither an address nor the name of a host',
};

function createNames(
  { resolver, log }: { resolver: AddressResolver; log: Log },
  onChange: () => void,
): Names {
  const states = new Map<string, NameState>();
  const running = new Set<Promise<void>>();
  let isAnswered = false;
  const say = toldOnce((trouble) => {
    const names = failing().slice(0, 10);
    if (trouble === undefined) log.info({}, 'the names of all hosts are answered again');
    else log.warn({ names }, 'names of hosts are not answered, keeping the addresses that they had');
  });

  function failing(): string[] {
    return [...states].filter(([, state]) => state.isFailing).map(([name]) => name);
  }

  function take(state: NameState, answer: DnsAnswer<string>): void {
    const before = state.found;
    if (answer.kind !== 'failed') isAnswered = true;
    state.found = nextFound(before, answer);
    state.isFailing = answer.kind !== 'found' && state.found.kind === 'address';
    say(failing().length > 0 ? 'failing' : undefined);
    if (state.found !== before) onChange();
  }

  async function keep(name: string, state: NameState): Promise<void> {
    const { signal } = state.controller;
    const backoff = createBackoff({ baseMs: MIN_TTL_MS, maxMs: MAX_TTL_MS });
    for (;;) {
      const answer = await resolver
        .resolve(name, signal)
        .catch((error: unknown): DnsAnswer<string> => ({ kind: 'failed', reason: messageOf(error) }));
      if (signal.aborted) return;
      take(state, answer);
      if (answer.kind === 'found') backoff.reset();
      const wait = answer.kind === 'found' ? answer.ttlMs : backoff.next();
      if (await sleepOrAborted(Math.max(MIN_TTL_MS, Math.min(wait, MAX_TTL_MS)), signal)) return;
    }
  }

  return {
    follow(instances) {
      const wanted = namesOf(instances);
      for (const [name, { controller }] of states) {
        if (wanted.has(name)) continue;
        controller.abort();
        states.delete(name);
      }
      for (const name of wanted) {
        if (states.has(name)) continue;
        const state: NameState = {
          controller: new AbortController(),
          found: { kind: 'pending' },
          isAwaited: true,
          isFailing: false,
        };
        states.set(name, state);
        const done = keep(name, state).finally(() => running.delete(done));
        running.add(done);
      }
    },
    find(host) {
      const name = queryName(host);
      return name === undefined ? NO_NAME : (states.get(name)?.found ?? { kind: 'pending' });
    },
    areAwaited: () =>
      [...states.values()].some(({ found, isAwaited }) => isAwaited && found.kind === 'pending'),
    awaitNoLonger() {
      for (const state of states.values()) state.isAwaited = false;
    },
    isAway: () => !isAnswered && states.size > 0,
    async close() {
      for (const { controller } of states.values()) controller.abort();
      await Promise.all(running);
    },
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
  if (answer.kind !== 'found')
    return before.kind === 'address' ? before : { kind: 'unknown', reason: answer.reason };
  const addresses = answer.records.filter((record) => isIP(record) !== 0).toSorted(compareAddresses);
  const [lowest] = addresses;
  if (lowest === undefined || (before.kind === 'address' && addresses.includes(before.address)))
    return before;
  return { kind: 'address', address: lowest };
}
