import { readFile } from 'node:fs/promises';

import type { Log } from '@tandem/core';
import * as z from 'zod';

import type { Clock } from './clock.ts';
import { createStateFile } from './state-file.ts';

/** What a registrar knows of a service that its successor cannot find out. Moments are of the wall clock. */
export interface Remembered {
  /** Since when it has been up, for one that starts slowly. */
  readonly upSince?: number | undefined;
  readonly flap?: { readonly offences: number; readonly heldUntil: number; readonly at: number } | undefined;
}

/**
 * Small things that make a restart invisible. None is worth waiting for: what is noted is on the disk a moment later, and
 * a successor that finds nothing does as if it were the first.
 */
export interface Memory {
  recall(service: string): Remembered;
  /** Replaces what was noted of a service; nothing at all forgets it. */
  note(service: string, remembered: Remembered): void;
  recallAddress(name: string): string | undefined;
  noteAddress(name: string, address: string): void;
  /** Forgets everything else. */
  keepOnly(kept: { readonly services: ReadonlySet<string>; readonly names: ReadonlySet<string> }): void;
  /** Resolves when everything that was noted is on the disk, or cannot be. */
  flush(): Promise<void>;
}

const Moment = z.number().optional();
const MemoryFile = z.object({
  version: z.literal(1),
  /** Of the kernel: what was up before the machine went down is not up since then. */
  boot: z.string(),
  services: z.record(
    z.string(),
    z.object({
      upSince: Moment,
      flap: z.object({ offences: z.number().int().min(0), heldUntil: z.number(), at: z.number() }).optional(),
    }),
  ),
  addresses: z.record(z.string(), z.string()),
});

/** How long changes gather before they are written. */
const GATHER_MS = 1_000;
const NOTHING: Remembered = {};

/** For a registrar without a place to remember anything: within its own life it does. */
export function createForgetfulMemory(): Memory {
  return memoryOf(new Map(), new Map(), { changed: () => {}, flush: () => Promise.resolve() });
}

export async function openMemory(file: string, clock: Clock, log: Log): Promise<Memory> {
  const what = 'holds and starts of services';
  const stateFile = createStateFile({ file, schema: MemoryFile, what, durable: false, log });
  const [read, boot] = await Promise.all([stateFile.read(), bootId()]);
  const isSameBoot = read?.boot === boot;
  const services = new Map<string, Remembered>(
    Object.entries(read?.services ?? {}).map(([service, { upSince, flap }]) => [
      service,
      { ...(isSameBoot ? { upSince } : {}), flap },
    ]),
  );
  const addresses = new Map(Object.entries(read?.addresses ?? {}));
  let isChanged = false;
  let writing: Promise<unknown> = Promise.resolve();
  let cancel: (() => void) | undefined;

  async function flush(): Promise<void> {
    cancel?.();
    cancel = undefined;
    if (isChanged) {
      isChanged = false;
      const [all, names] = [Object.fromEntries(services), Object.fromEntries(addresses)];
      writing = stateFile.write({ version: 1, boot, services: all, addresses: names });
    }
    await writing;
  }
  function changed(): void {
    isChanged = true;
    cancel ??= clock.after(GATHER_MS, () => void flush());
  }
  return memoryOf(services, addresses, { changed, flush });
}

function memoryOf(
  services: Map<string, Remembered>,
  addresses: Map<string, string>,
  { changed, flush }: { changed: () => void; flush: () => Promise<void> },
): Memory {
  return {
    recall: (service) => services.get(service) ?? NOTHING,
    note(service, remembered) {
      const { upSince, flap } = remembered;
      if (upSince === undefined && flap === undefined) {
        if (!services.delete(service)) return;
      } else services.set(service, remembered);
      changed();
    },
    recallAddress: (name) => addresses.get(name),
    noteAddress(name, address) {
      if (addresses.get(name) === address) return;
      addresses.set(name, address);
      changed();
    },
    keepOnly(kept) {
      const gone = [...services.keys()].filter((service) => !kept.services.has(service));
      const lost = [...addresses.keys()].filter((name) => !kept.names.has(name));
      for (const service of gone) services.delete(service);
      for (const name of lost) addresses.delete(name);
      if (gone.length + lost.length > 0) changed();
    },
    flush,
  };
}

/** Empty where the system does not say. */
function bootId(): Promise<string> {
  return readFile('/proc/sys/kernel/random/boot_id', 'utf8').then(
    (text) => text.trim(),
    () => '',
  );
}
