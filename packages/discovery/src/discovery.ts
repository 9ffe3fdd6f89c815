import path from 'node:path';

import {
  createAddressResolver,
  type InstanceId,
  instanceId,
  isTandemError,
  type Log,
  sleepOrAborted,
  withDeadline,
} from '@tandem/core';
import type { Registry } from '@tandem/registry';

import { type AddressMemory, createAddressMemory } from './address-memory.ts';
import type { DiscoveredService } from './config/discover.ts';
import type { DiscoverySettings } from './config/discovery.ts';
import type { HaproxyConfig } from './config/haproxy.ts';
import { createFirstWords } from './first-words.ts';
import { type Following, followService } from './following.ts';
import { isUsable } from './haproxy/membership.ts';
import type { Serving } from './haproxy/serving.ts';
import { findInstances, type HoldAnswer } from './holding.ts';
import { createHoldsStore, type HoldsStore } from './holds-store.ts';
import type { HoldKind, Offer } from './output.ts';
import { createOutputs, type Outputs } from './outputs/kinds.ts';
import { createSelector, type Selection, type Selector } from './selection.ts';
import {
  createSnapshotStore,
  type SavedCatalog,
  type SavedEntry,
  type SnapshotStore,
} from './snapshot-store.ts';
import { describeService, type DiscoveryState } from './state.ts';

/** Follows the instances of every discovered service and keeps the local HAProxy routing to them. */
export interface Discovery {
  /** The services to route to from now on. Only those that changed are touched. */
  update(services: readonly DiscoveredService[]): void;
  /** Runs until the signal is aborted. HAProxy goes on without it, unless `haproxy.on_exit` says `stop`. */
  run(signal: AbortSignal): Promise<void>;
  /**
   * Takes an instance out of this host's traffic until it is released, over restarts. It is named by its id, or by its
   * name, its endpoint or another part, if that is unambiguous.
   */
  hold(service: string, instance: string, kind: HoldKind): Promise<HoldAnswer>;
  /** Ends a hold, also one on an instance or a service that is gone. */
  release(service: string, instance: string): Promise<HoldAnswer>;
  state(): DiscoveryState;
}

export interface DiscoveryOptions {
  readonly registry: Registry;
  /** This host: it chooses its subset by its name, and what is near by its labels. */
  readonly host: { readonly name: string; readonly labels: Readonly<Record<string, string>> };
  readonly settings: DiscoverySettings;
  readonly haproxy: HaproxyConfig;
  readonly stateDir: string;
  readonly log: Log;
}

/** How long the very first start, with nothing to serve, waits for the sources: one correct file beats many. */
const FIRST_WORDS_MS = 5_000;
const NEXT_WORDS_MS = 500;
/** When it is worth a word that a source is silent. */
const SILENCE_MS = 5_000;
/** Longer than a HAProxy that ends with the daemon may take for its last requests. */
const END_MS = 12_000;
const NO_HOLDS: ReadonlyMap<InstanceId, HoldKind> = new Map();

export function createDiscovery(options: DiscoveryOptions): Discovery {
  return new DiscoveryDaemon(options);
}

class DiscoveryDaemon implements Discovery {
  readonly #options: DiscoveryOptions;
  readonly #log: Log;
  readonly #store: SnapshotStore;
  readonly #holds: HoldsStore;
  readonly #outputs: Outputs;
  readonly #selector: Selector;
  readonly #resolver = createAddressResolver();
  readonly #memory: AddressMemory;
  readonly #following = new Map<string, Following>();
  #offers = new Map<string, Offer>();
  #publishing: NodeJS.Immediate | undefined;
  /** What an earlier life has saved, for services that come while this one boots. */
  #saved: SavedCatalog = new Map();
  #boot: 'waiting' | 'done' = 'waiting';
  /** Of these services HAProxy had servers already: what it has counts more than what was saved. */
  #adopted: ReadonlySet<string> = new Set();
  readonly #firstWords = createFirstWords({ firstMs: FIRST_WORDS_MS, nextMs: NEXT_WORDS_MS });
  #isEnded = false;

