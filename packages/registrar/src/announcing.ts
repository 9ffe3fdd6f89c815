import { isDeepStrictEqual } from 'node:util';

import type { HostConfig, Instance, Log } from '@tandem/core';
import type { Announcer } from '@tandem/registry';

import { announcementOf, type Circumstances } from './announcement.ts';
import type { Clock } from './clock.ts';
import type { ServiceRegistration } from './config.ts';
import type { DrainFiles } from './drain-files.ts';
import type { FlapDamping } from './flap.ts';
import type { Verdict } from './health.ts';
import { createHistory, type History } from './history.ts';
import type { Memory } from './memory.ts';
import { isDrained, type Overrides } from './overrides.ts';
import type { DrainCause, ServiceStatus } from './registrar.ts';
import { type SlowStart, slowWeight } from './slow-start.ts';
import { createThrottle, type HostThrottle, type Throttle } from './throttle.ts';

/** What all services of a host have in common. */
export interface HostSituation {
  readonly clock: Clock;
  readonly log: Log;
  readonly memory: Memory;
  readonly throttle: HostThrottle;
  readonly drainFiles: DrainFiles;
  readonly overrides: () => Overrides;
  readonly isEnding: () => boolean;
  /** The drain file of the host. */
  readonly drainFile: string | undefined;
  /** Of services that do not say otherwise. */
  readonly flapDamping: FlapDamping | undefined;
  /** Announcements of all services are limited together. */
  readonly isLimited: boolean;
}

export interface AnnouncingDeps {
  readonly situation: HostSituation;
  /** The host as this service is announced: with its own name and address, if it has some. */
  readonly host: HostConfig;
  readonly announcer: Announcer;
  /** Called after an instance was given to the announcer. */
  readonly onAnnounced: () => void;
}

/** What stands in the registry because of one service at one place. */
export interface Announcing {
  /** Decides anew, because of what its checks say now or because of anything else. */
  consider(verdict: Verdict, registration: ServiceRegistration): void;
  /** Another announcer takes over, and is told what is known. */
  handOver(successor: Announcer): void;
  /** Whether the last word to the registry was an instance. */
  readonly isAnnounced: boolean;
  /** Resolves when the registry has confirmed what is meant now, though that had to wait. */
  agreed(signal: AbortSignal): Promise<void>;
  status(registration: ServiceRegistration): AnnouncingStatus;
  /** It leaves the rotation on purpose: when it comes back, it starts anew. */
  forgetStart(): void;
  /** Nothing is said any more. What stands in the registry stays. */
  stop(): void;
}

export type AnnouncingStatus = Pick<
  ServiceStatus,
  'announced' | 'confirmed' | 'drained' | 'weight' | 'flapHold' | 'rateLimitedForMs'
>;

export function createAnnouncing(deps: AnnouncingDeps, registration: ServiceRegistration): Announcing {
  return new ServiceAnnouncing(deps, registration);
}

/** By what the memory knows a service: several copies of one may run on a host. */
export function memoryKey({ service, config }: ServiceRegistration): string {
  return `${service} ${config.port}`;
}

class ServiceAnnouncing implements Announcing {
  readonly #deps: AnnouncingDeps;
  readonly #history: History;
  readonly #throttle: Throttle;
  readonly #waiting = new Set<() => void>();
  #announcer: Announcer;
  #verdict: Verdict = { health: 'unknown', isFirm: false };
  #registration: ServiceRegistration;
  /** The last word to the announcer; undecided while there was none. */
  #said: Instance | undefined | 'undecided' = 'undecided';
  /** The last word was less than the whole weight. */
  #isGrowing = false;
  /** What it is told next is not news to the registry. */
  #isKnownThere: boolean;
  /** Counts words, to tell whether there were some. */
  #words = 0;
  #isStopped = false;
  #cancelWake = () => {};

