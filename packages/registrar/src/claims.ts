import { isDeepStrictEqual } from 'node:util';

import { type AddressResolver, type HostConfig, instanceId, messageOf } from '@tandem/core';
import type { AnnounceOptions, Announcer, Registry } from '@tandem/registry';

import { type HostSituation, memoryKey } from './announcing.ts';
import type { ServiceRegistration } from './config.ts';
import { isDrained } from './overrides.ts';
import type { Spread } from './pacing.ts';
import type { ServiceStatus } from './registrar.ts';
import type { Reports } from './reports.ts';
import { type CheckFactory, createService, type Service } from './service.ts';

/** A service that shall be registered, and the host as it is announced: an address that others can use as it stands. */
export interface Wanted {
  readonly registration: ServiceRegistration;
  readonly host: HostConfig;
}

export interface ClaimsDeps {
  readonly registry: Pick<Registry, 'announce'>;
  readonly situation: HostSituation;
  readonly spread: Spread;
  readonly resolver: AddressResolver;
  readonly reports: Reports;
  readonly createCheck?: CheckFactory;
}

/** The places in the registry that this registrar has claimed, each with the service that runs there. */
export interface Claims {
  /**
   * What shall be registered from now on, as a whole.
   * @param expected services whose place is not known yet: they stay where they are until it is
   */
  update(wanted: readonly Wanted[], expected: readonly ServiceRegistration[]): void;
  /** Something that concerns all services may have changed. */
  reconsider(): void;
  agreed(service: string | undefined, signal: AbortSignal): Promise<void>;
  overdue(now: number): string[];
  forgetStarts(): void;
  withdrawAll(signal: AbortSignal): Promise<void>;
  stop(): Promise<void>;
  status(): ServiceStatus[];
  /** Of a service that has no place yet. */
  waitingStatus(wanted: Wanted, waitsFor: string): ServiceStatus;
}

export function createClaims(deps: ClaimsDeps): Claims {
  return new HostClaims(deps);
}

/** One place in the registry that this registrar has claimed. */
interface Claim {
  announcer: Announcer;
  /** What the announcer was told of how to write. */
  announcing: AnnounceOptions;
  wanted: Wanted;
  service: Service;
  state: ClaimState;
}

/**
 * `active` is configured. `outgoing` no longer is, but goes on until its successor is announced.
 * `leaving` has been withdrawn and waits for the registry to agree; aborting `wait` keeps the place.
 */
type ClaimState =
  | { readonly kind: 'active' }
  | { readonly kind: 'outgoing' }
  | { readonly kind: 'leaving'; readonly wait: AbortController };

class HostClaims implements Claims {
  readonly #deps: ClaimsDeps;
  /** By place, so that a service that is renamed or moves back finds what it had. */
  readonly #claims = new Map<string, Claim>();
  /** Wanted, but their place or the name of their node is still another's. */
  readonly #waiting = new Map<string, Wanted>();
  /** What has an outgoing claim, or had one, by its key: looking for it in all claims is only worth it for these. */
  #moving: ReadonlySet<string> = new Set();
  readonly #stopping = new AbortController();
  readonly #tasks = new Set<Promise<void>>();

  constructor(deps: ClaimsDeps) {
    this.#deps = deps;
  }

