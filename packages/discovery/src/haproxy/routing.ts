import { readFile, rm } from 'node:fs/promises';

import { isTandemError, type Log } from '@tandem/core';

import type { HaproxyConfig } from '../config/haproxy.ts';
import { type ConfigFile, createConfigFile } from './config-file.ts';
import {
  type Ask,
  type ExecutedMap,
  executeMapSteps,
  ledMap,
  notesIn,
  planMap,
  readMaps,
  renderMap,
  type Routes,
  type RouteTable,
  type RunningEntry,
  withdrawnMap,
} from './maps.ts';
import { readNotes, type Spares } from './ports.ts';
import { askWorker, type RunningIdentity } from './runtime.ts';
import { buildStructure, mapFilesOf } from './structure.ts';

/** Keeps HAProxy's maps, on disk and in its memory, what they shall be. */
export interface Routing {
  /**
   * Makes the files these, before any text of haproxy.cfg names them. Those of `needed` that nothing is known of are
   * made, too, but never changed: HAProxy takes no text whose map files are missing.
   */
  write(routes: Routes, needed: readonly string[]): Promise<void>;
  /**
   * Takes away the entries that go, and those whose spare may get another service: before servers change, so that no
   * entry leads to what serves somebody else.
   */
  withdraw(routes: Routes, worker: Worker): Promise<RoutingOutcome>;
  /** Adds what leads to spares: after servers have changed, while the rest waits for a reload. */
  lead(routes: Routes, worker: Worker): Promise<RoutingOutcome>;
  /** Makes the running maps these: after servers have changed, so that a new entry leads to somebody. */
  complete(routes: Routes, worker: Worker): Promise<RoutingOutcome>;
  /**
   * Whether files and running maps are as `complete` left them. Nothing is read more often than it is worth.
   */
  isAsLeft(worker: Worker): Promise<boolean>;
  /** Removes the files that nothing names any more. */
  tidy(needed: readonly string[]): Promise<void>;
}

/** A worker to talk to. */
export interface Worker {
  readonly incarnation: string;
  readonly ask: Ask;
}

/** A worker that does not answer any more has lost its place to another, or will. */
export function openWorker(socket: string, identity: RunningIdentity, signal: AbortSignal): Worker {
  return {
    incarnation: identity.incarnation,
    async ask(commands) {
      try {
        return await askWorker(socket, commands, identity, signal);
      } catch (error) {
        signal.throwIfAborted();
        if (!isTandemError(error, 'HAPROXY_UNREACHABLE')) throw error;
        return undefined;
      }
    },
  };
}

/** How many entries were changed, or why not all of them were. */
export type RoutingOutcome =
  { readonly kind: 'done'; readonly changes: number } | Exclude<ExecutedMap, { readonly kind: 'done' }>;

/** Maps that nobody wants to be different are looked at this often, in case somebody else has changed them. */
const LOOK_AGAIN_MS = 750;
/** Reading great ones (3 ms for 10,000 entries) takes at most this part of the time. */
const LOOKING_SHARE = 20;

interface MapFile {
  readonly file: ConfigFile;
  table?: RouteTable;
  parts: readonly Buffer[];
}

/** What was seen to be right: to be believed for a while. */
interface Settled {
  readonly routes: Routes;
  readonly incarnation: string;
  readonly until: number;
}

export function createRouting({
  log,
  now = () => performance.now(),
}: {
  log: Log;
  now?: () => number;
}): Routing {
  return new MapKeeper(log, now);
}

class MapKeeper implements Routing {
  readonly #log: Log;
  readonly #now: () => number;
  readonly #files = new Map<string, MapFile>();
  #settled: Settled | undefined;

  constructor(log: Log, now: () => number) {
    this.#log = log;
    this.#now = now;
  }

  async write(routes: Routes, needed: readonly string[]): Promise<void> {
    for (const [name, table] of routes) {
      const open = this.#open(name);
      if (open.table !== table) open.parts = partsOf(table);
      open.table = table;
      await open.file.write(open.parts);
    }
    for (const name of needed) {
      const { file } = this.#open(name);
      if (!routes.has(name) && (await file.read()) === undefined)
        await file.write(partsOf({ entries: new Map(), notes: [] }));
    }
  }