  constructor(deps: AnnouncingDeps, registration: ServiceRegistration) {
    const { clock, memory, log, throttle } = deps.situation;
    this.#deps = deps;
    this.#announcer = deps.announcer;
    this.#registration = registration;
    this.#history = createHistory({
      clock,
      memory,
      key: memoryKey(registration),
      onHold: ({ remainingMs, count }) => {
        const until = new Date(clock.wallNow() + remainingMs).toISOString();
        log.warn(
          { ...this.#facts(), holdMs: Math.round(remainingMs), until, count },
          'service flaps, holding it down',
        );
      },
    });
    this.#isKnownThere = this.#history.wasUpBefore;
    this.#throttle = createThrottle({
      host: throttle,
      clock,
      onTurn: () => this.#decide(),
      onShadow: () =>
        log.info(this.#facts(), 'the rate limit of the service would hold its announcement back'),
    });
  }

  consider(verdict: Verdict, registration: ServiceRegistration): void {
    this.#verdict = verdict;
    this.#registration = registration;
    this.#decide();
  }

  handOver(successor: Announcer): void {
    this.#announcer = successor;
    this.#isKnownThere = this.isAnnounced;
    this.#said = 'undecided';
  }

  get isAnnounced(): boolean {
    return this.#said !== undefined && this.#said !== 'undecided';
  }

  async agreed(signal: AbortSignal): Promise<void> {
    for (;;) {
      const words = this.#words;
      if (this.#isWaiting()) await this.#changed(signal);
      else await this.#announcer.agreed(signal);
      if (this.#isStopped || (words === this.#words && !this.#isWaiting())) return;
    }
  }

  status({ service, config }: ServiceRegistration): AnnouncingStatus {
    const { clock, overrides } = this.#deps.situation;
    const flapHold = this.#history.hold();
    const override = overrides().weights.get(service);
    const announced = this.#said === 'undecided' ? undefined : this.#said?.weight;
    const { waitingSince } = this.#throttle;
    return {
      announced: this.isAnnounced,
      confirmed: this.#announcer.isAgreed,
      drained: this.#drainCauses(),
      weight: {
        ...(config.weight === undefined ? {} : { configured: config.weight }),
        ...(override === undefined ? {} : { override }),
        ...(announced === undefined ? {} : { announced }),
      },
      ...(flapHold === undefined ? {} : { flapHold }),
      ...(waitingSince === undefined ? {} : { rateLimitedForMs: clock.now() - waitingSince }),
    };
  }

  forgetStart(): void {
    this.#history.forgetStart();
  }

  stop(): void {
    this.#isStopped = true;
    this.#cancelWake();
    this.#throttle.cancel();
    this.#ring();
  }

  #decide(): void {
    if (this.#isStopped) return;
    const { host } = this.#deps;
    const { config } = this.#registration;
    const circumstances = this.#circumstances();
    const wanted = announcementOf(this.#verdict, config, host, circumstances);
    this.#planWake(circumstances);
    if (wanted === 'undecided' || isDeepStrictEqual(wanted, this.#said)) this.#throttle.cancel();
    else if (wanted === undefined || this.#isFree(wanted) || this.#admit()) {
      this.#throttle.cancel();
      this.#isGrowing = circumstances.slowStart !== undefined;
      this.#say(wanted);
    }
    this.#ring();
  }

  #say(wanted: Instance | undefined): void {
    this.#said = wanted;
    this.#words += 1;
    this.#isKnownThere = false;
    this.#announcer.set(wanted);
    if (wanted !== undefined) this.#deps.onAnnounced();
  }

  /**
   * Neither what the registry knows already nor the steps of a slow start, which are few and follow from an announcement
   * that was paid for, take anything from the rate limits.
   */
  #isFree(wanted: Instance): boolean {
    if (this.#isKnownThere) return true;
    const said = this.#said;
    if (!this.#isGrowing || said === undefined || said === 'undecided') return false;
    return isDeepStrictEqual({ ...said, weight: 0 }, { ...wanted, weight: 0 });
  }

  #admit(): boolean {
    const wasWaiting = this.#throttle.waitingSince !== undefined;
    const isAdmitted = this.#throttle.admit(this.#registration.config.rateLimit);
    if (!isAdmitted && !wasWaiting)
      this.#deps.situation.log.info(this.#facts(), 'the announcement waits for the rate limit');
    return isAdmitted;
  }

  #circumstances(): Circumstances {
    const { overrides, flapDamping, isLimited } = this.#deps.situation;
    const { service, config } = this.#registration;
    const drained = this.#drain();
    const own = config.flapDamping ?? flapDamping;
    this.#history.note(this.#verdict, {
      damping: own === false ? undefined : own,
      isDrained: drained === true,
      keepsStart: isLimited || config.slowStartMs !== undefined || config.rateLimit !== undefined,
    });
    return {
      isDrained: drained,
      isHeld: this.#history.hold() !== undefined,
      weight: overrides().weights.get(service),
      slowStart: this.#slowStart(config.slowStartMs),
    };
  }

  #slowStart(durationMs: number | undefined): SlowStart | undefined {
    const elapsedMs = this.#history.upForMs();
    if (durationMs === undefined || elapsedMs === undefined || elapsedMs >= durationMs) return undefined;
    return { durationMs, elapsedMs };
  }

  #drainCauses(): DrainCause[] {
    const { overrides, isEnding } = this.#deps.situation;
    const causes: DrainCause[] = [];
    if (isDrained(overrides(), this.#registration.service)) causes.push('operator');
    if (this.#files().includes(true)) causes.push('file');
    if (isEnding()) causes.push('shutdown');
    return causes;
  }

  #drain(): boolean | 'undecided' {
    if (this.#drainCauses().length > 0) return true;
    return this.#files().includes(undefined) ? 'undecided' : false;
  }

  /** Whether each of its drain files exists. */
  #files(): (boolean | undefined)[] {
    const { drainFiles, drainFile } = this.#deps.situation;
    const own = this.#registration.config.drainFile;
    return [own, drainFile].flatMap((file) => (file === undefined ? [] : drainFiles.exists(file)));
  }

  /** Holds end and weights grow without anybody saying so. */
  #planWake({ isHeld, weight, slowStart }: Circumstances): void {
    this.#cancelWake();
    const whole = weight ?? this.#registration.config.weight;
    const holdMs = isHeld ? this.#history.hold()?.remainingMs : undefined;
    const growMs =
      slowStart === undefined || whole === undefined ? undefined : slowWeight(whole, slowStart).nextStepMs;
    const waitMs = holdMs ?? growMs;
    if (waitMs === undefined) return;
    this.#cancelWake = this.#deps.situation.clock.after(Math.ceil(waitMs), () => this.#decide());
  }

  #isWaiting(): boolean {
    return this.#throttle.waitingSince !== undefined || this.#drain() === 'undecided';
  }

  #changed(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        this.#waiting.delete(onChange);
        reject(signal.reason as Error);
      };
      const onChange = () => {
        signal.removeEventListener('abort', onAbort);
        resolve();
      };
      if (signal.aborted) onAbort();
      else {
        this.#waiting.add(onChange);
        signal.addEventListener('abort', onAbort, { once: true });
      }
    });
  }

  #ring(): void {
    for (const onChange of this.#waiting) onChange();
    this.#waiting.clear();
  }

  #facts(): { service: string; port: number } {
    return { service: this.#registration.service, port: this.#registration.config.port };
  }
}
