import { readFile } from 'node:fs/promises';

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

/** What was known of a service, and from where. */
export interface SavedEntry {
  readonly instances: readonly Instance[];
  /** How the service was read. With another origin they are not what its source said, but still better than none. */
  readonly origin: string;
}

/** By the name of the service. */
export type SavedCatalog = ReadonlyMap<string, SavedEntry>;

/** The catalog on disk, so that HAProxy can serve before the registry answers. */
export interface SnapshotStore {
  /** What was last saved; empty when there is nothing that can be read. */
  load(): Promise<SavedCatalog>;
  /**
   * Saves what `read` gives when it is time: at once if the last time is a while ago, at most once a second otherwise,
   * and never so often that it is a twentieth of this process' time. A disk that is full is tried again.
   */
  save(read: () => SavedCatalog): void;
  /** Writes what is waiting and ends. */
  close(): Promise<void>;
}

const MIN_INTERVAL_MS = 1_000;
/** A save of 100,000 instances writes ten megabytes. */
const INTERVAL_PER_COST = 20;
const RETRY_MS = 5_000;
const PART_BYTES = 256 * 1024;

export function createSnapshotStore(file: string, log: Log): SnapshotStore {
  const encode = createEncoder();
  let waiting: (() => SavedCatalog) | undefined;
  let timer: NodeJS.Timeout | undefined;
  let writing: Promise<void> = Promise.resolve();
  let isWriting = false;
  let isClosed = false;
  let nextAt = -Infinity;
  let complaint: string | undefined;

  async function write(): Promise<void> {
    const read = waiting;
    waiting = undefined;
    if (read === undefined) return;
    const startedAt = performance.now();
    try {
      await writeFileAtomic(file, encode(read()), { mode: 0o640 });
      const endedAt = performance.now();
      nextAt = endedAt + Math.max(MIN_INTERVAL_MS, INTERVAL_PER_COST * (endedAt - startedAt));
      complaint = undefined;
    } catch (error) {
      waiting ??= read;
      nextAt = performance.now() + RETRY_MS;
      if (complaint !== messageOf(error))
        log.error(
          { file, err: messageOf(error) },
          'cannot save the catalog, a boot without the registry will miss it',
        );
      complaint = messageOf(error);
    }
  }
  async function flush(): Promise<void> {
    isWriting = true;
    await write();
    isWriting = false;
    schedule();
  }
  function schedule(): void {
    if (waiting === undefined || timer !== undefined || isWriting || isClosed) return;
    timer = setTimeout(
      () => {
        timer = undefined;
        writing = flush();
      },
      Math.max(0, nextAt - performance.now()),
    );
  }

  return {
    async load() {
      try {
        return decode(await readFile(file));
      } catch (error) {
        if (systemErrorCode(error) !== 'ENOENT')
          log.warn({ file, err: messageOf(error) }, 'cannot use the saved catalog');
        return new Map();
      }
    },
    save(read) {
      waiting = read;
      schedule();
    },
    async close() {
      isClosed = true;
      clearTimeout(timer);
      await writing;
      await write();
    },
  };
}

/**
 * One line that says the version, then for each service a line with its name and one for each instance: what is damaged
 * costs only itself, and the text of a service that has not changed is used again.
 */
function createEncoder(): (catalog: SavedCatalog) => Iterable<Buffer> {
  let texts = new Map<string, { readonly entry: SavedEntry; readonly text: Buffer }>();
  return function* encode(catalog) {
    const next: typeof texts = new Map();
    let parts: Buffer[] = [Buffer.from(`${JSON.stringify({ version: 2 })}\n`)];
    let bytes = 0;
    for (const [service, entry] of catalog) {
      const last = texts.get(service);
      const isSame = last?.entry.instances === entry.instances && last.entry.origin === entry.origin;
      const text = isSame ? last.text : encodeEntry(service, entry);
      next.set(service, { entry, text });
      parts.push(text);
      bytes += text.length;
      if (bytes < PART_BYTES) continue;
      // The daemon does other work while a part is written.
      yield Buffer.concat(parts);
      parts = [];
      bytes = 0;
    }
    texts = next;
    yield Buffer.concat(parts);
  };
}

function encodeEntry(service: string, { instances, origin }: SavedEntry): Buffer {
  const lines = instances.map((instance) => `${encodeNerveRecord(instance)}\n`);
  return Buffer.from(`${JSON.stringify({ service, origin })}\n${lines.join('')}`);
}

const Header = z.object({ version: z.literal(2) });
const ServiceLine = z.object({ service: z.string(), origin: z.string() });
/** No record of an instance begins like this. */
const SERVICE_LINE = Buffer.from('{"service":');

/** A line that cannot be read costs itself only. Throws when the file as a whole makes no sense. */
function decode(bytes: Buffer): SavedCatalog {
  const catalog = new Map<string, SavedEntry>();
  let instances: Instance[] | undefined;
  let isFirst = true;
  for (const line of linesOf(bytes)) {
    if (isFirst) {
      Header.parse(JSON.parse(line.toString()));
      isFirst = false;
    } else if (line.indexOf(SERVICE_LINE) === 0) {
      instances = undefined;
      const parsed = parseServiceLine(line);
      if (parsed === undefined) continue;
      instances = [];
      catalog.set(parsed.service, { instances, origin: parsed.origin });
    } else {
      const decoded = decodeNerveRecord(line);
      if (decoded.ok) instances?.push(decoded.instance);
    }
  }
  if (isFirst) throw new Error('the file is empty');
  return catalog;
}

function parseServiceLine(line: Buffer): z.output<typeof ServiceLine> | undefined {
  try {
    return ServiceLine.parse(JSON.parse(line.toString()));
  } catch {
    return undefined;
  }
}

function* linesOf(bytes: Buffer): Iterable<Buffer> {
  for (let start = 0; start < bytes.length;) {
    const end = bytes.indexOf(0x0a, start);
    const stop = end === -1 ? bytes.length : end;
    if (stop > start) yield bytes.subarray(start, stop);
    start = stop + 1;
  }
}
