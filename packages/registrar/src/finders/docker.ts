import { isDeepStrictEqual } from 'node:util';

import {
  type ContainerHealth,
  containerId,
  containerName,
  containersIn,
  createDockerDaemon,
  DockerAddress,
  type DockerDaemon,
  type DockerEvent,
  duration,
  healthIn,
  isObject,
  isRunning,
  type JsonObject,
  keepListed,
  type Listed,
  type Log,
  messageOf,
  parseJson,
  readHealth,
  type Remote,
  resolveTlsFiles,
  TlsSection,
} from '@tandem/core';
import * as z from 'zod';

import type { Finder, FinderScene, Found } from '../finder.ts';
import {
  type ContainerRoster,
  lookAgainIn,
  NO_CONTAINERS,
  noteDoubt,
  noteEnd,
  noteList,
  present,
} from './container-roster.ts';
import {
  type FoundContainer,
  hasServiceLabels,
  type LabelProblem,
  type ReadContainer,
  readContainer,
} from './docker-labels.ts';

/** `docker`: containers with labels `tandem.…`, as Docker Engine's API tells of them (Podman speaks it, too). */
export const DockerFinderSection = z
  .strictObject({
    api: DockerAddress.prefault('unix:///var/run/docker.sock').describe(
      'where the daemon is asked: unix:///PATH, or http(s)://HOST:PORT of a daemon of this host',
    ),
    tls: TlsSection.optional(),
    resync: duration({ minMs: 1_000, maxMs: 3_600_000 })
      .prefault('30s')
      .describe('how often the daemon is asked although no event came'),
    hold: duration({ minMs: 0, maxMs: 3_600_000 })
      .prefault('10s')
      .describe(
        'how long a container that is missing after the daemon was away stays registered, while its checks pass',
      ),
    allow_commands: z
      .boolean()
      .default(false)
      .describe('whether labels may make this host run programs (check.command)'),
  })
  .transform(({ api, tls, resync, hold, allow_commands: allowCommands }) => ({
    api,
    tls,
    resyncMs: resync,
    holdMs: hold,
    allowCommands,
  }));

export type DockerFinderConfig = z.output<typeof DockerFinderSection>;

export function resolveDockerFinder(
  config: DockerFinderConfig,
  absolute: (file: string) => string,
): DockerFinderConfig {
  return { ...config, tls: resolveTlsFiles(config.tls, absolute) };
}

/** Every event of a deployment must not cost a question of its own. */
const PACE = { gapMs: 100, splayMs: 0 };
/** Podman tells of some changes before its answers show them: after an event it is asked again, at these intervals. */
const LOOK_AGAIN_MS = [200, 1_000];
const MAX_TOLD = 100;

export function createDockerFinder(config: DockerFinderConfig, scene: FinderScene): Finder {
  return {
    async follow(onFound, signal) {
      const log = scene.log.child({ docker: config.api.text });
      const publish = createPublisher(config, { ...scene, log }, onFound);
      const remote = createContainerRemote(config, log, publish);
      const pace = { ...PACE, resyncMs: config.resyncMs, random: Math.random };
      await keepListed(remote, { pace, log, signal, take: publish });
    },
  };
}

interface Containers {
  readonly containers: readonly FoundContainer[];
  /** Whether there is one that could never be looked at. */
  readonly isComplete: boolean;
}

/** Makes registrations of containers, and tells what has changed. */
function createPublisher(
  { allowCommands }: DockerFinderConfig,
  { address, pathOf, log }: FinderScene,
  onFound: (found: Found) => void,
): (containers: Containers) => void {
  /** A mistake of ours must not cost more than the container that has brought it to light. */
  function readOne(container: FoundContainer): ReadContainer {
    try {
      return readContainer(container, { address, allowCommands, pathOf });
    } catch (error) {
      const reason = `cannot be read: ${messageOf(error)}`;
      return { registrations: [], problems: [{ container: container.name, label: 'tandem.*', reason }] };
    }
  }
  let told: readonly LabelProblem[] = [];
  let last: Found | undefined;
  return ({ containers, isComplete }) => {
    const read = containers.map(readOne);
    const problems = read.flatMap((one) => one.problems).slice(0, MAX_TOLD);
    for (const problem of problems)
      if (!told.some((before) => isDeepStrictEqual(before, problem)))
        log.error({ ...problem }, 'set a service of a container aside');
    told = problems;
    const found = { registrations: read.flatMap((one) => one.registrations), isComplete };
    if (isDeepStrictEqual(found, last)) return;
    last = found;
    onFound(found);
  };
}

