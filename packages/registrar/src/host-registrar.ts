import path from 'node:path';

import {
  type AddressResolver,
  createAddressResolver,
  type HostConfig,
  type Log,
  messageOf,
  withDeadline,
} from '@tandem/core';
import type { Registry } from '@tandem/registry';

import { type Addresses, createAddresses } from './addresses.ts';
import { type HostSituation, memoryKey } from './announcing.ts';
import { createClaims, type Claims, type Wanted } from './claims.ts';
import { type Clock, systemClock } from './clock.ts';
import type { ServiceRegistration } from './config.ts';
import { createDrainFiles, type DrainFiles, type ReadDirectory } from './drain-files.ts';
import type { RegistrarSettings } from './host-config.ts';
import { createForgetfulMemory, type Memory, openMemory } from './memory.ts';
import { hasOverride, type Overrides, withDrain, withoutDrain, withWeight } from './overrides.ts';
import { createForgetfulStore, openOverridesStore, type OverridesStore } from './overrides-store.ts';
import { createSpread } from './pacing.ts';
import { createReports, type Reports } from './reports.ts';
import type { OverrideAnswer, Registrar, ServiceStatus } from './registrar.ts';
import type { CheckFactory } from './service.ts';
import { type Stalls, watchStalls } from './stalls.ts';
import { createHostThrottle } from './throttle.ts';

export interface RegistrarDeps {
  readonly host: HostConfig;
  readonly registry: Pick<Registry, 'announce' | 'withdrawUnclaimed'>;
  readonly log: Log;
  /** What the host file says for all services. Default: no drain file, no limits. */
  readonly settings?: Partial<Pick<RegistrarSettings, 'drainFile' | 'rateLimit' | 'flapDamping'>>;
  readonly clock?: Clock;
  /** Of the names that checks knock at, and that services are announced by. Default: the system's. */
  readonly resolver?: AddressResolver;
  /** Where services report themselves. Default: nowhere. */
  readonly reports?: Reports;
  readonly createCheck?: CheckFactory;
  readonly readDirectory?: ReadDirectory;
}

const FLUSH_LIMIT_MS = 2_000;
const MAX_WEIGHT = 256;

interface Stores {
  readonly overrides: OverridesStore;
  readonly memory: Memory;
}

/**
 * Starts with no services; the first whole `update` also withdraws what an earlier life announced and nobody wants now.
 * What operators want is forgotten with it.
 */
export function createRegistrar(deps: RegistrarDeps): Registrar {
  return new HostRegistrar(deps, { overrides: createForgetfulStore(), memory: createForgetfulMemory() });
}

/** The same, but it remembers in `stateDir` what operators want, and how services have fared. */
export async function openRegistrar(deps: RegistrarDeps & { readonly stateDir: string }): Promise<Registrar> {
  const { stateDir, log, clock = systemClock } = deps;
  const [overrides, memory] = await Promise.all([
    openOverridesStore(path.join(stateDir, 'registrar-overrides.json'), log),
    openMemory(path.join(stateDir, 'registrar-memory.json'), clock, log),
  ]);
  return new HostRegistrar(deps, { overrides, memory });
}

class HostRegistrar implements Registrar {
  readonly #deps: RegistrarDeps;
  readonly #clock: Clock;
  readonly #stores: Stores;
  readonly #claims: Claims;
  readonly #addresses: Addresses;
  readonly #drainFiles: DrainFiles;
  readonly #stalls: Stalls;
  /** What shall be registered, as it was said last. */
  #services: readonly ServiceRegistration[] = [];
  #isComplete = false;
  #hasSwept = false;
  /** Wanted, but nobody knows at which address. */
  #unresolved: readonly ServiceRegistration[] = [];
  #life: 'running' | 'ending' | 'closing' = 'running';

