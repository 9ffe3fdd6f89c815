import { readFile } from 'node:fs/promises';

import {
  decodeNerveRecord,
  encodeNerveRecord,
  type Log,
  messageOf,
  systemErrorCode,
  writeFileAtomic,
} from '@tandem/core';
import * as z from 'zod';

import { type Catalog, type CatalogEntry, emptyCatalog } from './catalog.ts';

/** The catalog on disk, so that HAProxy can serve before the registry answers. */
export interface SnapshotStore {
  /** What was last saved; empty when there is nothing that can be read. */
  load(): Promise<Catalog>;
  /** Saves soon: at once if it is a while ago, at most once a second otherwise. The newest wins. */
  save(catalog: Catalog): void;
  /** Writes what is waiting and ends. */
  close(): Promise<void>;
}

const StoreFile = z.object({ version: z.literal(1), services: z.record(z.string(), z.array(z.string())) });
const MIN_INTERVAL_MS = 1_000;

export function createSnapshotStore(file: string, log: Log): SnapshotStore {
  let waiting: Catalog | undefined;
  let newest: Catalog | undefined;
  let timer: NodeJS.Timeout | undefined;
  let writing: Promise<void> = Promise.resolve();
  let lastAt = -Infinity;

  async function write(previous: Promise<void>): Promise<void> {
    await previous;
    const catalog = waiting;
    waiting = undefined;
    if (catalog === undefined) return;
    lastAt = performance.now();
    try {
      await writeFileAtomic(file, encode(catalog), { mode: 0o640 });
    } catch (error) {
      // The same catalog, saved again, is then another try.
      if (newest === catalog) newest = undefined;
      log.error(
        { file, err: messageOf(error) },
        'cannot save the catalog, a boot without the registry will miss it',
      );
    }
  }
  function flush(): void {
    clearTimeout(timer);
    timer = undefined;
    writing = write(writing);
  }

  return {
    async load() {
      try {
        return decode(await readFile(file, 'utf8'));
      } catch (error) {
        if (systemErrorCode(error) !== 'ENOENT')
          log.warn({ file, err: messageOf(error) }, 'cannot use the saved catalog');
        return emptyCatalog;
      }
    },
    save(catalog) {
      if (catalog === newest) return;
      newest = catalog;
      waiting = catalog;
      timer ??= setTimeout(flush, Math.max(0, lastAt + MIN_INTERVAL_MS - performance.now()));
    },
    async close() {
      flush();
      await writing;
    },
  };
}

function encode(catalog: Catalog): string {
  const services = Object.fromEntries(
    [...catalog].map(([service, entry]) => [service, entry.instances.map(encodeNerveRecord)]),
  );
  return `${JSON.stringify({ version: 1, services })}\n`;
}

/** A single record that cannot be read costs itself only. Throws when the file as a whole makes no sense. */
function decode(text: string): Catalog {
  const { services } = StoreFile.parse(JSON.parse(text));
  const entries = Object.entries(services).map(([service, records]): [string, CatalogEntry] => {
    const decoded = records.map((record) => decodeNerveRecord(Buffer.from(record)));
    return [service, { instances: decoded.flatMap((one) => (one.ok ? [one.instance] : [])), kept: false }];
  });
  return new Map(entries);
}
