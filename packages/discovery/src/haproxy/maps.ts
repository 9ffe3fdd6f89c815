import path from 'node:path';

import type { DiscoveredService } from '../config/discover.ts';
import type { HaproxyConfig } from '../config/haproxy.ts';
import {
  type Assignment,
  isSpare,
  notesOf,
  placementOf,
  placeService,
  portRangesOf,
  rangeFrontend,
} from './ports.ts';
import { mapFile } from './structure.ts';

/** What a frontend looks up: a host or a port, and the backend that it leads to. */
export interface RouteTable {
  readonly entries: ReadonlyMap<string, string>;
  /** Lines for the next daemon, which HAProxy passes over. */
  readonly notes: readonly string[];
}

/** By map file. Not structure: HAProxy takes changes at run time. */
export type Routes = ReadonlyMap<string, RouteTable>;

export function buildRoutes(
  config: HaproxyConfig,
  services: readonly DiscoveredService[],
  assignment: Assignment,
): Routes {
  const directory = path.dirname(config.configFile);
  const tables = new Map<string, Map<string, string>>();
  const tableOf = (frontend: string) => {
    const table = tables.get(frontend) ?? new Map<string, string>();
    tables.set(frontend, table);
    return table;
  };
  for (const name of Object.keys(config.sharedFrontends)) tableOf(name);
  for (const { mode } of portRangesOf(config.portRange)) tableOf(rangeFrontend(mode));
  for (const service of services.toSorted((a, b) => (a.service < b.service ? -1 : 1))) {
    const place = placeService(config, service);
    const placement = placementOf(service, place, assignment);
    if (placement === undefined) continue;
    if (place.kind === 'spare') tableOf(rangeFrontend(place.mode)).set(String(place.port), placement.backend);
    const { sharedFrontend, hosts } = service.config;
    if (sharedFrontend === undefined || config.sharedFrontends[sharedFrontend] === undefined) continue;
    const table = tableOf(sharedFrontend);
    // Who claims a host that has an owner already is told when the files are read.
    for (const host of hosts) if (!table.has(host)) table.set(host, placement.backend);
  }
  const notes = new Map(
    portRangesOf(config.portRange).map(({ mode }) => [rangeFrontend(mode), notesOf(mode, assignment.spares)]),
  );
  return new Map(
    [...tables].map(([frontend, entries]) => [
      mapFile(directory, frontend),
      { entries, notes: notes.get(frontend) ?? [] },
    ]),
  );
}

const TITLE =
  '# Written by Tandem: always what HAProxy routes by right now. Changes made here are overwritten.';
/** One word for HAProxy's file and its command line; `#` would be a reference to another entry. */
const WORD = /^[A-Za-z0-9_.:[\]-]{1,256}$/;

/** The text of a map file: deterministic, and nothing in it but words that were looked at. */
export function renderMap({ entries, notes }: RouteTable): string {
  const lines = [...entries]
    .filter(([key, value]) => isSafeEntry(key, value))
    .map(([key, value]) => `${key} ${value}`)
    .toSorted();
  return `${[TITLE, ...notes.map((note) => `# ${note}`), ...lines].join('\n')}\n`;
}

/** The notes in the text of a map file. */
export function notesIn(text: string): string[] {
  return text.split('\n').flatMap((line) => (line.startsWith('# ') ? [line.slice(2)] : []));
}

function isSafeEntry(key: string, value: string): boolean {
  return WORD.test(key) && WORD.test(value);
}

/** An entry of a running map. A map may hold several with one key; HAProxy takes the first. */
export interface RunningEntry {
  /** What HAProxy calls this one. */
  readonly reference: string;
  readonly key: string;
  readonly value: string;
}

/** One change of a running map. */
export type MapStep =
  | { readonly kind: 'delete'; readonly key: string }
  | { readonly kind: 'set'; readonly key: string; readonly value: string }
  /** Of several entries with one key, one that is too many. */
  | { readonly kind: 'delete-entry'; readonly reference: string }
  | { readonly kind: 'add'; readonly key: string; readonly value: string }
  /** All at once: until the last moment everything is looked up in the old map. */
  | { readonly kind: 'replace'; readonly entries: ReadonlyMap<string, string> };

/**
 * A deletion or a replaced value costs HAProxy a walk through the whole map (0.15 ms at 10,000 entries), a new map
 * 4 us for each of its entries.
 */
const MAX_SINGLE_STEPS = 100;

/** What makes a running map this one; nothing for equal maps. No key that stays is ever without its entry. */
export function planMap(
  running: readonly RunningEntry[],
  wanted: ReadonlyMap<string, string>,
): readonly MapStep[] {
  const safe = new Map([...wanted].filter(([key, value]) => isSafeEntry(key, value)));
  const present = new Map<string, RunningEntry[]>();
  for (const entry of running) {
    const twins = present.get(entry.key);
    if (twins === undefined) present.set(entry.key, [entry]);
    else twins.push(entry);
  }
  const deletions: MapStep[] = [];
  const changes: MapStep[] = [];
  for (const [key, [first, ...more]] of present) {
    const value = safe.get(key);
    if (value === undefined) {
      // A key that cannot be said on the command line goes with the whole map.
      if (!WORD.test(key)) return [{ kind: 'replace', entries: safe }];
      deletions.push({ kind: 'delete', key });
      continue;
    }
    if (first?.value !== value) changes.push({ kind: 'set', key, value });
    changes.push(...more.map(({ reference }) => ({ kind: 'delete-entry' as const, reference })));
  }
  for (const [key, value] of safe) if (!present.has(key)) changes.push({ kind: 'add', key, value });
  const steps = [...deletions, ...changes];
  return steps.length > MAX_SINGLE_STEPS ? [{ kind: 'replace', entries: safe }] : steps;
}

