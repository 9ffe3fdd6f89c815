import { readdir, readFile, rm } from 'node:fs/promises';
import path from 'node:path';

import {
  type Backoff,
  createBackoff,
  createLatest,
  type Instance,
  instanceId,
  type Latest,
  type Log,
  messageOf,
  SafeName,
  systemErrorCode,
} from '@tandem/core';
import * as z from 'zod';

import type { FilesConfig } from '../config/outputs.ts';
import type { Offer, Offers, Output } from '../output.ts';
import { type Complaint, createComplaint } from './complaint.ts';
import { createKeptFile, type KeptFile } from './kept-file.ts';

const LOOK_MS = 1_000;
const FILE_MODE = 0o644;

/**
 * Which files of the directory are ours: those of the services listed here, also those of a former life. A service is
 * listed before its file is made, so that a crash in between leaves nothing behind that nobody owns.
 */
const MANIFEST = '.tandem-files';
const Manifest = z.object({ version: z.literal(1), services: z.array(SafeName) });

/**
 * Keeps `<service>.json` for every service, for programs that find their peers by themselves. It is what Synapse's
 * file_output writes: a compact JSON array of `{"name","host","port","weight","labels"}`, weight and labels where they
 * are known; without the instances that an operator holds. Replaced in one step, and only when something has changed.
 * Files that are edited or deleted are put back, files of services that are gone are deleted, others are never touched.
 */
export function createFileOutput(config: FilesConfig, log: Log): Output {
  return new FileOutput(config, log);
}

/** The text of a service's file. Deterministic: equal instances give equal bytes. */
export function renderInstances({
  instances,
  holds,
}: Pick<Offer, 'holds'> & { instances: readonly Instance[] }): string {
  const shown = instances
    .filter((instance) => !holds.has(instanceId(instance)))
    .map(({ name, host, port, weight, labels }) => ({
      name,
      host,
      port,
      weight,
      labels: labels === undefined ? undefined : Object.fromEntries(Object.entries(labels).toSorted(byKey)),
    }));
  return JSON.stringify(shown);
}

function byKey([a]: readonly [string, string], [b]: readonly [string, string]): number {
  return a < b ? -1 : 1;
}

/** Whether two offers make the same text, seen at a glance. */
function isAlike(a: Offer, b: Offer): boolean {
  return a.instances === b.instances && (a.holds === b.holds || a.holds.size + b.holds.size === 0);
}

/** The file of one service. */
interface Entry {
  readonly file: KeptFile;
  readonly backoff: Backoff;
  readonly complaint: Complaint;
  offer?: Offer;
  text?: string;
  /** Whether it was as it is to be when it was last looked at. */
  isKept: boolean;
  /** Before this time it is left alone: its last change is too recent, or has failed. */
  notBefore: number;
}

/** Whether its file is as the offer wants it, unless somebody else has touched it. */
function isUpToDate({ isKept, offer: last }: Entry, offer: Offer): boolean {
  return isKept && last !== undefined && isAlike(last, offer);
}

class FileOutput implements Output {
  readonly #config: FilesConfig;
  readonly #log: Log;
  readonly #wake: Latest<true> = createLatest();
  readonly #entries = new Map<string, Entry>();
  readonly #owned = new Set<string>();
  /** What the manifest on disk says. */
  #listed: ReadonlySet<string> = new Set();
  readonly #manifest: Entry;
  #offers: Offers | undefined;
  /** Somebody else may have changed any file: all of them are looked at, not only what is new. */
  #isLookDue = true;

  constructor(config: FilesConfig, log: Log) {
    this.#config = config;
    this.#log = log.child({ directory: config.directory });
    this.#manifest = this.#entry(MANIFEST);
  }

  offer(offers: Offers): void {
    this.#offers = offers;
    this.#wake.set(true);
  }

  async run(signal: AbortSignal): Promise<void> {
    const close = () => this.#wake.close();
    signal.addEventListener('abort', close, { once: true });
    if (signal.aborted) close();
    const look = () => this.#wake.set(true);
    const looks = setInterval(() => {
      this.#isLookDue = true;
      look();
    }, LOOK_MS);
    let soon: NodeJS.Timeout | undefined;
    try {
      await this.#remember();
      for await (const _ of this.#wake) {
        clearTimeout(soon);
        const dueMs = await this.#pass(signal);
        if (dueMs !== undefined) soon = setTimeout(look, dueMs);
      }
    } finally {
      clearTimeout(soon);
      clearInterval(looks);
      signal.removeEventListener('abort', close);
    }
  }

