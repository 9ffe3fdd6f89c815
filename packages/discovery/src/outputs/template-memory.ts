import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import path from 'node:path';

import {
  decodeNerveRecord,
  encodeNerveRecord,
  type Instance,
  type Log,
  messageOf,
  systemErrorCode,
  writeFileAtomic,
} from '@tandem/core';
import * as z from 'zod';

/** What a template output has to know of its former life. */
export interface TemplateMemory {
  /** The mark of the text with which the last reload has succeeded; undefined while that is not known. */
  readonly loaded: string | undefined;
  /** The last known instances of every service. */
  readonly known: ReadonlyMap<string, readonly Instance[]>;
}

/** Losing it costs one reload too many, and services without a source their instances: problems are only logged. */
export interface TemplateMemoryStore {
  load(): Promise<TemplateMemory>;
  /** Does nothing when it would write what it has written. */
  save(memory: TemplateMemory): Promise<void>;
}

const Stored = z.object({
  version: z.literal(1),
  target: z.string(),
  loaded: z.string().nullable(),
  known: z.record(z.string(), z.array(z.string())),
});

export function createTemplateMemory(stateDir: string, target: string, log: Log): TemplateMemoryStore {
  const file = path.join(stateDir, `template-${markOf(path.resolve(target)).slice(0, 16)}.json`);
  const encode = createEncoder();
  let saved: TemplateMemory | undefined;
  return {
    async load() {
      try {
        const { loaded, known } = Stored.parse(JSON.parse(await readFile(file, 'utf8')));
        return { loaded: loaded ?? undefined, known: decodeKnown(known) };
      } catch (error) {
        if (systemErrorCode(error) !== 'ENOENT')
          log.warn({ file, err: messageOf(error) }, 'cannot use what is known of the last reload');
        return { loaded: undefined, known: new Map() };
      }
    },
    async save({ loaded, known }) {
      if (saved !== undefined && saved.loaded === loaded && isSame(saved.known, known)) return;
      try {
        const head = JSON.stringify({ version: 1, target, loaded: loaded ?? null });
        await writeFileAtomic(file, `${head.slice(0, -1)},"known":{${encode(known)}}}\n`, { mode: 0o640 });
        saved = { loaded, known };
      } catch (error) {
        log.warn({ file, err: messageOf(error) }, 'cannot save what is known of the last reload');
      }
    },
  };
}

function isSame(a: TemplateMemory['known'], b: TemplateMemory['known']): boolean {
  return a.size === b.size && [...b].every(([service, instances]) => a.get(service) === instances);
}

/** What the file says of every service. Only the text of those that have other instances than last time is new. */
function createEncoder(): (known: TemplateMemory['known']) => string {
  const texts = new WeakMap<readonly Instance[], string>();
  return (known) =>
    [...known]
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([service, instances]) => {
        const text = texts.get(instances) ?? JSON.stringify(instances.map(encodeNerveRecord));
        texts.set(instances, text);
        return `${JSON.stringify(service)}:${text}`;
      })
      .join(',');
}

/** Equal for equal texts, and for no others. */
export function markOf(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** A record that cannot be read costs only itself. */
function decodeKnown(known: Readonly<Record<string, readonly string[]>>): TemplateMemory['known'] {
  return new Map(
    Object.entries(known).map(([service, records]) => {
      const decoded = records.map((record) => decodeNerveRecord(Buffer.from(record)));
      return [service, decoded.flatMap((one) => (one.ok ? [one.instance] : []))];
    }),
  );
}
