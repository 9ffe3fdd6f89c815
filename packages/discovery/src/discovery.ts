import { hostname } from 'node:os';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';

import {
  createBackoff,
  createLatest,
  type Latest,
  type Log,
  messageOf,
  sleepOrAborted,
  type Snapshot,
} from '@tandem/core';
import type { Registry } from '@tandem/registry';

import { type Catalog, emptyCatalog, forgetService, recordSnapshot } from './catalog.ts';
import type { DiscoveredService } from './config/discover.ts';
import type { HaproxyConfig } from './config/haproxy.ts';
import { createApplier } from './haproxy/apply.ts';
import { createDesiredBuilder, type Desired } from './haproxy/desired.ts';
import { keepApplied } from './haproxy/keep-applied.ts';
import { isUsable } from './haproxy/membership.ts';
import { createHaproxyProcess, type HaproxyProcess } from './haproxy/process.ts';
import { readIdentity } from './haproxy/runtime.ts';
import { createStructureStore } from './haproxy/structure-store.ts';
import type { Offers } from './output.ts';
import { createSnapshotStore, type SnapshotStore } from './snapshot-store.ts';
import { createSource } from './sources/kinds.ts';

/** Follows the instances of every discovered service and keeps the local HAProxy routing to them. */
export interface Discovery {
  /** The services to route to from now on. Only those that changed are touched. */
  update(services: readonly DiscoveredService[]): void;
  /** Runs until the signal is aborted. HAProxy goes on without it, unless `haproxy.on_exit` says `stop`. */
  run(signal: AbortSignal): Promise<void>;
}

export interface DiscoveryOptions {
  readonly registry: Registry;
  readonly haproxy: HaproxyConfig;
  readonly stateDir: string;
  readonly log: Log;
}

/** How long a start waits for the registry before it goes on with what it has. */
const BOOT_WAIT_MS = 5_000;
const STOP_GRACE_MS = 10_000;

export function createDiscovery(options: DiscoveryOptions): Discovery {
  return new DiscoveryDaemon(options);
}

interface Following {
  readonly service: DiscoveredService;
  readonly abort: AbortController;
}

class DiscoveryDaemon implements Discovery {
  readonly #options: DiscoveryOptions;
  readonly #log: Log;
  readonly #store: SnapshotStore;
  readonly #process: HaproxyProcess;
  readonly #wake: Latest<true> = createLatest();
  readonly #following = new Map<string, Following>();
  /** Services whose source has spoken in this life. */
  readonly #fresh = new Set<string>();
  readonly #build: ReturnType<typeof createDesiredBuilder>;
  readonly #complaints = new Map<string, string>();
  #catalog: Catalog = emptyCatalog;
  #saved: Catalog = emptyCatalog;
  #desired: Desired | undefined;
  #isBooting = true;
  #signal: AbortSignal | undefined;