  update(services: readonly Wanted[], expected: readonly ServiceRegistration[]): void {
    const wanted = this.#byPlace(services);
    this.#waiting.clear();
    for (const [key, one] of wanted) this.#want(key, one);
    // Whoever waits for a place cannot take over before it is free.
    const successors = [...wanted].filter(([key]) => this.#claims.has(key));
    const moving = [...expected, ...successors.map(([, { registration }]) => registration)];
    const movers = new Set(moving.map(moverKey));
    for (const [key, claim] of this.#claims) {
      if (wanted.has(key) || claim.state.kind === 'leaving') continue;
      if (movers.has(moverKey(claim.wanted.registration))) claim.state = { kind: 'outgoing' };
      else this.#leave(key, claim);
    }
    const outgoing = [...this.#claims.values()].filter(({ state }) => state.kind === 'outgoing');
    this.#moving = new Set(outgoing.map(({ wanted }) => moverKey(wanted.registration)));
    for (const [key, claim] of this.#claims) if (claim.service.isAnnounced) this.#succeed(key);
  }

  reconsider(): void {
    for (const { service, state } of this.#claims.values())
      if (state.kind !== 'leaving') service.reconsider();
  }

  async agreed(service: string | undefined, signal: AbortSignal): Promise<void> {
    const meant = [...this.#claims.values()].filter(
      ({ wanted }) => service === undefined || wanted.registration.service === service,
    );
    await Promise.all(
      meant.map(({ state, announcer, service }) =>
        // A service that leaves has stopped: its announcer alone knows.
        state.kind === 'leaving' ? announcer.agreed(signal) : service.agreed(signal),
      ),
    );
  }

  overdue(now: number): string[] {
    return [...this.#claims.values()].flatMap(({ state, service }) =>
      state.kind === 'leaving' ? [] : service.overdue(now),
    );
  }

  forgetStarts(): void {
    for (const { service } of this.#claims.values()) service.forgetStart();
  }

  async withdrawAll(signal: AbortSignal): Promise<void> {
    this.#waiting.clear();
    this.forgetStarts();
    const withdrawn = [...this.#claims.values()].map(async ({ service, announcer, wanted }) => {
      const stopped = service.stop();
      announcer.set(undefined);
      await stopped;
      try {
        await announcer.agreed(signal);
      } catch (error) {
        this.#notConfirmed(wanted, error);
      }
    });
    await Promise.all(withdrawn);
  }

  async stop(): Promise<void> {
    this.#waiting.clear();
    this.#stopping.abort();
    const claims = [...this.#claims.values()];
    this.#claims.clear();
    for (const { state } of claims) if (state.kind === 'leaving') state.wait.abort();
    await Promise.all([...claims.map(({ service }) => service.stop()), ...this.#tasks]);
    for (const { announcer } of claims) announcer.release();
  }

  status(): ServiceStatus[] {
    const claimed = [...this.#claims.values()].flatMap(({ wanted, service, state }): ServiceStatus[] =>
      state.kind === 'leaving' ? [] : [{ ...placeOf(wanted), role: state.kind, ...service.status() }],
    );
    const waiting = [...this.#waiting.values()].map((wanted) =>
      this.waitingStatus(wanted, 'its place, which is still taken'),
    );
    return [...claimed, ...waiting];
  }

  waitingStatus(wanted: Wanted, waitsFor: string): ServiceStatus {
    const { service, config } = wanted.registration;
    const overrides = this.#deps.situation.overrides();
    const override = overrides.weights.get(service);
    return {
      ...placeOf(wanted),
      role: 'waiting',
      waitsFor,
      health: 'unknown',
      announced: false,
      confirmed: true,
      drained: isDrained(overrides, service) ? ['operator'] : [],
      weight: {
        ...(config.weight === undefined ? {} : { configured: config.weight }),
        ...(override === undefined ? {} : { override }),
      },
      checks: [],
    };
  }

  /** The first of two services that want the same place gets it; the other one is set aside. */
  #byPlace(services: readonly Wanted[]): Map<string, Wanted> {
    const wanted = new Map<string, Wanted>();
    for (const one of services) {
      const key = placeKey(one);
      const first = wanted.get(key);
      if (first === undefined) wanted.set(key, one);
      else this.#refuse(one, { takenBy: first.registration.service });
    }
    return wanted;
  }

  #want(key: string, wanted: Wanted): void {
    const claim = this.#claims.get(key);
    if (claim === undefined) {
      this.#claim(key, wanted);
      return;
    }
    const successor = this.#reannounce(claim, wanted);
    if (claim.state.kind === 'leaving') {
      claim.state.wait.abort();
      claim.service = this.#start(key, claim.announcer, wanted);
    } else if (!isDeepStrictEqual(claim.wanted, wanted)) {
      claim.service.update(wanted.registration, successor);
    }
    claim.state = { kind: 'active' };
    claim.wanted = wanted;
  }

  /** Another way of writing needs another announcer, which replaces what the one before it wrote. */
  #reannounce(claim: Claim, wanted: Wanted): Announcer | undefined {
    const { announce } = wanted.registration.config;
    if (isDeepStrictEqual(claim.announcing, announce)) return undefined;
    claim.announcer.release();
    const successor = this.#announce(wanted, announce);
    claim.announcing = successor === undefined ? claim.announcing : announce;
    claim.announcer = successor ?? this.#announce(wanted, claim.announcing) ?? claim.announcer;
    return claim.announcer;
  }

  /** Undefined when somebody else has the place, or the name that its node would have. */
  #announce(wanted: Wanted, options: AnnounceOptions): Announcer | undefined {
    const { path, name, host, port } = placeOf(wanted);
    try {
      return this.#deps.registry.announce(path, { name, host, port }, options);
    } catch (error) {
      this.#refuse(wanted, { err: error });
      return undefined;
    }
  }

  #claim(key: string, wanted: Wanted): void {
    const { announce: announcing } = wanted.registration.config;
    const announcer = this.#announce(wanted, announcing);
    if (announcer === undefined) {
      this.#waiting.set(key, wanted);
      return;
    }
    this.#waiting.delete(key);
    const service = this.#start(key, announcer, wanted);
    this.#claims.set(key, { announcer, announcing, wanted, service, state: { kind: 'active' } });
  }

  #start(key: string, announcer: Announcer, { registration, host }: Wanted): Service {
    const { situation, spread, resolver, reports, createCheck } = this.#deps;
    const onAnnounced = () => this.#succeed(key);
    const optional = createCheck === undefined ? {} : { createCheck };
    return createService(
      { situation, host, announcer, onAnnounced, spread, resolver, reports, ...optional },
      registration,
    );
  }

  /** Once the registry has the successor, what went before it may leave. */
  #succeed(key: string): void {
    const claim = this.#claims.get(key);
    if (claim === undefined || this.#predecessors(claim).length === 0) return;
    this.#background(async () => {
      await claim.announcer.agreed(this.#stopping.signal);
      if (claim.state.kind !== 'active' || !claim.service.isAnnounced) return;
      for (const [key, other] of this.#predecessors(claim)) this.#leave(key, other);
    });
  }

  #predecessors({ wanted }: Claim): [string, Claim][] {
    const mover = moverKey(wanted.registration);
    if (!this.#moving.has(mover)) return [];
    return [...this.#claims].filter(
      ([, { state, wanted: other }]) => state.kind === 'outgoing' && moverKey(other.registration) === mover,
    );
  }

  #leave(key: string, claim: Claim): void {
    const wait = new AbortController();
    const { service, announcer, wanted } = claim;
    claim.state = { kind: 'leaving', wait };
    this.#forget(claim);
    this.#background(async () => {
      const stopped = service.stop();
      announcer.set(undefined);
      await stopped;
      try {
        await announcer.agreed(wait.signal);
      } catch (error) {
        if (!wait.signal.aborted) this.#notConfirmed(wanted, error);
      }
      // Wanted again in the meantime, or everything stops: then it is not ours to give up.
      if (wait.signal.aborted) return;
      this.#claims.delete(key);
      announcer.release();
      for (const [key, wanted] of this.#waiting) this.#claim(key, wanted);
    });
  }

  /** What is remembered of a service goes with its last place. */
  #forget(claim: Claim): void {
    const key = memoryKey(claim.wanted.registration);
    const isShared = [...this.#claims.values()].some(
      (other) => other.state.kind !== 'leaving' && memoryKey(other.wanted.registration) === key,
    );
    if (!isShared) this.#deps.situation.memory.note(key, {});
  }

  #background(task: () => Promise<void>): void {
    const running = task()
      .catch((error: unknown) => {
        if (!this.#stopping.signal.aborted) this.#deps.situation.log.error({ err: error }, 'handover failed');
      })
      .finally(() => this.#tasks.delete(running));
    this.#tasks.add(running);
  }

  #refuse(wanted: Wanted, facts: Readonly<Record<string, unknown>>): void {
    const { service, path, port } = placeOf(wanted);
    this.#deps.situation.log.error({ service, path, port, ...facts }, 'place is taken, service set aside');
  }

  #notConfirmed(wanted: Wanted, error: unknown): void {
    const { service, path, port } = placeOf(wanted);
    const facts = { service, path, port, reason: messageOf(error) };
    this.#deps.situation.log.warn(facts, 'withdrawal not confirmed');
  }
}

/** What stays the same when a service moves. Two containers of one service are no move of each other. */
function moverKey({ service, origin = '' }: ServiceRegistration): string {
  return `${service} ${origin}`;
}

function placeOf({ registration, host }: Wanted) {
  const { service, path, origin, config } = registration;
  const place = { service, path, name: host.name, host: host.address, port: config.port };
  return origin === undefined ? place : { ...place, origin };
}

function placeKey(wanted: Wanted): string {
  return `${wanted.registration.path} ${instanceId(placeOf(wanted))}`;
}