/**
 * What is left of a running map before servers change: nothing leads any more to a spare that will serve somebody else.
 * A host that goes from one backend to another keeps the old one until the new one has its servers, unless that is a
 * spare, which may have another service by then.
 */
export function withdrawnMap(
  running: readonly RunningEntry[],
  wanted: ReadonlyMap<string, string>,
): ReadonlyMap<string, string> {
  const left = new Map<string, string>();
  const seen = new Set<string>();
  for (const { key, value } of running) {
    // Of several entries with one key, HAProxy takes the first.
    if (seen.has(key)) continue;
    seen.add(key);
    const next = wanted.get(key);
    if (next !== undefined && (next === value || !isSpare(value))) left.set(key, value);
  }
  return left;
}

/** What can be looked up before a reload that has to wait: new ways to spares, which are there already. */
export function ledMap(
  running: readonly RunningEntry[],
  wanted: ReadonlyMap<string, string>,
): ReadonlyMap<string, string> {
  const left = withdrawnMap(running, wanted);
  return new Map([...[...wanted].filter(([, backend]) => isSpare(backend)), ...left]);
}

/**
 * One short conversation with the worker that is meant: an answer for every command. Undefined when another worker
 * has taken its place.
 */
export type Ask = (commands: readonly string[]) => Promise<readonly string[] | undefined>;

const UNKNOWN_MAP = /^Unknown map identifier/;

/**
 * What HAProxy has in its maps now. A map that it does not know is not in the answer; undefined when another worker
 * has taken over.
 */
export async function readMaps(
  ask: Ask,
  files: readonly string[],
): Promise<ReadonlyMap<string, readonly RunningEntry[]> | undefined> {
  if (files.length === 0) return new Map();
  const answers = await ask(files.map((file) => `show map ${file}`));
  if (answers === undefined) return undefined;
  return new Map(
    files.flatMap((file, index) => {
      const answer = answers[index] ?? '';
      return UNKNOWN_MAP.test(answer) ? [] : [[file, parseMap(answer)] as const];
    }),
  );
}

/** `0x5594e1353440 a.example web`: the value is whatever follows the key. */
export function parseMap(text: string): RunningEntry[] {
  return text.split('\n').flatMap((line) => {
    const match = /^(0x[0-9a-f]+) (\S+) (.*)$/.exec(line);
    if (match === null) return [];
    const [, reference = '', key = '', value = ''] = match;
    return [{ reference, key, value }];
  });
}

/** What became of the steps of a map: all taken, none because another worker has taken over, or refused in part. */
export type ExecutedMap =
  | { readonly kind: 'done' }
  | { readonly kind: 'other-worker' }
  | { readonly kind: 'refused'; readonly replies: readonly string[] };

/**
 * Executes the steps of one map; what is refused says so, and the map has to be read again. Every command is one line
 * for one entry: as fast as entries in payloads, and no request comes near the size that crashes HAProxy 2.6 and 2.8
 * (HAProxy reference 1.4).
 */
export async function executeMapSteps(
  ask: Ask,
  file: string,
  steps: readonly MapStep[],
): Promise<ExecutedMap> {
  const single = steps.flatMap((step) => (step.kind === 'replace' ? [] : [commandOf(file, step)]));
  let executed = await executeSilent(ask, single);
  for (const step of steps) {
    if (executed.kind === 'done' && step.kind === 'replace')
      executed = await replaceMap(ask, file, step.entries);
  }
  return executed;
}

function commandOf(file: string, step: Exclude<MapStep, { kind: 'replace' }>): string {
  switch (step.kind) {
    case 'delete':
      return `del map ${file} ${step.key}`;
    case 'delete-entry':
      return `del map ${file} #${step.reference}`;
    case 'set':
      return `set map ${file} ${step.key} ${step.value}`;
    case 'add':
      return `add map ${file} ${step.key} ${step.value}`;
  }
}

/** A version of its own is filled beside the one in force and takes its place in one step (HAProxy reference 1.7). */
async function replaceMap(
  ask: Ask,
  file: string,
  entries: ReadonlyMap<string, string>,
): Promise<ExecutedMap> {
  const prepared = await ask([`prepare map ${file}`]);
  if (prepared === undefined) return { kind: 'other-worker' };
  const version = /^New version created: (\d+)$/.exec(prepared[0]?.trim() ?? '')?.[1];
  if (version === undefined) return { kind: 'refused', replies: [prepared[0]?.trim() ?? ''] };
  const adds = [...entries].map(([key, value]) => `add map @${version} ${file} ${key} ${value}`);
  const filled = await executeSilent(ask, adds);
  if (filled.kind !== 'refused') {
    return filled.kind === 'done' ? executeSilent(ask, [`commit map @${version} ${file}`]) : filled;
  }
  // What is not wholly there is not put in force, and must not stay in memory.
  const cleared = await executeSilent(ask, [`clear map @${version} ${file}`]);
  return cleared.kind === 'other-worker' ? cleared : filled;
}

/** HAProxy answers an empty line for success; anything else is a refusal. */
async function executeSilent(ask: Ask, commands: readonly string[]): Promise<ExecutedMap> {
  if (commands.length === 0) return { kind: 'done' };
  const answers = await ask(commands);
  if (answers === undefined) return { kind: 'other-worker' };
  const refused = answers.filter((answer) => answer.trim() !== '').slice(0, 5);
  return refused.length === 0
    ? { kind: 'done' }
    : { kind: 'refused', replies: refused.map((answer) => answer.trim()) };
}
