import { TandemError } from '@tandem/core';

import type { HaproxyConfig } from '../config/haproxy.ts';
import type { Membership, ReportedServer } from './membership.ts';
import { addressOf, hasAgent, type RunningBackends } from './plan.ts';
import type { RunningView } from './running-view.ts';
import { converse, type Running, type RunningIdentity } from './runtime.ts';
import { parseNumber, parsePassed, parseQuiet } from './server-state.ts';
import type { Structure } from './structure.ts';
import { abilitiesOf } from './versions.ts';
import type { Workers } from './workers.ts';

/** What a running HAProxy was left with. */
export interface Kept {
  /** Undefined while nothing has been brought about. */
  readonly structure: Structure | undefined;
  readonly membership: Membership;
}

/** Finds out what happens in a running HAProxy by itself, or by other hands. */
export interface Observer {
  /** Everything that runs. What is as expected is the expected object. */
  read(expected: RunningBackends, signal: AbortSignal): Promise<Running>;
  /** Whether it is time for a comparison. */
  isCompareDue(): boolean;
  /**
   * Reads everything anew into the view. Says whether something is not as it was left. Rejects with
   * `HAPROXY_UNREACHABLE` when another worker answers.
   */
  compare(view: RunningView, kept: Kept, signal: AbortSignal): Promise<boolean>;
  /**
   * Asks after servers that wait for something: a first check, or the end of their sessions. Says whether there is
   * something to do for one of them now.
   */
  tend(view: RunningView, membership: Membership, signal: AbortSignal): Promise<boolean>;
}

/** Every server is compared this often; for a great fleet less often, so that it never costs more than a twentieth. */
const MIN_READING_INTERVAL_MS = 600;
const READING_SHARE = 20;
const SAMPLE_INTERVAL_MS = 1_000;

export function createObserver({ runtimeSocket, foreignHolds }: HaproxyConfig, workers: Workers): Observer {
  let nextReadingAt = 0;
  let nextSampleAt = 0;
  /** HAProxy's own numbers of backends: those of a worker never change. */
  let numbers: { readonly of: string; readonly byBackend: Map<string, string> } | undefined;

  async function read(expected: RunningBackends, signal: AbortSignal): Promise<Running> {
    const startedAt = performance.now();
    const running = await workers.read(signal, expected);
    const now = performance.now();
    nextReadingAt = now + Math.max(MIN_READING_INTERVAL_MS, READING_SHARE * (now - startedAt));
    return running;
  }

  return {
    read,
    isCompareDue: () => performance.now() >= nextReadingAt,
    async compare(view, { structure, membership }, signal) {
      const { backends, ...identity } = await read(view.expected(membership), signal);
      if (!isSameWorker(identity, view.identity))
        throw new TandemError('HAPROXY_UNREACHABLE', 'another worker has taken over');
      const agents = agentsOf(structure, membership);
      return view.learn(backends, membership, { respectsHolds: foreignHolds === 'respect', agents });
    },
    async tend(view, membership, signal) {
      const now = performance.now();
      const gated = [...view.waitingBackends];
      let isDue = false;
      if (gated.length > 0) {
        const passed = await askState(runtimeSocket, gated, parsePassed, signal);
        isDue = view.release((backend, name) => passed.get(backend)?.has(name) === true, now);
      }
      if (now < nextSampleAt) return isDue;
      nextSampleAt = now + SAMPLE_INTERVAL_MS;
      const { deletesDrained } = abilitiesOf(view.identity.version);
      const leaving = view.leaving(membership, deletesDrained);
      const startedAt = performance.now();
      const { incarnation } = view.identity;
      if (numbers?.of !== incarnation) numbers = { of: incarnation, byBackend: new Map() };
      const quiet = await findQuiet(runtimeSocket, leaving, numbers.byBackend, signal);
      const askedAt = performance.now();
      nextSampleAt = askedAt + Math.max(SAMPLE_INTERVAL_MS, READING_SHARE * (askedAt - startedAt));
      return view.sample(leaving, (backend, name) => quiet.get(backend)?.has(name) === true, now) || isDue;
    },
  };
}

/** The members with an agent, as `BACKEND/SERVER`. */
function agentsOf(structure: Structure | undefined, membership: Membership): ReadonlySet<string> {
  const agents = new Set<string>();
  for (const proxy of structure?.proxies ?? [])
    for (const server of membership.get(proxy.name) ?? [])
      if (hasAgent(proxy, server)) agents.add(addressOf(proxy.name, server.name));
  return agents;
}

/** So many are asked after one by one; of more, their whole backend is cheaper. */
const MAX_SINGLE_QUESTIONS = 100;

/**
 * Of these servers, by backend, those without a session or a waiting request.
 * @param numbers HAProxy's own numbers of the backends, as far as they are known; gets those that had to be asked for
 */
export async function findQuiet(
  socket: string,
  servers: ReadonlyMap<string, readonly ReportedServer[]>,
  numbers: Map<string, string>,
  signal?: AbortSignal,
): Promise<ReadonlyMap<string, ReadonlySet<string>>> {
  const unknown = [...servers.keys()].filter((backend) => !numbers.has(backend));
  for (const [backend, number] of await askState(socket, unknown, parseNumber, signal))
    if (number !== undefined) numbers.set(backend, number);
  const questions = [...servers].flatMap(([backend, wanted]) => {
    // By its name HAProxy would take the frontend of the same name, which has no servers (seen on 2.6).
    const number = numbers.get(backend) ?? backend;
    const ids = wanted.length > MAX_SINGLE_QUESTIONS ? [-1] : wanted.map(({ id }) => id);
    return ids.map((id) => ({ backend, request: `show stat ${number} 4 ${id}` }));
  });
  const quiet = new Map<string, Set<string>>([...servers.keys()].map((backend) => [backend, new Set()]));
  if (questions.length === 0) return quiet;
  const requests = questions.map(({ request }) => request);
  const answers = await converse(socket, requests, signal);
  for (const [index, { backend }] of questions.entries())
    for (const name of parseQuiet(answers[index] ?? '')) quiet.get(backend)?.add(name);
  return quiet;
}

async function askState<T>(
  socket: string,
  backends: readonly string[],
  parse: (answer: string) => T,
  signal?: AbortSignal,
): Promise<ReadonlyMap<string, T>> {
  if (backends.length === 0) return new Map();
  const questions = backends.map((backend) => `show servers state ${backend}`);
  const answers = await converse(socket, questions, signal);
  return new Map(backends.map((backend, index) => [backend, parse(answers[index] ?? '')]));
}

export function isSameWorker(a: RunningIdentity, b: RunningIdentity): boolean {
  return a.incarnation === b.incarnation && a.mark === b.mark;
}