  constructor(options: DiscoveryOptions) {
    this.#options = options;
    this.#log = options.log;
    this.#build = createDesiredBuilder(options.haproxy);
    this.#store = createSnapshotStore(path.join(options.stateDir, 'catalog.json'), options.log);
    this.#process = createHaproxyProcess(options.haproxy, {
      log: options.log,
      onExit: () => this.#wake.set(true),
    });
  }

  update(services: readonly DiscoveredService[]): void {
    const wanted = new Map(services.map((service) => [service.service, service]));
    for (const [name, { service, abort }] of this.#following) {
      const next = wanted.get(name);
      if (next !== undefined && isReadAlike(next, service)) {
        this.#following.set(name, { service: next, abort });
        continue;
      }
      abort.abort();
      this.#following.delete(name);
      this.#fresh.delete(name);
      // With another path the old instances serve until the new path has spoken: stale beats none.
      if (next === undefined) {
        this.#catalog = forgetService(this.#catalog, name);
        this.#complaints.delete(`${name} registry`);
        this.#complaints.delete(`${name} haproxy`);
      }
    }
    for (const service of services) {
      if (!this.#following.has(service.service)) this.#follow(service);
    }
    this.#publish();
  }

  async run(signal: AbortSignal): Promise<void> {
    this.#signal = signal;
    const abort = () => {
      this.#wake.close();
      for (const { abort: controller } of this.#following.values()) controller.abort();
    };
    signal.addEventListener('abort', abort, { once: true });
    if (signal.aborted) abort();
    try {
      await this.#boot(signal);
      const { haproxy, stateDir } = this.#options;
      const store = createStructureStore(path.join(stateDir, 'structure.json'), this.#log);
      const applier = createApplier({ config: haproxy, process: this.#process, store, log: this.#log });
      await keepApplied({
        applier,
        desired: () => this.#desired,
        changes: this.#wake,
        look: () => this.#wake.set(true),
        log: this.#log,
        signal,
        onApplied: () => {
          this.#save();
          void this.#process.tidy();
        },
      });
    } finally {
      signal.removeEventListener('abort', abort);
      abort();
      // An end may come between a change and its last step.
      if (!this.#isBooting) this.#save();
      await this.#store.close();
      if (this.#options.haproxy.onExit === 'stop') await this.#process.stop(STOP_GRACE_MS);
    }
  }

  /**
   * A HAProxy that runs knows better than the saved catalog, which may be from before its last changes: it keeps what
   * it has until the registry has spoken. Without one, an answer from yesterday's servers beats none.
   */
  async #boot(signal: AbortSignal): Promise<void> {
    const isRunning = await readIdentity(this.#options.haproxy.runtimeSocket, signal).then(
      () => true,
      () => false,
    );
    const saved = await this.#store.load();
    this.#saved = saved;
    for (const [service, entry] of isRunning ? emptyCatalog : saved) {
      if (this.#following.has(service) && !this.#fresh.has(service))
        this.#catalog = new Map(this.#catalog).set(service, entry);
    }
    const isComplete = () => {
      const known = isRunning ? this.#fresh : this.#catalog;
      return [...this.#following.keys()].every((service) => known.has(service));
    };
    if (!isComplete()) this.#log.info({ isRunning, waitMs: BOOT_WAIT_MS }, 'waiting for the registry');
    const waitUntil = performance.now() + BOOT_WAIT_MS;
    const ticker = setInterval(() => this.#wake.set(true), 50);
    this.#wake.set(true);
    try {
      // Not a for-await: leaving one would close the mailbox.
      const wakes = this.#wake[Symbol.asyncIterator]();
      while (!isComplete() && performance.now() < waitUntil && !signal.aborted) {
        if ((await wakes.next()).done === true) return;
      }
    } finally {
      clearInterval(ticker);
    }
    const missing = [...this.#following.keys()].filter((service) => !this.#fresh.has(service));
    if (missing.length > 0)
      this.#log.warn({ missing: missing.slice(0, 20) }, 'starting without the registry for some services');
    this.#isBooting = false;
    this.#publish();
  }

  /** What the registry has not spoken of yet stays as it was saved. */
  #save(): void {
    const silent = [...this.#saved].filter(
      ([service]) => this.#following.has(service) && !this.#catalog.has(service),
    );
    this.#store.save(silent.length === 0 ? this.#catalog : new Map([...silent, ...this.#catalog]));
  }

  #follow(service: DiscoveredService): void {
    const abort = new AbortController();
    if (this.#signal?.aborted === true) return;
    this.#following.set(service.service, { service, abort });
    void this.#consume(service, abort.signal);
  }

  async #consume(service: DiscoveredService, signal: AbortSignal): Promise<void> {
    const backoff = createBackoff({ baseMs: 500, maxMs: 30_000 });
    do {
      try {
        const { registry } = this.#options;
        const { path, config } = service;
        const scene = { registry, path, format: config.format, hostName: hostname(), log: this.#log };
        for await (const snapshot of createSource(config.source, scene).watch(signal)) {
          if (signal.aborted) return;
          this.#record(service, snapshot);
          backoff.reset();
        }
      } catch (error) {
        if (signal.aborted) return;
        this.#log.error(
          { service: service.service, err: messageOf(error) },
          'a source has failed, keeping what it last said and asking it again',
        );
      }
    } while (!(await sleepOrAborted(backoff.next(), signal)));
  }

  #record({ service, config }: DiscoveredService, snapshot: Snapshot): void {
    this.#fresh.add(service);
    this.#catalog = recordSnapshot(this.#catalog, service, snapshot, {
      allowEmpty: config.allowEmpty,
      isUsable,
    });
    if (this.#catalog.get(service)?.kept === true)
      this.#log.warn({ service }, 'the last instance is gone, keeping the last known ones');
    this.#complain(service, 'registry', snapshot.rejected);
    this.#publish();
  }

  #publish(): void {
    if (this.#isBooting) {
      this.#wake.set(true);
      return;
    }
    const { desired, rejected } = this.#build(this.#offers());
    for (const service of this.#following.keys())
      this.#complain(service, 'haproxy', rejected.get(service) ?? []);
    this.#desired = desired;
    this.#wake.set(true);
  }

  #offers(): Offers {
    return new Map(
      [...this.#following].map(([name, { service }]) => [
        name,
        { service, instances: this.#catalog.get(name)?.instances, holds: new Map() },
      ]),
    );
  }

  /** Says what is set aside once, when it changes. */
  #complain(service: string, stage: string, rejected: readonly { place: string; reason: string }[]): void {
    const key = `${service} ${stage}`;
    const text = JSON.stringify(rejected);
    if (text === (this.#complaints.get(key) ?? '[]')) return;
    this.#complaints.set(key, text);
    if (rejected.length > 0)
      this.#log.warn(
        { service, count: rejected.length, rejected: rejected.slice(0, 10) },
        'set instances aside',
      );
  }
}

/** Whether two versions of a service make the same of the same registry. */
function isReadAlike(a: DiscoveredService, b: DiscoveredService): boolean {
  const readOf = ({ path, config: { allowEmpty, format, source } }: DiscoveredService) => [
    path,
    allowEmpty,
    format,
    source,
  ];
  return isDeepStrictEqual(readOf(a), readOf(b));
}
