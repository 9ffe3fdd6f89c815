import { readFile, rm } from 'node:fs/promises';

import type { HaproxyConfig } from '../config/haproxy.ts';
import { type ConfigFile, createConfigFile } from './config-file.ts';
import {
  type Ask,
  executeMapSteps,
  type MapStep,
  notesIn,
  planMap,
  readMaps,
  renderMap,
  type Routes,
  type RouteTable,
} from './maps.ts';
import { readNotes, type Spares } from './ports.ts';
import type { Executed } from './runtime.ts';
import { buildStructure, mapFilesOf } from './structure.ts';

/** Keeps HAProxy's maps, on disk and in its memory, what they shall be. */
export interface Routing {
  /**
   * Makes the files these, before any text of haproxy.cfg names them. Those of `needed` that nothing is known of are
   * made, too, but never changed: HAProxy takes no text whose map files are missing.
   */
  write(routes: Routes, needed: readonly string[]): Promise<void>;
  /** Takes away the entries that go: before servers change, so that no entry leads to what serves somebody else. */
  withdraw(routes: Routes, worker: Worker): Promise<RoutingOutcome>;
  /** Makes the running maps these: after servers have changed, so that a new entry leads to somebody. */
  complete(routes: Routes, worker: Worker): Promise<RoutingOutcome>;
  /** Whether nobody has touched the files, or the maps of this worker, since they were completed. */
  isAsLeft(worker: Worker): Promise<boolean>;
  /** Removes the files that nothing names any more. */
  tidy(needed: readonly string[]): Promise<void>;
}

/** A worker to talk to. */
export interface Worker {
  readonly incarnation: string;
  readonly ask: Ask;
}

/** How many entries were changed, or why not all of them were. */
export type RoutingOutcome =
  { readonly kind: 'done'; readonly changes: number } | Exclude<Executed, { readonly kind: 'done' }>;

/**
 * Maps that nobody wants to be different are looked at this often, in case somebody else has changed them: reading one
 * of 10,000 entries takes 3 ms.
 */
const LOOK_AGAIN_MS = 750;

export function createRouting(now: () => number = () => performance.now()): Routing {
  const files = new Map<string, { readonly file: ConfigFile; table?: RouteTable; bytes: Buffer }>();
  let settled: { readonly routes: Routes; readonly incarnation: string; readonly at: number } | undefined;

  const openFile = (name: string) => {
    const open = files.get(name) ?? {
      file: createConfigFile(name, { keepsForeign: false }),
      bytes: Buffer.alloc(0),
    };
    files.set(name, open);
    return open;
  };
  const isSettled = (routes: Routes, { incarnation }: Worker) =>
    settled?.routes === routes && settled.incarnation === incarnation && now() - settled.at < LOOK_AGAIN_MS;

  async function converge(
    routes: Routes,
    { ask }: Worker,
    isMeant: (step: MapStep) => boolean,
  ): Promise<RoutingOutcome> {
    const running = await readMaps(ask, [...routes.keys()]);
    if (running === undefined) return { kind: 'other-worker' };
    let changes = 0;
    for (const [file, entries] of running) {
      const steps = planMap(entries, routes.get(file)?.entries ?? new Map()).filter(isMeant);
      const executed = await executeMapSteps(ask, file, steps);
      if (executed.kind !== 'done') return executed;
      changes += steps.reduce((sum, step) => sum + (step.kind === 'replace' ? step.entries.size : 1), 0);
    }
    return { kind: 'done', changes };
  }

  return {
    async write(routes, needed) {
      for (const [name, table] of routes) {
        const open = openFile(name);
        if (open.table !== table) open.bytes = Buffer.from(renderMap(table));
        open.table = table;
        await open.file.write([open.bytes]);
      }
      for (const name of needed) {
        const { file } = openFile(name);
        if (!routes.has(name) && (await file.read()) === undefined)
          await file.write([Buffer.from(renderMap({ entries: new Map(), notes: [] }))]);
      }
    },
    async withdraw(routes, worker) {
      if (isSettled(routes, worker)) return { kind: 'done', changes: 0 };
      return converge(routes, worker, ({ kind }) => kind === 'delete');
    },
    async complete(routes, worker) {
      if (isSettled(routes, worker)) return { kind: 'done', changes: 0 };
      const outcome = await converge(routes, worker, () => true);
      if (outcome.kind === 'done') settled = { routes, incarnation: worker.incarnation, at: now() };
      return outcome;
    },
    async isAsLeft(worker) {
      if (settled === undefined || files.size === 0) return true;
      for (const { file, table } of files.values()) {
        if (table !== undefined && !(await file.isIntact())) return false;
      }
      const { routes } = settled;
      if (isSettled(routes, worker)) return true;
      const running = await readMaps(worker.ask, [...routes.keys()]);
      const isRight =
        running !== undefined &&
        [...running].every(
          ([file, entries]) => planMap(entries, routes.get(file)?.entries ?? new Map()).length === 0,
        );
      settled = isRight ? { ...settled, at: now() } : undefined;
      return isRight;
    },
    async tidy(needed) {
      for (const name of files.keys()) {
        if (needed.includes(name)) continue;
        await rm(name, { force: true });
        files.delete(name);
      }
    },
  };
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
