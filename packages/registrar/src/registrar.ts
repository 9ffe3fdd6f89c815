import { isDeepStrictEqual } from 'node:util';

import {
  type AddressResolver,
  createAddressResolver,
  type HostConfig,
  type Log,
  messageOf,
} from '@tandem/core';
import type { AnnounceOptions, Announcer, Registry } from '@tandem/registry';

import { placeKey, type ServiceRegistration } from './config.ts';
import type { Health } from './health.ts';
import { type Clock, systemClock } from './probe-loop.ts';
import { type CheckFactory, type CheckStatus, createService, type Service } from './service.ts';

export interface ServiceStatus {
  readonly service: string;
  readonly path: string;
  /** What it was found in if not in a service file, such as `container web-1 (4c91be4b51c3)`. */
  readonly origin?: string;
  readonly host: string;
  readonly port: number;
  readonly health: Health;
  /** Whether the registry was told of an instance. False while the health is still unknown after a start. */
  readonly announced: boolean;
  /** `outgoing` goes on only until its successor at another place is announced. */
  readonly role: 'active' | 'outgoing';
  readonly checks: readonly CheckStatus[];
}

/** The services of this host: probed, and announced while they are healthy. */
export interface Registrar {
  /**
   * What shall be registered from now on, as a whole. Only what differs from before is touched.
   * A service whose path or port has changed is announced at the new place before it leaves the old one.
   * `isComplete: false` says that a part could not be read: what an earlier life announced then stays until a whole
   * update comes, since it may belong to just that part.
   */
  update(services: readonly ServiceRegistration[], options?: { isComplete?: boolean }): void;
  /** Ends all probing and withdraws everything. Resolves when the registry has confirmed or the signal is aborted. */
  withdrawAll(signal: AbortSignal): Promise<void>;
  /** Ends all probing and leaves the registry as it is, for a successor to take over. */
  stop(): Promise<void>;
  status(): readonly ServiceStatus[];
}

export interface RegistrarDeps {
  readonly host: HostConfig;
  readonly registry: Pick<Registry, 'announce' | 'withdrawUnclaimed'>;
  readonly log: Log;
  readonly clock?: Clock;
  /** Of the names that checks knock at. Default: the system's. */
  readonly resolver?: AddressResolver;
  readonly createCheck?: CheckFactory;
}

/** One place in the registry that this registrar has claimed. */
interface Claim {
  announcer: Announcer;
  /** What the announcer was told of how to write. */
  announcing: AnnounceOptions;
  registration: ServiceRegistration;
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

/** Starts with no services; the first whole `update` also withdraws what an earlier life announced and nobody wants now. */
export function createRegistrar(deps: RegistrarDeps): Registrar {
  return new HostRegistrar(deps);
}

class HostRegistrar implements Registrar {
  readonly #deps: RegistrarDeps;
  /** By place, so that a service that is renamed or moves back finds what it had. */
  readonly #claims = new Map<string, Claim>();
  /** Wanted, but their place or the name of their node is still another's. */
  readonly #waiting = new Map<string, ServiceRegistration>();
  readonly #resolver: AddressResolver;
  readonly #stopping = new AbortController();
  readonly #tasks = new Set<Promise<void>>();
  #life: 'new' | 'running' | 'closing' = 'new';

  constructor(deps: RegistrarDeps) {
    this.#deps = deps;
    this.#resolver = deps.resolver ?? createAddressResolver();
  }