  constructor(options: DiscoveryOptions) {
    const { host, settings, haproxy, stateDir, log } = options;
    this.#options = options;
    this.#log = log;
    this.#store = createSnapshotStore(path.join(stateDir, 'catalog.json'), log);
    this.#memory = createAddressMemory({ file: path.join(stateDir, 'addresses.json'), log });
    this.#holds = createHoldsStore(path.join(stateDir, 'holds.json'), log);
    this.#outputs = createOutputs({ settings, haproxy, stateDir, log });
    this.#selector = createSelector({ host, isUsable });
  }

  update(services: readonly DiscoveredService[]): void {
    if (this.#isEnded) return;
    const wanted = new Map(services.map((service) => [service.service, service]));
    for (const [name, following] of this.#following) {
      const next = wanted.get(name);
      if (next !== undefined) {
        following.update(next);
        continue;
      }
      following.end();
      this.#following.delete(name);
      this.#selector.forget(name);
    }
    for (const [name, service] of wanted) {
      if (!this.#following.has(name)) this.#follow(service);
    }
    this.#publishSoon();
  }

  async run(signal: AbortSignal): Promise<void> {
    const controller = new AbortController();
    const abort = () => {
      this.#isEnded = true;
      controller.abort(signal.reason);
      for (const following of this.#following.values()) following.end();
    };
    const isTold = new Promise<void>((resolve) => {
      controller.signal.addEventListener('abort', () => resolve(), { once: true });
    });
    signal.addEventListener('abort', abort, { once: true });
    if (signal.aborted) abort();
    const tasks = [
      this.#start(controller.signal),
      ...this.#outputs.all.map((output) => output.run(controller.signal)),
    ];
    try {
      await Promise.race([Promise.all(tasks), isTold]);
    } finally {
      signal.removeEventListener('abort', abort);
      abort();
      // An end may come between a change and its publication.
      if (this.#publishing !== undefined && this.#boot === 'done') this.#store.save(() => this.#catalog());
      clearImmediate(this.#publishing);
      await this.#finish(tasks);
    }
  }

  /** What is stuck keeps nobody from ending the daemon: its successor does what it has left undone. */
  async #finish(tasks: readonly Promise<void>[]): Promise<void> {
    const isDone = Promise.all([Promise.allSettled(tasks), this.#store.close(), this.#memory.close()]);
    try {
      await withDeadline(undefined, END_MS, () => isDone);
    } catch (error) {
      if (!isTandemError(error, 'DEADLINE_EXCEEDED')) throw error;
      this.#log.error({ waitedMs: END_MS }, 'an output or the disk is stuck, ending without it');
      return;
    }
    await Promise.all(tasks);
  }

  async hold(service: string, instance: string, kind: HoldKind): Promise<HoldAnswer> {
    const following = this.#following.get(service);
    if (following === undefined)
      return { ok: false, reason: 'unknown-service', candidates: [...this.#following.keys()].toSorted() };
    const known = [...(following.known?.instances ?? []), ...(this.#offers.get(service)?.instances ?? [])];
    const ids = [...new Set(known.map(instanceId))];
    return this.#set(service, findInstances(instance, ids), { kind, ids, none: 'unknown-instance' });
  }

  async release(service: string, instance: string): Promise<HoldAnswer> {
    await this.#holds.load();
    const ids = [...(this.#holds.holds.get(service)?.keys() ?? [])];
    return this.#set(service, findInstances(instance, ids), { kind: undefined, ids, none: 'not-held' });
  }

  state(): DiscoveryState {
    const { haproxy } = this.#outputs;
    const now = performance.now();
    const services = [...this.#following].toSorted(([a], [b]) => (a < b ? -1 : 1));
    return {
      phase: this.#boot === 'done' ? 'serving' : 'starting',
      services: services.map(([name, following]) =>
        describeService(
          {
            following,
            selection: this.#boot === 'done' ? this.#select(following) : undefined,
            holds: this.#holds.holds.get(name) ?? NO_HOLDS,
            rejected: haproxy.rejected.get(name) ?? [],
          },
          now,
        ),
      ),
      haproxy: haproxy.state(),
    };
  }

  async #set(
    service: string,
    found: readonly InstanceId[],
    wish: { kind: HoldKind | undefined; ids: readonly InstanceId[]; none: 'unknown-instance' | 'not-held' },
  ): Promise<HoldAnswer> {
    const [instance, ...others] = found;
    if (instance === undefined) return { ok: false, reason: wish.none, candidates: wish.ids };
    if (others.length > 0) return { ok: false, reason: 'ambiguous-instance', candidates: found };
    const remembering = this.#holds.set(service, instance, wish.kind);
    const remembered = await remembering;
    this.#log.info(
      { service, instance, kind: wish.kind ?? 'released' },
      'an operator holds or releases an instance',
    );
    this.#publishSoon();
    return { ok: true, instance, remembered };
  }

  /**
   * A HAProxy that runs knows better than the saved catalog, which may be from before its last changes: it keeps what
   * it has until the sources have spoken. Without one, an answer from yesterday's servers beats none. Either way what
   * was saved, or else what HAProxy has, is what counted as there: a source that comes back empty has lost it.
   *
   * Nobody waits for the source of another service, unless there is nothing to serve yet at all.
   */
  async #start(signal: AbortSignal): Promise<void> {
    const services = [...this.#following.values()].map(({ service }) => service);
    const [serving, saved] = await Promise.all([
      this.#outputs.haproxy.serving(services, signal),
      this.#store.load(),
      this.#holds.load(),
    ]);
    if (signal.aborted) return;
    this.#adopted = new Set(serving?.keys());
    this.#saved = saved;
    for (const following of this.#following.values()) this.#assume(following, serving);
    const isFirst = serving === undefined && ![...this.#following.keys()].some((name) => saved.has(name));
    if (isFirst) {
      this.#hear();
      this.#log.info({ waitMs: FIRST_WORDS_MS }, 'waiting for the registry');
      await this.#firstWords.wait(signal);
    }
    if (signal.aborted) return;
    this.#boot = 'done';
    this.#saved = new Map();
    this.#publish();
    if (!(await sleepOrAborted(SILENCE_MS, signal))) this.#tellSilent();
  }

  #tellSilent(): void {
    const silent = [...this.#following].filter(([, { hasSpoken }]) => !hasSpoken).map(([name]) => name);
    if (silent.length > 0)
      this.#log.warn(
        { services: silent.slice(0, 20), count: silent.length },
        'going on without the registry for some services',
      );
  }

  #hear(): void {
    const known = [...this.#following.values()].filter(({ hasSpoken }) => hasSpoken).length;
    this.#firstWords.hear(known, this.#following.size);
  }

  #follow(service: DiscoveredService): void {
    const { registry, host, settings, log } = this.#options;
    const following = followService(service, {
      registry,
      hostName: host.name,
      resolver: this.#resolver,
      memory: this.#memory,
      log,
      guard: settings.guard,
      isUsable,
      onChange: () => this.#publishSoon(),
    });
    this.#following.set(service.service, following);
    this.#assume(following);
  }

  #assume(following: Following, serving?: Serving): void {
    const { service } = following.service;
    const saved = this.#saved.get(service);
    const served = serving?.get(service);
    if (saved !== undefined) following.assume(saved);
    else if (served !== undefined) following.adopt(served);
  }

  /** What comes at the same time is published once. */
  #publishSoon(): void {
    if (this.#isEnded) return;
    this.#publishing ??= setImmediate(() => {
      this.#publishing = undefined;
      this.#publish();
    });
  }

  #publish(): void {
    if (this.#boot === 'waiting') {
      this.#hear();
      return;
    }
    this.#offers = new Map([...this.#following].map(([name, following]) => [name, this.#offer(following)]));
    for (const output of this.#outputs.all) output.offer(this.#offers);
    this.#store.save(() => this.#catalog());
  }

  /** The same object as long as nothing of it has changed. */
  #offer(following: Following): Offer {
    const { service } = following;
    const instances = this.#select(following)?.instances;
    const holds = this.#holds.holds.get(service.service) ?? NO_HOLDS;
    const last = this.#offers.get(service.service);
    const isSame = last?.service === service && last.instances === instances && last.holds === holds;
    return isSame ? last : { service, instances, holds };
  }

  #select({ service, known, fallback, hasSpoken }: Following): Selection | undefined {
    if (known === undefined || (!hasSpoken && this.#adopted.has(service.service))) return undefined;
    return this.#selector.select(service.service, {
      entry: known,
      config: service.config,
      fallback,
      holds: this.#holds.holds.get(service.service) ?? NO_HOLDS,
    });
  }

  #catalog(): SavedCatalog {
    const entries = [...this.#following].flatMap(([name, { saved }]): [string, SavedEntry][] =>
      saved === undefined ? [] : [[name, saved]],
    );
    return new Map(entries);
  }
}
