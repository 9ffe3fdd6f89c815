import { type BigIntStats } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';

import {
  type ConfigProblem,
  decodeNerveRecord,
  formatProblem,
  type Instance,
  type Loaded,
  locator,
  type Log,
  messageOf,
  parseYaml,
  type Rejection,
  type Snapshot,
  systemErrorCode,
  uniqueInstances,
  watchDirectories,
  withDeadline,
} from '@tandem/core';
import * as z from 'zod';

import { reuseRecords, type Source, toldOnce } from '../source.ts';

/** `file`: instances that something else on this host writes down. */
export const FileSection = z.strictObject({
  path: z
    .string()
    .min(1)
    .describe(
      'a list of instances in JSON or YAML, or a map of them by name; relative to the directory of the host file',
    ),
});

export type FileConfig = z.output<typeof FileSection>;

const QUIET_MS = 50;
/** For file systems that tell of nothing, and links that lead through other directories. */
const LOOK_EVERY_MS = 1_000;
const READ_LIMIT_MS = 10_000;
const MAX_BYTES = 16 * 1024 * 1024;

/** What became of a look at the file. */
type Reading =
  | { readonly kind: 'read'; readonly version: string; readonly text: string }
  /** It is as it was, or is being written just now. */
  | { readonly kind: 'nothing-new' }
  | { readonly kind: 'missing' }
  | { readonly kind: 'unreadable'; readonly version: string; readonly reason: string };

/**
 * The instances of a file, whole, whenever it says something else. A file that is missing, half-written or broken says
 * nothing: what it last said holds. An empty one is broken too, since that is how most writing begins; none at all are
 * written as `[]`.
 */
export function fileSource({ path: file }: FileConfig, log: Log): Source {
  return {
    async *watch(signal) {
      const say = toldOnce((trouble) => {
        if (trouble === undefined) log.info({ file }, 'a file of instances can be used again');
        else
          log.warn(
            { file, problem: trouble },
            'a file of instances cannot be used, keeping what it last said',
          );
      });
      let version: string | undefined;
      let shown: Snapshot | undefined;
      const looks = watchDirectories([path.dirname(file)], {
        quietMs: QUIET_MS,
        rescanMs: LOOK_EVERY_MS,
        signal,
      });
      for await (const _ of startedWith(looks)) {
        if (signal.aborted) return;
        const reading = await look(file, version, signal);
        if (signal.aborted) return;
        if (reading.kind === 'nothing-new') continue;
        // The same file, back again, is read again: nothing is known of what happened in between.
        version = reading.kind === 'missing' ? undefined : reading.version;
        if (reading.kind !== 'read') {
          say(reading.kind === 'missing' ? 'does not exist' : reading.reason);
          continue;
        }
        const parsed = parseInstances(reading.text, file);
        if (!parsed.ok) {
          say(parsed.problems.map(formatProblem).join('; '));
          continue;
        }
        say(undefined);
        const snapshot = reuseRecords(shown, parsed.value);
        if (snapshot === shown) continue;
        shown = snapshot;
        yield snapshot;
      }
    },
  };
}

/** The first look waits for nothing. */
async function* startedWith(looks: AsyncIterable<void>): AsyncGenerator<void, void, undefined> {
  yield;
  yield* looks;
}

async function look(file: string, known: string | undefined, signal: AbortSignal): Promise<Reading> {
  try {
    // A file server that hangs does not end a read by itself.
    return await withDeadline(signal, READ_LIMIT_MS, (signal) => read(file, known, signal));
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return { kind: 'missing' };
    return { kind: 'unreadable', version: '', reason: `cannot be read: ${messageOf(error)}` };
  }
}

async function read(file: string, known: string | undefined, signal: AbortSignal): Promise<Reading> {
  const before = await stat(file, { bigint: true });
  const version = versionOf(before);
  if (version === known) return { kind: 'nothing-new' };
  // To open a pipe would wait for its writer.
  if (!before.isFile()) return { kind: 'unreadable', version, reason: 'is not a file' };
  if (before.size > MAX_BYTES)
    return { kind: 'unreadable', version, reason: `is larger than ${MAX_BYTES} bytes` };
  const text = await readFile(file, { encoding: 'utf8', signal });
  const after = await stat(file, { bigint: true });
  return versionOf(after) === version ? { kind: 'read', version, text } : { kind: 'nothing-new' };
}