/** @param onEnd called between two lists, when an event has told of the end of a container */
function createContainerRemote(
  { api, tls, holdMs }: DockerFinderConfig,
  log: Log,
  onEnd: (containers: Containers) => void,
): Remote<Containers> {
  const daemon = createDockerDaemon(api, tls);
  const reader = createContainerReader(daemon, log);
  let roster: ContainerRoster = NO_CONTAINERS;
  let isListening = false;
  /** How often the containers were listed since the last event. */
  let looks = LOOK_AGAIN_MS.length;
  let isComplete = false;
  const current = (): Containers => ({ containers: present(roster), isComplete });

  function take(event: DockerEvent | undefined): boolean {
    isListening = true;
    if (event === undefined) return true;
    const { action, id } = event;
    const isKnown = id !== undefined && roster.containers.has(id);
    if (isKnown && action === 'die' && !roster.ended.has(id)) {
      roster = noteEnd(roster, id);
      onEnd(current());
    }
    return isKnown || !isObject(event.attributes) || hasServiceLabels(event.attributes);
  }

  return {
    name: api.text,
    async list(signal) {
      const list = { endedBefore: roster.ended, isListening, holdMs };
      const read = await reader.list(roster.containers, signal);
      if (!read.ok) {
        roster = noteDoubt(roster);
        return read;
      }
      const time = { nowMs: performance.now(), holdMs };
      const missingBefore = roster.missingSince.size;
      roster = noteList(roster, { ...list, ...time, containers: read.part.containers });
      isComplete = read.part.isComplete;
      const missing = roster.missingSince.size;
      if (missing > missingBefore)
        log.warn(
          { missing, holdMs },
          'containers are missing after the daemon was away, leaving them to their checks for now',
        );
      const againMs = Math.min(lookAgainIn(roster, time) ?? Infinity, LOOK_AGAIN_MS[looks] ?? Infinity);
      looks += 1;
      return { ok: true, part: current(), againMs };
    },
    async listen(onChange, signal) {
      const reason = await daemon.listen((event) => {
        if (!take(event)) return;
        looks = 0;
        onChange();
      }, signal);
      isListening = false;
      roster = noteDoubt(roster);
      return reason;
    },
  };
}

/** What of a container stays as it is for its whole life. */
interface Nature {
  readonly isOnHost: boolean;
  readonly hasHealthCheck: boolean;
}

interface ContainerReader {
  list(known: ReadonlyMap<string, FoundContainer>, signal: AbortSignal): Promise<Listed<Containers>>;
}

/** A daemon may hang over one container and be well otherwise: that one must not hold up the others for long. */
const LOOK_LIMITS = { firstByteMs: 2_000, wholeMs: 2_000 };
const LOOKS_AT_ONCE = 8;

/**
 * Lists the containers with our labels. Not every daemon says in its list how they are and which network they have: then
 * each is looked at by itself, and those that have no health check only once. One that cannot be looked at stays as it
 * was.
 */