  /** Brings all files up to date. Returns how long it is until the first of those that have to wait. */
  async #pass(signal: AbortSignal): Promise<number | undefined> {
    const offers = this.#offers;
    if (offers === undefined) return undefined;
    const waits: number[] = [];
    const isLook = this.#isLookDue;
    this.#isLookDue = false;
    const wanted = [...offers].filter(([, { instances }]) => instances !== undefined);
    for (const [service] of wanted) this.#owned.add(service);
    if (isLook || !this.#isListed()) await this.#attempt(this.#manifest, waits, () => this.#keepManifest());
    for (const [service, offer] of wanted) {
      if (signal.aborted || !this.#listed.has(service)) continue;
      const entry = this.#open(service);
      if (isLook || !isUpToDate(entry, offer))
        entry.isKept = await this.#attempt(entry, waits, () => this.#keep(service, entry, offer));
    }
    await this.#removeOthers(offers, waits, signal);
    return waits.length === 0 ? undefined : Math.min(...waits);
  }

  /** Deletes the files of services that are gone. */
  async #removeOthers(offers: Offers, waits: number[], signal: AbortSignal): Promise<void> {
    for (const service of this.#owned) {
      if (signal.aborted || offers.has(service)) continue;
      await this.#attempt(this.#open(service), waits, () => this.#remove(service));
    }
    if (!signal.aborted && !this.#isListed())
      await this.#attempt(this.#manifest, waits, () => this.#keepManifest());
  }

  #open(service: string): Entry {
    const entry = this.#entries.get(service) ?? this.#entry(`${service}.json`);
    this.#entries.set(service, entry);
    return entry;
  }

  /** Runs an attempt unless its file has to wait, and says whether it worked. One bad file costs only itself. */
  async #attempt(entry: Entry, waits: number[], attempt: () => Promise<void>): Promise<boolean> {
    const waitMs = entry.notBefore - performance.now();
    if (waitMs > 0) {
      waits.push(waitMs);
      return false;
    }
    try {
      await attempt();
      entry.backoff.reset();
      entry.complaint.over({});
      return true;
    } catch (error) {
      const retryMs = entry.backoff.next();
      entry.notBefore = performance.now() + retryMs;
      waits.push(retryMs);
      entry.complaint.failed(error, {});
      return false;
    }
  }

  async #keep(service: string, entry: Entry, offer: Offer): Promise<void> {
    const { instances, holds } = offer;
    if (instances === undefined) return;
    if (entry.text === undefined || entry.offer === undefined || !isAlike(entry.offer, offer))
      entry.text = renderInstances({ instances, holds });
    entry.offer = offer;
    const keeping = await entry.file.keep(entry.text);
    if (keeping === 'kept') return;
    entry.notBefore = performance.now() + this.#config.minIntervalMs;
    if (keeping === 'restored')
      this.#log.warn({ service }, 'somebody has changed the file of a service, it is put back');
  }

  async #remove(service: string): Promise<void> {
    await rm(path.join(this.#config.directory, `${service}.json`), { force: true });
    this.#owned.delete(service);
    this.#entries.delete(service);
    this.#log.info({ service }, 'a service is gone, its file is deleted');
  }

  #isListed(): boolean {
    return this.#owned.size === this.#listed.size && [...this.#owned].every((name) => this.#listed.has(name));
  }

  async #keepManifest(): Promise<void> {
    const services = [...this.#owned].toSorted();
    await this.#manifest.file.keep(`${JSON.stringify({ version: 1, services })}\n`);
    this.#listed = new Set(services);
  }

  /** What a former life has left: the files that it owned, and what it was writing when it ended. */
  async #remember(): Promise<void> {
    const { directory } = this.#config;
    try {
      const text = await readFile(path.join(directory, MANIFEST), 'utf8');
      for (const service of Manifest.parse(JSON.parse(text)).services) this.#owned.add(service);
    } catch (error) {
      if (systemErrorCode(error) !== 'ENOENT')
        this.#log.warn(
          { err: messageOf(error) },
          'nobody knows which files are ours, those of services that are gone stay',
        );
    }
    const names = await readdir(directory).catch(() => []);
    for (const name of names) {
      const [, base = ''] = /^\.(.+)\.\d+\.\d+\.tmp$/.exec(name) ?? [];
      const isOurs = base === MANIFEST || this.#owned.has(base.replace(/\.json$/, ''));
      if (isOurs) await rm(path.join(directory, name), { force: true }).catch(() => {});
    }
  }

  #entry(name: string): Entry {
    const file = path.join(this.#config.directory, name);
    return {
      file: createKeptFile(file, FILE_MODE),
      backoff: createBackoff({ baseMs: 100, maxMs: 5_000 }),
      complaint: createComplaint(this.#log.child({ file }), {
        failed: 'cannot keep the file of a service, trying again',
        over: 'the file of a service is kept again',
      }),
      isKept: false,
      notBefore: -Infinity,
    };
  }
}