  update(services: readonly ServiceRegistration[], options: { isComplete?: boolean } = {}): void {
    if (this.#life === 'closing') return;
    const wanted = this.#byPlace(services);
    this.#waiting.clear();
    for (const [key, registration] of wanted) this.#want(key, registration);
    // Whoever waits for a place cannot take over before it is free.
    const successors = [...wanted].filter(([key]) => this.#claims.has(key));
    const movers = new Set(successors.map(([, registration]) => moverKey(registration)));
    for (const [key, claim] of this.#claims) {
      if (wanted.has(key) || claim.state.kind === 'leaving') continue;
      if (movers.has(moverKey(claim.registration))) claim.state = { kind: 'outgoing' };
      else this.#leave(key, claim);
    }
    for (const [key, claim] of this.#claims) if (claim.service.isAnnounced) this.#succeed(key);
    if (this.#life === 'running' || options.isComplete === false) return;
    this.#life = 'running';
    this.#deps.registry.withdrawUnclaimed();
  }

  async withdrawAll(signal: AbortSignal): Promise<void> {
    this.#life = 'closing';
    this.#waiting.clear();
    const claims = [...this.#claims.values()];
    const withdrawn = claims.map(async ({ service, announcer, registration }) => {
      const stopped = service.stop();
      announcer.set(undefined);
      await stopped;
      try {
        await announcer.agreed(signal);
      } catch (error) {
        this.#notConfirmed(registration, error);
      }
    });
    await Promise.all(withdrawn);
  }

  async stop(): Promise<void> {
    this.#life = 'closing';
    this.#waiting.clear();
    this.#stopping.abort();
    const claims = [...this.#claims.values()];
    this.#claims.clear();
    for (const { state } of claims) if (state.kind === 'leaving') state.wait.abort();
    await Promise.all([...claims.map(({ service }) => service.stop()), ...this.#tasks]);
    for (const { announcer } of claims) announcer.release();
  }

  status(): readonly ServiceStatus[] {
    return [...this.#claims.values()].flatMap(({ registration, service, state }) => {
      if (state.kind === 'leaving') return [];
      return {
        service: registration.service,
        path: registration.path,
        ...(registration.origin === undefined ? {} : { origin: registration.origin }),
        host: this.#deps.host.address,
        port: registration.config.port,
        health: service.health,
        announced: service.isAnnounced,
        role: state.kind,
        checks: service.checks(),
      };
    });
  }

  /** The first of two services that want the same place gets it; the other one is set aside. */
  #byPlace(services: readonly ServiceRegistration[]): Map<string, ServiceRegistration> {
    const wanted = new Map<string, ServiceRegistration>();
    for (const registration of services) {
      const key = placeKey(registration);
      const first = wanted.get(key);
      if (first === undefined) wanted.set(key, registration);
      else this.#refuse(registration, { takenBy: first.service });
    }
    return wanted;
  }

  #want(key: string, registration: ServiceRegistration): void {
    const claim = this.#claims.get(key);
    if (claim === undefined) {
      this.#claim(key, registration);
      return;
    }
    const successor = this.#reannounce(claim, registration);
    if (claim.state.kind === 'leaving') {
      claim.state.wait.abort();
      claim.service = this.#start(key, claim.announcer, registration);
    } else if (!isDeepStrictEqual(claim.registration, registration)) {
      claim.service.update(registration, successor);
    }
    claim.state = { kind: 'active' };
    claim.registration = registration;
  }

  /** Another way of writing needs another announcer, which replaces what the one before it wrote. */
  #reannounce(claim: Claim, registration: ServiceRegistration): Announcer | undefined {
    const { announce: wanted } = registration.config;
    if (isDeepStrictEqual(claim.announcing, wanted)) return undefined;
    claim.announcer.release();
    const successor = this.#announce(registration, wanted);
    claim.announcing = successor === undefined ? claim.announcing : wanted;
    claim.announcer = successor ?? this.#announce(registration, claim.announcing) ?? claim.announcer;
    return claim.announcer;
  }

  /** Undefined when somebody else has the place, or the name that its node would have. */
  #announce(registration: ServiceRegistration, options: AnnounceOptions): Announcer | undefined {
    const { host, registry } = this.#deps;
    const { path, config } = registration;
    const place = { name: host.name, host: host.address, port: config.port };
    try {
      return registry.announce(path, place, options);
    } catch (error) {
      this.#refuse(registration, { err: error });
      return undefined;
    }
  }

  #claim(key: string, registration: ServiceRegistration): void {
    const { announce: announcing } = registration.config;
    const announcer = this.#announce(registration, announcing);
    if (announcer === undefined) {
      this.#waiting.set(key, registration);
      return;
    }
    this.#waiting.delete(key);
    const service = this.#start(key, announcer, registration);
    this.#claims.set(key, { announcer, announcing, registration, service, state: { kind: 'active' } });
  }

  #start(key: string, announcer: Announcer, registration: ServiceRegistration): Service {
    const { host, log, clock = systemClock, createCheck } = this.#deps;
    const onAnnounced = () => this.#succeed(key);
    const optional = createCheck === undefined ? {} : { createCheck };
    return createService(
      { host, announcer, log, clock, resolver: this.#resolver, onAnnounced, ...optional },
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

  #predecessors({ registration }: Claim): [string, Claim][] {
    return [...this.#claims].filter(
      ([, { state, registration: other }]) =>
        state.kind === 'outgoing' && moverKey(other) === moverKey(registration),
    );
  }

  #leave(key: string, claim: Claim): void {
    const wait = new AbortController();
    const { service, announcer, registration } = claim;
    claim.state = { kind: 'leaving', wait };
    this.#background(async () => {
      const stopped = service.stop();
      announcer.set(undefined);
      await stopped;
      try {
        await announcer.agreed(wait.signal);
      } catch (error) {
        if (!wait.signal.aborted) this.#notConfirmed(registration, error);
      }
      // Wanted again in the meantime, or everything stops: then it is not ours to give up.
      if (wait.signal.aborted) return;
      this.#claims.delete(key);
      announcer.release();
      for (const [key, registration] of this.#waiting) this.#claim(key, registration);
    });
  }

  #background(task: () => Promise<void>): void {
    const running = task()
      .catch((error: unknown) => {
        if (!this.#stopping.signal.aborted) this.#deps.log.error({ err: error }, 'handover failed');
      })
      .finally(() => this.#tasks.delete(running));
    this.#tasks.add(running);
  }

  #refuse({ service, path, config }: ServiceRegistration, facts: Readonly<Record<string, unknown>>): void {
    this.#deps.log.error({ service, path, port: config.port, ...facts }, 'place is taken, service set aside');
  }

  #notConfirmed({ service, path, config }: ServiceRegistration, error: unknown): void {
    const facts = { service, path, port: config.port, reason: messageOf(error) };
    this.#deps.log.warn(facts, 'withdrawal not confirmed');
  }
}

/** What stays the same when a service moves. Two containers of one service are no move of each other. */
function moverKey({ service, origin = '' }: ServiceRegistration): string {
  return `${service} ${origin}`;
}