/** The change time is the kernel's: no writer can put it back. */
function versionOf({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats): string {
  return [dev, ino, size, mtimeNs, ctimeNs].join(' ');
}

const InstanceFile = z.union([z.array(z.unknown()), z.record(z.string(), z.unknown())]);
type Records = z.output<typeof InstanceFile>;

/** YAML takes two seconds for each of these, in which nothing else happens; JSON takes milliseconds. */
const MAX_YAML_LENGTH = 1024 * 1024;

/**
 * What a text says, as a list or as a map by name. A record that makes no sense is set aside with its place; where none
 * of them does, it is the file that is broken.
 */
function parseInstances(text: string, file: string): Loaded<Snapshot> {
  const parsed = parseRecords(text, file);
  if (!parsed.ok) return parsed;
  const entries = entriesOf(parsed.value);
  if (entries.length === 0 && !Array.isArray(parsed.value))
    return broken({ file, line: 1, column: 1, path: '', reason: 'is empty', remedy: 'Write [] for none' });
  const instances: Instance[] = [];
  const refused: { readonly key: string | number; readonly reason: string }[] = [];
  for (const [key, record] of entries) {
    const decoded = decodeRecord(key, record);
    if (decoded.ok) instances.push(decoded.instance);
    else refused.push({ key, reason: decoded.reason });
  }
  const [first] = refused;
  if (first === undefined)
    return { ok: true, value: { instances: uniqueInstances(instances), rejected: [] } };
  const placeOf = text.length > MAX_YAML_LENGTH ? () => undefined : locator(text);
  if (instances.length === 0)
    return broken({ file, ...placeOf([first.key]), path: `[${first.key}]`, reason: first.reason });
  const rejected = refused.map(({ key, reason }): Rejection => {
    const place = placeOf([key]);
    return {
      place: place === undefined ? `${file}[${key}]` : `${file}:${place.line}:${place.column}`,
      reason,
    };
  });
  return { ok: true, value: { instances: uniqueInstances(instances), rejected } };
}

function parseRecords(text: string, file: string): Loaded<Records> {
  const json = parseJson(text);
  if (json !== undefined) return { ok: true, value: json };
  if (text.length > MAX_YAML_LENGTH)
    return broken({ file, path: '', reason: 'is not JSON, and too large for YAML' });
  const parsed = parseYaml(text, file, InstanceFile);
  // A text of YAML may end anywhere and still have a meaning: `port: 80` may become `port: 8080`.
  if (parsed.ok && text !== '' && !/[\]}\n]$/.test(text)) {
    const line = text.split('\n').length;
    const reason = 'the last line has no end, so that it may be half-written';
    return broken({ file, line, column: 1, path: '', reason });
  }
  return parsed;
}

/** Undefined for what is better explained as YAML. */
function parseJson(text: string): Records | undefined {
  if (!/^\s*[[{]/.test(text)) return undefined;
  try {
    return JSON.parse(text) as Records;
  } catch {
    return undefined;
  }
}

function broken(problem: ConfigProblem): Loaded<never> {
  return { ok: false, problems: [problem] };
}

function entriesOf(value: Records): (readonly [string | number, unknown])[] {
  return Array.isArray(value) ? [...value.entries()] : Object.entries(value);
}

/** Records are as Nerve writes them and Synapse's file output has them, so that either can be taken as it is. */
function decodeRecord(key: string | number, record: unknown): ReturnType<typeof decodeNerveRecord> {
  const isNamed = typeof record === 'object' && record !== null && 'name' in record;
  const named = typeof key === 'string' && !isNamed ? { name: key, ...(record as object | null) } : record;
  try {
    return decodeNerveRecord(Buffer.from(JSON.stringify(named)));
  } catch (error) {
    // An alias of YAML may lead into itself.
    return { ok: false, reason: messageOf(error) };
  }
}
