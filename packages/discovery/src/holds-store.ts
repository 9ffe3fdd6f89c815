import { readFile } from 'node:fs/promises';

import { type InstanceId, type Log, messageOf, systemErrorCode, writeFileAtomic } from '@tandem/core';
import * as z from 'zod';

import type { HoldKind } from './output.ts';

/** What operators hold, by service. The maps of services that have not changed stay the same. */
export type Holds = ReadonlyMap<string, ReadonlyMap<InstanceId, HoldKind>>;

/** Remembers what operators hold, over restarts. */
export interface HoldsStore {
  readonly holds: Holds;
  /** Reads what was remembered, once. Without a file, or with one that cannot be read, nothing is held. */
  load(): Promise<void>;
  /**
   * Holds an instance, or with undefined holds it no more. Resolves with whether it will be remembered: an operator in
   * need of a drain gets it on a full disk, too.
   */
  set(service: string, instance: InstanceId, kind: HoldKind | undefined): Promise<boolean>;
}

const StoreFile = z.object({
  version: z.literal(1),
  holds: z.record(z.string(), z.record(z.string(), z.enum(['drain', 'maint']))),
});
const NONE: ReadonlyMap<InstanceId, HoldKind> = new Map();

export function createHoldsStore(file: string, log: Log): HoldsStore {
  let holds: Holds = new Map();
  let writing: Promise<boolean> = Promise.resolve(true);
  let loading: Promise<void> | undefined;

  async function read(): Promise<void> {
    try {
      holds = decode(await readFile(file, 'utf8'));
    } catch (error) {
      if (systemErrorCode(error) !== 'ENOENT')
        log.error({ file, err: messageOf(error) }, 'cannot read what is held, nothing is');
    }
  }
  async function write(previous: Promise<boolean>): Promise<boolean> {
    await previous;
    try {
      // Whoever waits for an earlier write gets the newest, too.
      await writeFileAtomic(file, encode(holds), { mode: 0o640, durable: true });
      return true;
    } catch (error) {
      log.error({ file, err: messageOf(error) }, 'cannot remember what is held, a restart will forget it');
      return false;
    }
  }

  return {
    get holds() {
      return holds;
    },
    load: () => (loading ??= read()),
    async set(service, instance, kind) {
      await (loading ??= read());
      const ofService = new Map(holds.get(service) ?? NONE);
      if (kind === undefined) ofService.delete(instance);
      else ofService.set(instance, kind);
      const next = new Map(holds).set(service, ofService);
      if (ofService.size === 0) next.delete(service);
      holds = next;
      writing = write(writing);
      return writing;
    },
  };
}

function encode(holds: Holds): string {
  const plain = Object.fromEntries([...holds].map(([service, held]) => [service, Object.fromEntries(held)]));
  return `${JSON.stringify({ version: 1, holds: plain })}\n`;
}

function decode(text: string): Holds {
  const { holds } = StoreFile.parse(JSON.parse(text));
  return new Map(
    Object.entries(holds).map(([service, held]) => [
      service,
      new Map(Object.entries(held).map(([id, kind]) => [id as InstanceId, kind])),
    ]),
  );
}
