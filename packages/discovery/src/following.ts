import { isIP } from 'node:net';
import { isDeepStrictEqual } from 'node:util';

import {
  type AddressResolver,
  createBackoff,
  type Instance,
  type Log,
  messageOf,
  type Rejection,
  sleepOrAborted,
} from '@tandem/core';
import type { Registry } from '@tandem/registry';

import type { AddressMemory } from './address-memory.ts';
import { withAddresses } from './addresses.ts';
import { assumeKnown, type CatalogPolicy, type Known, passKnown, recordSnapshot } from './catalog.ts';
import type { DiscoveredService } from './config/discover.ts';
import type { GuardPolicy } from './config/selection.ts';
import { type Fallback, followFallback } from './fallback.ts';
import { filtered } from './filter.ts';
import { isSameOrigin, originOf } from './origin.ts';
import type { SavedEntry } from './snapshot-store.ts';
import type { Source } from './source.ts';
import { createSource } from './sources/kinds.ts';

/** Follows the instances of one service, and holds on to the last good ones. */
export interface Following {
  readonly service: DiscoveredService;
  /** Undefined while nothing is known of it. */
  readonly known: Known | undefined;
  /** Whether its source has spoken in this life. */
  readonly hasSpoken: boolean;
  /** What is used while there is no other instance. */
  readonly fallback: readonly Instance[];
  /** What is to be saved of it. */
  readonly saved: SavedEntry | undefined;
  /** What its source or its fallback has set aside. */
  readonly rejected: readonly Rejection[];
  /** Why its source is being asked again; undefined while it speaks, or is silent. */
  readonly sourceError: string | undefined;
  /** What an earlier life has saved. It counts as known before its source has spoken, even when it comes later. */
  assume(saved: SavedEntry): void;
  /**
   * What HAProxy has of it, for want of anything that was saved: it counts as what its source said last. Only the
   * fallback that is configured came from elsewhere.
   */
  adopt(served: readonly Instance[]): void;
  /**
   * Another version of the service. When it is read in another way, the old instances serve until its source has
   * spoken; what it says then is not guarded against, because that is what the operator wants to see.
   */
  update(service: DiscoveredService): void;
  end(): void;
}

export interface FollowingDeps {
  readonly registry: Registry;
  readonly hostName: string;
  readonly resolver: AddressResolver;
  readonly memory: AddressMemory;
  readonly log: Log;
  /** For services without their own. */
  readonly guard: GuardPolicy;
  readonly isUsable: (instance: Instance) => boolean;
  /** Something of it is different now. */
  readonly onChange: () => void;
}

export function followService(service: DiscoveredService, deps: FollowingDeps): Following {
  return new SourceFollowing(service, deps);
}

class SourceFollowing implements Following {
  readonly #deps: FollowingDeps;
  readonly #log: Log;
  #service: DiscoveredService;
  #origin: string;
  #abort = new AbortController();
  #known: Known | undefined;
  #hasSpoken = false;
  /** How the known instances were read. */
  #knownOrigin = '';
  #rejected: readonly Rejection[] = [];
  #sourceError: string | undefined;
  #timer: NodeJS.Timeout | undefined;
  #fallback: Fallback;

  constructor(service: DiscoveredService, deps: FollowingDeps) {
    this.#deps = deps;
    this.#log = deps.log;
    this.#service = service;
    this.#origin = originOf(service);
    this.#fallback = followFallback(service.config.fallback, deps);
    void this.#consume(this.#abort.signal);
  }

  get service(): DiscoveredService {
    return this.#service;
  }

  get known(): Known | undefined {
    return this.#known;
  }

  get hasSpoken(): boolean {
    return this.#hasSpoken;
  }

  get fallback(): readonly Instance[] {
    return this.#fallback.instances;
  }