function createContainerReader(daemon: DockerDaemon, log: Log): ContainerReader {
  const natures = new Map<string, Nature>();
  const refused = new Map<string, string>();

  async function look({ entry, id, name, labels }: Candidate, signal: AbortSignal): Promise<Look> {
    const seen = ({ isOnHost }: Nature, health: ContainerHealth): Look => ({
      kind: 'seen',
      container: { id, name, labels, health, isOnHost, ports: entry['Ports'] },
    });
    const listed = healthIn(entry);
    const nature = natures.get(id);
    if (nature !== undefined && (listed !== undefined || !nature.hasHealthCheck))
      return seen(nature, listed ?? 'none');
    const answer = await daemon.get(`/containers/${id}/json`, signal, LOOK_LIMITS);
    if (!answer.ok) return { kind: 'refused', reason: answer.reason };
    if (answer.status === 404) return { kind: 'gone' };
    if (answer.status !== 200) return { kind: 'refused', reason: `status ${answer.status}` };
    const state = readInspected(parseJson(answer.body.toString('utf8')));
    if (state === undefined) return { kind: 'refused', reason: 'the answer does not tell of a container' };
    if (!state.isRunning) return { kind: 'gone' };
    const found = { isOnHost: state.isOnHost, hasHealthCheck: state.health !== 'none' };
    natures.set(id, found);
    return seen(found, state.health);
  }

  function tellRefused({ id, name }: Candidate, found: Look): void {
    if (found.kind === 'refused' && refused.get(id) !== found.reason)
      log.warn({ container: name, reason: found.reason }, 'a container cannot be looked at');
    if (found.kind === 'refused') refused.set(id, found.reason);
    else refused.delete(id);
  }

  return {
    async list(known, signal) {
      const answer = await daemon.get('/containers/json', signal);
      if (!answer.ok) return answer;
      if (answer.status !== 200) return { ok: false, reason: `status ${answer.status}` };
      const entries = containersIn(parseJson(answer.body.toString('utf8')));
      if (entries === undefined) return { ok: false, reason: 'the answer is not a list of containers' };
      const candidates = entries.flatMap(candidateOf).toSorted(byAge);
      const ids = new Set(candidates.map(({ id }) => id));
      for (const memory of [natures, refused])
        for (const id of memory.keys()) if (!ids.has(id)) memory.delete(id);
      const containers: FoundContainer[] = [];
      let isComplete = true;
      for (let start = 0; start < candidates.length; start += LOOKS_AT_ONCE) {
        const some = candidates.slice(start, start + LOOKS_AT_ONCE);
        const looks = await Promise.all(
          some.map(async (candidate) => ({ candidate, found: await look(candidate, signal) })),
        );
        if (signal.aborted) return { ok: false, reason: 'called off' };
        for (const { candidate, found } of looks) {
          tellRefused(candidate, found);
          const before = known.get(candidate.id);
          if (found.kind === 'seen') containers.push(found.container);
          else if (found.kind === 'refused' && before !== undefined) containers.push(before);
          else if (found.kind === 'refused') isComplete = false;
        }
      }
      return { ok: true, part: { containers, isComplete } };
    },
  };
}

type Look =
  | { readonly kind: 'seen'; readonly container: FoundContainer }
  | { readonly kind: 'gone' }
  | { readonly kind: 'refused'; readonly reason: string };

interface Inspected {
  readonly isRunning: boolean;
  readonly isOnHost: boolean;
  readonly health: ContainerHealth;
}

/** An answer to `GET /containers/ID/json`; undefined when it is none. */
function readInspected(answer: unknown): Inspected | undefined {
  if (!isObject(answer) || !isObject(answer['State'])) return undefined;
  const { State: state, HostConfig: config } = answer;
  const { Status: status, Health: health } = state;
  return {
    isRunning: typeof status !== 'string' || status === 'running',
    isOnHost: isObject(config) && config['NetworkMode'] === 'host',
    health: readHealth(health) ?? 'none',
  };
}

interface Candidate {
  readonly entry: JsonObject;
  readonly id: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, unknown>>;
  readonly created: number;
}

function candidateOf(entry: unknown): Candidate[] {
  if (!isObject(entry) || !isRunning(entry)) return [];
  const { Labels: labels, Created: created } = entry;
  const id = containerId(entry);
  if (id === undefined || !hasServiceLabels(labels)) return [];
  const name = containerName(entry) ?? id;
  return [{ entry, id, name, labels, created: typeof created === 'number' ? created : 0 }];
}

/** Of two that want one place, the one that had it first keeps it. */
function byAge(a: Candidate, b: Candidate): number {
  return a.created - b.created || (a.id < b.id ? -1 : 1);
}
