import { setMaxListeners } from 'node:events';

import {
  codecFor,
  createLatest,
  type Instance,
  instanceId,
  type InstanceId,
  type Latest,
  type Rejection,
  type Snapshot,
  uniqueInstances,
} from '@tandem/core';

import { createAgreement } from '../agreement.ts';
import type { Announcer, Place, Registry, RegistryStatus } from '../registry.ts';
import { createMemoryStore, type MemoryRecord, type MemoryStore } from './store.ts';

export interface MemoryRegistryOptions {
  /** Default: one of its own. */
  readonly store?: MemoryStore;
  /** Only a name here: whoever opens the store with the same one later takes the session up. Nothing is written. */
  readonly resumeFile?: string;
}

/**
 * A registry within this process, for tests and dry runs. Everything takes at least a turn of the event loop, wishes and
 * news alike, so that what works here does not work by being in step.
 */
export function openMemoryRegistry(options: MemoryRegistryOptions): Registry {
  return new MemoryRegistry(options);
}

class MemoryRegistry implements Registry {
  readonly #store: MemoryStore;
  readonly #isResumable: boolean;
  readonly #session: number;
  /** What an earlier life has left. */
  readonly #inherited: ReturnType<MemoryStore['ownedBy']>;
  readonly #claims = new Map<string, MemoryAnnouncer>();
  readonly #watches = new Set<Latest<true>>();
  #isClosed = false;

  constructor({ store = createMemoryStore(), resumeFile }: MemoryRegistryOptions) {
    this.#store = store;
    this.#isResumable = resumeFile !== undefined;
    this.#session = store.enter(resumeFile);
    this.#inherited = store.ownedBy(this.#session);
  }

  get status(): RegistryStatus {
    return { state: this.#isClosed ? 'closed' : 'connected' };
  }

  announce(path: string, place: Place): Announcer {
    const id = instanceId(place);
    const claim = claimOf(path, id);
    if (this.#claims.has(claim)) throw new TypeError(`${id} is announced below ${path} already`);
    const announcer = new MemoryAnnouncer({
      id,
      write: (instance) => this.#write(path, id, instance),
      onRelease: () => this.#claims.delete(claim),
    });
    this.#claims.set(claim, announcer);
    if (this.#isClosed) announcer.release();
    return announcer;
  }

  withdrawUnclaimed(): void {
    setImmediate(() => {
      if (this.#isClosed) return;
      for (const [path, record] of this.#inherited)
        if (!this.#claims.has(claimOf(path, record.id))) this.#store.remove(path, record);
    });
  }

  async *watch(path: string, signal: AbortSignal): AsyncGenerator<Snapshot> {
    if (this.#isClosed) return;
    // One signal may end every watch of a process.
    setMaxListeners(0, signal);
    const changes = createLatest<true>(signal);
    const onChange = () => changes.set(true);
    const unsubscribe = this.#store.subscribe(path, onChange);
    this.#watches.add(changes);
    setImmediate(onChange);
    let published: readonly MemoryRecord[] | undefined;
    try {
      for await (const _ of changes) {
        const records = this.#store.below(path);
        if (published !== undefined && isSame(published, records)) continue;
        published = records;
        yield toSnapshot(records);
      }
    } finally {
      unsubscribe();
      this.#watches.delete(changes);
    }
  }

  async close({ keep = false }: { keep?: boolean } = {}): Promise<void> {
    if (!this.#isClosed) {
      this.#isClosed = true;
      for (const announcer of this.#claims.values()) announcer.release();
      for (const changes of this.#watches) changes.close();
      if (!keep || !this.#isResumable) this.#store.end(this.#session);
    }
    await new Promise((resolve) => setImmediate(resolve));
  }

  #write(path: string, id: InstanceId, instance: Instance | undefined): void {
    const session = this.#session;
    if (instance !== undefined) {
      this.#store.write(path, { id, session, text: codecFor().encodeRecord(instance) });
      return;
    }
    const standing = this.#store.below(path).find((record) => record.id === id && record.session === session);
    if (standing !== undefined) this.#store.remove(path, standing);
  }
}

interface MemoryAnnouncerOptions {
  readonly id: InstanceId;
  readonly write: (instance: Instance | undefined) => void;
  readonly onRelease: () => void;
}

class MemoryAnnouncer implements Announcer {
  readonly #options: MemoryAnnouncerOptions;
  readonly #agreement = createAgreement();
  #wanted: Instance | undefined;
  /** The turn in which the registry takes the last wish. */
  #turn: NodeJS.Immediate | undefined;
  #isReleased = false;

  constructor(options: MemoryAnnouncerOptions) {
    this.#options = options;
  }

  set(instance: Instance | undefined): void {
    const { id, write } = this.#options;
    if (instance !== undefined && instanceId(instance) !== id)
      throw new TypeError('an announcer announces only the instance of its own place');
    if (this.#isReleased) return;
    this.#wanted = instance;
    this.#turn ??= setImmediate(() => {
      this.#turn = undefined;
      write(this.#wanted);
      this.#agreement.reach();
    });
  }

  agreed(signal: AbortSignal): Promise<void> {
    return this.isAgreed ? Promise.resolve() : this.#agreement.reached(signal);
  }

  get isAgreed(): boolean {
    return this.#turn === undefined;
  }

  release(): void {
    if (this.#isReleased) return;
    this.#isReleased = true;
    // The turn stays: a wish that was not carried out is not confirmed.
    clearImmediate(this.#turn);
    this.#options.onRelease();
  }
}

function claimOf(path: string, id: InstanceId): string {
  return `${path} ${id}`;
}

function toSnapshot(records: readonly MemoryRecord[]): Snapshot {
  const codec = codecFor();
  const instances: Instance[] = [];
  const rejected: Rejection[] = [];
  // Of two records of one instance, the newer counts.
  for (const { id, text } of records.toReversed()) {
    const decoded = codec.decodeRecord(Buffer.from(text));
    if (decoded.ok) instances.push(decoded.instance);
    else rejected.push({ place: id, reason: decoded.reason });
  }
  return { instances: uniqueInstances(instances), rejected };
}

function isSame(a: readonly MemoryRecord[], b: readonly MemoryRecord[]): boolean {
  return a.length === b.length && a.every((record, index) => record === b[index]);
}