  async withdraw(routes: Routes, worker: Worker): Promise<RoutingOutcome> {
    if (this.#isSettled(routes, worker)) return UNCHANGED;
    return this.#tell('withdraw', await converge(routes, worker, withdrawnMap));
  }

  async lead(routes: Routes, worker: Worker): Promise<RoutingOutcome> {
    if (this.#isSettled(routes, worker)) return UNCHANGED;
    return this.#tell('lead', await converge(routes, worker, ledMap));
  }

  async complete(routes: Routes, worker: Worker): Promise<RoutingOutcome> {
    if (this.#isSettled(routes, worker)) return UNCHANGED;
    const startedAt = this.#now();
    const outcome = this.#tell('complete', await converge(routes, worker, (_, wanted) => wanted));
    if (outcome.kind === 'done') this.#settle(routes, worker, startedAt);
    return outcome;
  }

  async isAsLeft(worker: Worker): Promise<boolean> {
    const routes = this.#settled?.routes;
    if (routes === undefined) return true;
    if (this.#isSettled(routes, worker)) return true;
    const startedAt = this.#now();
    const isRight = (await this.#areFilesRight(routes)) && (await areMapsRight(routes, worker));
    if (isRight) this.#settle(routes, worker, startedAt);
    else this.#settled = { routes, incarnation: worker.incarnation, until: -Infinity };
    return isRight;
  }

  async tidy(needed: readonly string[]): Promise<void> {
    for (const name of this.#files.keys()) {
      if (needed.includes(name)) continue;
      await rm(name, { force: true });
      this.#files.delete(name);
    }
  }

  #tell(stage: string, outcome: RoutingOutcome): RoutingOutcome {
    if (outcome.kind === 'done' && outcome.changes > 0)
      this.#log.info({ stage, count: outcome.changes }, "updated HAProxy's maps");
    if (outcome.kind === 'refused')
      this.#log.warn({ replies: outcome.replies }, 'HAProxy refused a part of an update of its maps');
    return outcome;
  }

  #open(name: string): MapFile {
    const open = this.#files.get(name) ?? {
      file: createConfigFile(name, { keepsForeign: false }),
      parts: [],
    };
    this.#files.set(name, open);
    return open;
  }

  #isSettled(routes: Routes, { incarnation }: Worker): boolean {
    const settled = this.#settled;
    return settled?.routes === routes && settled.incarnation === incarnation && this.#now() < settled.until;
  }

  #settle(routes: Routes, { incarnation }: Worker, startedAt: number): void {
    const at = this.#now();
    const until = at + Math.max(LOOK_AGAIN_MS, LOOKING_SHARE * (at - startedAt));
    this.#settled = { routes, incarnation, until };
  }

  async #areFilesRight(routes: Routes): Promise<boolean> {
    const intact = await Promise.all([...routes.keys()].map((name) => this.#open(name).file.isIntact()));
    return intact.every(Boolean);
  }
}

function partsOf(table: RouteTable): Buffer[] {
  return [Buffer.from(renderMap(table))];
}

const UNCHANGED: RoutingOutcome = { kind: 'done', changes: 0 };

async function converge(
  routes: Routes,
  { ask }: Worker,
  aimAt: (
    running: readonly RunningEntry[],
    wanted: ReadonlyMap<string, string>,
  ) => ReadonlyMap<string, string>,
): Promise<RoutingOutcome> {
  const running = await readMaps(ask, [...routes.keys()]);
  if (running === undefined) return { kind: 'other-worker' };
  let changes = 0;
  for (const [file, entries] of running) {
    const steps = planMap(entries, aimAt(entries, wantedOf(routes, file)));
    const executed = await executeMapSteps(ask, file, steps);
    if (executed.kind !== 'done') return executed;
    changes += steps.reduce((sum, step) => sum + (step.kind === 'replace' ? step.entries.size : 1), 0);
  }
  return { kind: 'done', changes };
}

/** A worker that is not the one that was left is somebody else's business. */
async function areMapsRight(routes: Routes, { ask }: Worker): Promise<boolean> {
  const running = await readMaps(ask, [...routes.keys()]);
  return [...(running ?? [])].every(
    ([file, entries]) => planMap(entries, wantedOf(routes, file)).length === 0,
  );
}

function wantedOf(routes: Routes, file: string): ReadonlyMap<string, string> {
  return routes.get(file)?.entries ?? new Map();
}

/**
 * Which spare serves which service, as the last daemon has left it. The map files say so, not a file of its own: they
 * are written with what HAProxy runs, and lost only with it.
 */
export async function readSpares(config: HaproxyConfig): Promise<Spares> {
  const files = mapFilesOf(buildStructure(config, []));
  const texts = await Promise.all(files.map((file) => readFile(file, 'utf8').catch(() => '')));
  return readNotes(texts.flatMap(notesIn));
}