  constructor(deps: RegistrarDeps, stores: Stores) {
    const { host, registry, log, settings = {}, clock = systemClock, createCheck } = deps;
    const resolver = deps.resolver ?? createAddressResolver();
    this.#deps = deps;
    this.#clock = clock;
    this.#stores = stores;
    this.#stalls = watchStalls(clock);
    this.#addresses = createAddresses({
      resolver,
      memory: stores.memory,
      clock,
      log,
      onChange: () => this.#apply(),
    });
    this.#drainFiles = createDrainFiles({
      clock,
      log,
      onChange: () => this.#claims.reconsider(),
      readDirectory: deps.readDirectory,
    });
    const situation: HostSituation = {
      clock,
      log,
      memory: stores.memory,
      throttle: createHostThrottle(settings.rateLimit, clock, () =>
        log.info({ host: host.name }, 'the rate limit of the host would hold an announcement back'),
      ),
      drainFiles: this.#drainFiles,
      overrides: () => stores.overrides.overrides,
      isEnding: () => this.#life !== 'running',
      drainFile: settings.drainFile,
      flapDamping: settings.flapDamping,
      isLimited: settings.rateLimit !== undefined,
    };
    const optional = createCheck === undefined ? {} : { createCheck };
    this.#claims = createClaims({
      registry,
      situation,
      spread: createSpread(clock),
      resolver,
      reports: deps.reports ?? createReports(),
      ...optional,
    });
  }

  update(services: readonly ServiceRegistration[], options: { isComplete?: boolean } = {}): void {
    if (this.#life === 'closing') return;
    const { host, settings } = this.#deps;
    this.#services = services;
    this.#isComplete = options.isComplete !== false;
    const files = [settings?.drainFile, ...services.map(({ config }) => config.drainFile)];
    this.#drainFiles.want(new Set(files.filter((file) => file !== undefined)));
    this.#addresses.want(new Set(services.map(({ config }) => config.address ?? host.address)));
    this.#apply();
  }

  async drain(service: string | undefined): Promise<OverrideAnswer> {
    return this.#override(service, (overrides) => withDrain(overrides, service));
  }

  async undrain(service: string | undefined): Promise<OverrideAnswer> {
    return this.#override(service, (overrides) => withoutDrain(overrides, service), true);
  }

  async setWeight(service: string, weight: number | undefined): Promise<OverrideAnswer> {
    const isUndoing = weight === undefined;
    // What is remembered has to be readable again.
    if (!isUndoing && !(Number.isInteger(weight) && weight >= 0 && weight <= MAX_WEIGHT))
      throw new RangeError(`a weight is a whole number from 0 to ${MAX_WEIGHT}, not ${weight}`);
    return this.#override(service, (overrides) => withWeight(overrides, service, weight), isUndoing);
  }

  agreed(service: string | undefined, signal: AbortSignal): Promise<void> {
    return this.#claims.agreed(service, signal);
  }

  async beginShutdown(signal: AbortSignal): Promise<void> {
    if (this.#life === 'running') this.#life = 'ending';
    this.#claims.forgetStarts();
    this.#claims.reconsider();
    await this.#claims.agreed(undefined, signal);
  }

  overdue(): readonly string[] {
    const now = this.#clock.now();
    return this.#stalls.isRecent(now) ? [] : this.#claims.overdue(now);
  }

  async withdrawAll(signal: AbortSignal): Promise<void> {
    this.#close();
    await this.#claims.withdrawAll(signal);
    await this.#flush();
  }

  async stop(): Promise<void> {
    this.#close();
    await this.#claims.stop();
    await this.#flush();
  }

  status(): readonly ServiceStatus[] {
    const { host } = this.#deps;
    const unresolved = this.#unresolved.map((registration) => {
      const at = hostOf(registration, host);
      return this.#claims.waitingStatus({ registration, host: at }, `the address of ${at.address}`);
    });
    return [...this.#claims.status(), ...unresolved];
  }

  /** What is noted helps a successor; a disk that never answers must not keep anybody waiting for that. */
  async #flush(): Promise<void> {
    const { memory } = this.#stores;
    try {
      await withDeadline(undefined, FLUSH_LIMIT_MS, () => memory.flush());
    } catch (error) {
      this.#deps.log.warn({ err: messageOf(error) }, 'ending before everything was remembered');
    }
  }

  #close(): void {
    this.#life = 'closing';
    this.#addresses.stop();
    this.#drainFiles.stop();
    this.#stalls.stop();
  }

  /** What is wanted, as far as it is known where. */
  #apply(): void {
    if (this.#life === 'closing') return;
    const wanted: Wanted[] = [];
    const unresolved: ServiceRegistration[] = [];
    for (const registration of this.#services) {
      const host = hostOf(registration, this.#deps.host);
      const address = this.#addresses.of(host.address);
      if (address === undefined) unresolved.push(registration);
      else wanted.push({ registration, host: { ...host, address } });
    }
    this.#unresolved = unresolved;
    this.#claims.update(wanted, unresolved);
    // What an earlier life announced under an address that is not known yet must not go for that.
    if (this.#hasSwept || !this.#isComplete || unresolved.length > 0) return;
    this.#hasSwept = true;
    this.#stores.memory.keepOnly({
      services: new Set(this.#services.map(memoryKey)),
      names: new Set(this.#services.map((registration) => hostOf(registration, this.#deps.host).address)),
    });
    this.#deps.registry.withdrawUnclaimed();
  }

  /** @param isUndoing what is said of a service that is not configured right now may be taken back */
  async #override(
    service: string | undefined,
    change: (overrides: Overrides) => Overrides,
    isUndoing = false,
  ): Promise<OverrideAnswer> {
    const { overrides } = this.#stores;
    const names = [...new Set(this.#services.map((registration) => registration.service))].toSorted();
    const isKnown = service === undefined || names.includes(service);
    if (!isKnown && !(isUndoing && hasOverride(overrides.overrides, service)))
      return { ok: false, reason: 'unknown-service', candidates: names };
    const remembered = overrides.set(change(overrides.overrides));
    this.#claims.reconsider();
    return { ok: true, remembered: await remembered };
  }
}

/** The host as a service is announced. */
function hostOf({ config }: ServiceRegistration, host: HostConfig): HostConfig {
  return { ...host, name: config.instanceId ?? host.name, address: config.address ?? host.address };
}
