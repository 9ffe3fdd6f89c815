import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';

import { type Log, messageOf, queryName, systemErrorCode, writeFileAtomic } from '@tandem/core';
import * as z from 'zod';

/** Which address the names of hosts last stood for, over restarts. */
export interface AddressMemory {
  /** Reads what was remembered, once; nothing where that cannot be read. Never rejects. */
  load(): Promise<void>;
  /** The address that a name has had of late. */
  recall(name: string): string | undefined;
  /** A name has just been answered. What is new in it is on disk some seconds later. */
  remember(name: string, address: string): void;
  /** Writes what is waiting and ends. */
  close(): Promise<void>;
}

export interface AddressMemoryOptions {
  readonly file: string;
  readonly log: Log;
  /** Milliseconds since 1970. Where it jumps, names are remembered for longer, or not at all. */
  readonly now?: () => number;
}

/** Half a megabyte, and more names than a host has to do with. */
const MAX_NAMES = 10_000;
/** Addresses of names that nobody has asked for in so long may be somebody else's by now. */
const MAX_AGE_MS = 24 * 3_600_000;
/** How old a time on disk may be while nothing else is new. */
const RENEW_MS = 3_600_000;
const WRITE_AFTER_MS = 1_000;
const RETRY_MS = 10_000;

/** Pairs, because a name may be one that objects have a use for. */
const Stored = z.object({
  version: z.literal(1),
  names: z.array(z.tuple([z.string(), z.string(), z.number()])),
});

interface Remembered {
  readonly address: string;
  readonly at: number;
  /** What the file says. */
  readonly savedAt: number;
}

/** For those who start anew every time. */
export const NO_MEMORY: AddressMemory = {
  load: () => Promise.resolve(),
  recall: () => undefined,
  remember() {},
  close: () => Promise.resolve(),
};

/** Losing it costs instances with names that nobody answers just then: problems are only logged. */
export function createAddressMemory(options: AddressMemoryOptions): AddressMemory {
  return new FileMemory(options);
}

class FileMemory implements AddressMemory {
  readonly #file: string;
  readonly #log: Log;
  readonly #now: () => number;
  /** The longest unheard of first. */
  readonly #names = new Map<string, Remembered>();
  #loading: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();
  #isDirty = false;
  #isClosed = false;
  #complaint: string | undefined;

  constructor({ file, log, now = Date.now }: AddressMemoryOptions) {
    this.#file = file;
    this.#log = log;
    this.#now = now;
  }

  load(): Promise<void> {
    return (this.#loading ??= this.#read());
  }

  recall(name: string): string | undefined {
    const entry = this.#names.get(name);
    return entry !== undefined && this.#isRecent(entry) ? entry.address : undefined;
  }

  remember(name: string, address: string): void {
    const before = this.#names.get(name);
    const at = this.#now();
    const isSame = before?.address === address;
    this.#put(name, { address, at, savedAt: isSame ? before.savedAt : -Infinity });
    if (isSame && Math.abs(at - before.savedAt) < RENEW_MS) return;
    this.#isDirty = true;
    this.#schedule(WRITE_AFTER_MS);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    await this.#writing;
    await this.#write();
  }

  async #read(): Promise<void> {
    try {
      const stored = Stored.parse(JSON.parse(await readFile(this.#file, 'utf8')));
      // What has been answered meanwhile is newer.
      const newer = [...this.#names];
      for (const [name, address, at] of stored.names.slice(-MAX_NAMES))
        if (queryName(name) === name && isIP(address) !== 0) this.#put(name, { address, at, savedAt: at });
      for (const [name, entry] of newer) this.#put(name, entry);
    } catch (error) {
      if (systemErrorCode(error) !== 'ENOENT')
        this.#log.warn(
          { file: this.#file, err: messageOf(error) },
          'cannot use the remembered addresses of names',
        );
    }
  }

  #put(name: string, entry: Remembered): void {
    this.#names.delete(name);
    this.#names.set(name, entry);
    const [oldest] = this.#names.keys();
    if (this.#names.size > MAX_NAMES && oldest !== undefined) this.#names.delete(oldest);
  }

  #isRecent({ at }: Remembered): boolean {
    return this.#now() - at < MAX_AGE_MS;
  }

  async #write(): Promise<void> {
    if (!this.#isDirty) return;
    this.#isDirty = false;
    const kept = [...this.#names].filter(([, entry]) => this.#isRecent(entry));
    const stored: z.output<typeof Stored> = {
      version: 1,
      names: kept.map(([name, { address, at }]) => [name, address, at]),
    };
    try {
      await writeFileAtomic(this.#file, `${JSON.stringify(stored)}\n`, { mode: 0o640 });
      for (const [name, entry] of kept)
        if (this.#names.get(name) === entry) this.#names.set(name, { ...entry, savedAt: entry.at });
      this.#complaint = undefined;
    } catch (error) {
      this.#isDirty = true;
      if (this.#complaint !== messageOf(error))
        this.#log.warn(
          { file: this.#file, err: messageOf(error) },
          'cannot remember the addresses of names over a restart',
        );
      this.#complaint = messageOf(error);
    }
  }

  #schedule(ms: number): void {
    if (this.#timer !== undefined || this.#isClosed) return;
    this.#timer = setTimeout(() => {
      this.#writing = this.#write().finally(() => {
        this.#timer = undefined;
        if (this.#isDirty) this.#schedule(this.#complaint === undefined ? WRITE_AFTER_MS : RETRY_MS);
      });
    }, ms);
  }
}