  get saved(): SavedEntry | undefined {
    return this.#known === undefined
      ? undefined
      : { instances: this.#known.instances, origin: this.#knownOrigin };
  }

  get rejected(): readonly Rejection[] {
    return [...this.#rejected, ...this.#fallback.rejected];
  }

  get sourceError(): string | undefined {
    return this.#sourceError;
  }

  assume({ instances, origin }: SavedEntry): void {
    const base = assumeKnown(instances);
    const isAlike = isSameOrigin(origin, this.#origin);
    if (this.#known === undefined) {
      this.#knownOrigin = origin;
      this.#know(base);
    } else {
      this.#know(recordSnapshot(base, this.#known.said, this.#policy(isAlike), performance.now()));
    }
  }

  adopt(served: readonly Instance[]): void {
    const { fallback } = this.#service.config;
    const instances = served.filter((instance) => !fallback.some((other) => isLikely(other, instance)));
    if (instances.length > 0) this.assume({ instances, origin: this.#origin });
  }

  update(service: DiscoveredService): void {
    const goesOn = isReadAlike(this.#service, service);
    if (!isDeepStrictEqual(service.config.fallback, this.#service.config.fallback)) {
      const { instances } = this.#fallback;
      this.#fallback.end();
      this.#fallback = followFallback(service.config.fallback, this.#deps, instances);
    }
    this.#service = service;
    this.#origin = originOf(service);
    if (goesOn) {
      this.#pass();
      return;
    }
    this.#abort.abort();
    this.#abort = new AbortController();
    this.#sourceError = undefined;
    void this.#consume(this.#abort.signal);
  }

  end(): void {
    this.#abort.abort();
    this.#fallback.end();
    clearTimeout(this.#timer);
  }

  async #consume(signal: AbortSignal): Promise<void> {
    const backoff = createBackoff({ baseMs: 500, maxMs: 30_000 });
    do {
      try {
        for await (const { instances, rejected } of this.#source().watch(signal)) {
          if (signal.aborted) return;
          this.#complain(rejected);
          this.#sourceError = undefined;
          this.#record(instances);
          backoff.reset();
        }
      } catch (error) {
        if (signal.aborted) return;
        this.#sourceError = messageOf(error);
        this.#log.error(
          { service: this.#service.service, err: messageOf(error) },
          'a source has failed, keeping what it last said and asking it again',
        );
      }
    } while (!(await sleepOrAborted(backoff.next(), signal)));
  }

  #source(): Source {
    const { registry, hostName, resolver, memory, log } = this.#deps;
    const { path, config } = this.#service;
    const source = createSource(config.source, { registry, path, format: config.format, hostName, log });
    // Only the names of instances that are wanted are looked up.
    return withAddresses(filtered(source, config.filter), { resolver, memory, log });
  }

  #record(instances: readonly Instance[]): void {
    const isAlike = isSameOrigin(this.#knownOrigin, this.#origin);
    this.#hasSpoken = true;
    this.#knownOrigin = this.#origin;
    this.#know(recordSnapshot(this.#known, instances, this.#policy(isAlike), performance.now()));
    this.#deps.onChange();
  }

  /** What an operator has asked for is no loss. */
  #policy(isGuarded = true): CatalogPolicy {
    const { guard = this.#deps.guard, allowEmpty } = this.#service.config;
    const { isUsable } = this.#deps;
    return { guard: isGuarded ? guard : { ...guard, maxLostPercent: 100 }, allowEmpty, isUsable };
  }

  /** Time has passed, or the policy is another. */
  #pass(): void {
    if (this.#known === undefined) return;
    const known = passKnown(this.#known, this.#policy(), performance.now());
    if (known !== this.#known) {
      this.#know(known);
      this.#deps.onChange();
    } else {
      this.#arm();
    }
  }

  #know(known: Known): void {
    this.#tell(this.#known, known);
    this.#known = known;
    this.#arm();
  }

  #arm(): void {
    clearTimeout(this.#timer);
    const guard = this.#known?.guard;
    if (guard?.kind !== 'holding') return;
    this.#timer = setTimeout(() => this.#pass(), Math.max(1, Math.ceil(guard.until - performance.now())));
  }

  #tell(before: Known | undefined, after: Known): void {
    const { service } = this.#service;
    const [was, is] = [before?.guard.kind === 'holding' ? before.guard : undefined, after.guard];
    if (is.kind === 'holding' && was === undefined)
      this.#log.warn(
        {
          service,
          lost: is.lost.length,
          left: after.said.length,
          holdMs: Math.round(is.until - performance.now()),
        },
        'refused an implausible loss, holding on to what was there',
      );
    if (is.kind === 'open' && was !== undefined) {
      const left = new Set(after.instances);
      const lost = before?.instances.filter((instance) => !left.has(instance)).length;
      this.#log.warn({ service, lost }, 'the hold on a loss has ended, what the source says is accepted');
    }
    if (after.kept && before?.kept !== true)
      this.#log.warn({ service }, 'the last instance is gone, keeping the last known ones');
  }

  /** Says what is set aside once, when it changes. */
  #complain(rejected: readonly Rejection[]): void {
    const isNew = JSON.stringify(rejected) !== JSON.stringify(this.#rejected);
    this.#rejected = rejected;
    if (isNew && rejected.length > 0)
      this.#log.warn(
        { service: this.#service.service, count: rejected.length, rejected: rejected.slice(0, 10) },
        'set instances aside',
      );
  }
}

/** Whether an instance that is written down may be the one with that address. */
function isLikely(configured: Instance, { name, host, port }: Instance): boolean {
  const isHost = isIP(configured.host) === 0 || configured.host === host;
  return configured.name === name && configured.port === port && isHost;
}

/** Whether a source that runs serves the other version of its service as well. */
function isReadAlike(a: DiscoveredService, b: DiscoveredService): boolean {
  const read = ({ path, config: { filter, format, source } }: DiscoveredService) => [
    path,
    filter,
    format,
    source,
  ];
  return isDeepStrictEqual(read(a), read(b));
}
