import { createBackoff, type Instance, isTandemError, type Log, messageOf } from '@tandem/core';

import { createAgreement } from '../agreement.ts';
import type { Announcer } from '../registry.ts';
import {
  createReconciler,
  isAt,
  type Reconciler,
  type ReconcilerOptions,
  type Wanted,
} from './reconciler.ts';

export interface AnnouncerOptions extends Omit<ReconcilerOptions, 'signal' | 'onNodeEvent'> {
  /** How often a node that stands is written again. */
  readonly ttlMs: number | undefined;
  readonly onRelease: (left: { isEmpty: boolean }) => void;
  /** Uniform in [0, 1): hosts that start together must not renew together. */
  readonly random?: () => number;
}

/** How often a node that does not ring is looked at. */
const UNSEEN_MS = 500;
const RETRY = { baseMs: 100, maxMs: 5_000 };

/**
 * Level-triggered: reconciles what is wanted with what stands, and again whenever the session, the node or the wish
 * changes. What failed is tried again with pauses; what is in the way of a foreign node waits for that one to go.
 */
export function createAnnouncer(options: AnnouncerOptions): Announcer {
  return new LevelTriggeredAnnouncer(options);
}

class LevelTriggeredAnnouncer implements Announcer {
  readonly #options: AnnouncerOptions;
  readonly #log: Log;
  readonly #reconciler: Reconciler;
  readonly #backoff = createBackoff(RETRY);
  readonly #abort = new AbortController();
  readonly #unsubscribe: () => void;
  readonly #agreement = createAgreement();
  #wanted: Wanted = { said: false };
  /** Counts wishes and disturbances; reconciled when `#settled` has caught up. */
  #revision = 0;
  #settled = 0;
  #running = false;
  #retry: NodeJS.Timeout | undefined;
  #renewal: NodeJS.Timeout | undefined;
  #hasRenewed = false;

  constructor(options: AnnouncerOptions) {
    this.#options = options;
    const { host, port } = options.place;
    this.#log = options.log.child({ path: options.path, instance: `${host}:${port}` });
    this.#reconciler = createReconciler({
      ...options,
      log: this.#log,
      signal: this.#abort.signal,
      onNodeEvent: () => this.#disturb(),
    });
    this.#unsubscribe = options.session.subscribe((state) => {
      if (state.state === 'connected') this.#disturb();
    });
  }

  set(instance: Instance | undefined): void {
    if (instance !== undefined && !isAt(instance, this.#options.place)) {
      throw new TypeError('an announcer announces only the instance of its own place');
    }
    // It may be written much later; what the caller does to its own until then was not said.
    this.#wanted = { said: true, instance: structuredClone(instance) };
    this.#disturb();
  }

  agreed(signal: AbortSignal): Promise<void> {
    return this.isAgreed ? Promise.resolve() : this.#agreement.reached(signal);
  }

  get isAgreed(): boolean {
    return this.#settled === this.#revision;
  }

  release(): void {
    if (this.#abort.signal.aborted) return;
    this.#abort.abort(new Error('released'));
    this.#unsubscribe();
    clearTimeout(this.#retry);
    clearTimeout(this.#renewal);
    this.#reconciler.forgetWatch();
    const isWithdrawn = this.#wanted.said && this.#wanted.instance === undefined;
    this.#options.onRelease({ isEmpty: isWithdrawn && this.#settled === this.#revision });
  }

  #disturb(): void {
    if (!this.#wanted.said) return;
    this.#revision += 1;
    clearTimeout(this.#retry);
    void this.#loop();
  }

  async #loop(): Promise<void> {
    if (this.#running || this.#abort.signal.aborted) return;
    this.#running = true;
    try {
      while (this.#settled !== this.#revision && !this.#abort.signal.aborted) {
        const revision = this.#revision;
        const outcome = await this.#reconciler.reconcile(() => this.#wanted);
        this.#backoff.reset();
        if (outcome === 'agreed') this.#settled = revision;
        else if (this.#revision === revision) {
          // The node that is in the way rings when it changes, and a new session looks by itself.
          if (outcome === 'blocked-unseen') this.#retry = setTimeout(() => void this.#loop(), UNSEEN_MS);
          return;
        }
      }
      if (this.#settled !== this.#revision) return;
      this.#planRenewal();
      this.#agreement.reach();
    } catch (error) {
      this.#onFailure(error);
    } finally {
      this.#running = false;
    }
  }

  #onFailure(error: unknown): void {
    // The outcome of what was under way is unknown: look before acting again.
    this.#reconciler.doubt();
    if (this.#abort.signal.aborted || isTandemError(error, 'REGISTRY_CLOSED')) return;
    const retryMs = Math.round(this.#backoff.next());
    const wanted = this.#wanted.said && this.#wanted.instance !== undefined ? 'announced' : 'withdrawn';
    this.#log.warn({ wanted, err: messageOf(error), retryMs }, 'the registry did not take it, trying again');
    this.#retry = setTimeout(() => void this.#loop(), retryMs);
  }

  /** One at a time, and only from a node that stands: an outage makes one renewal late, not many. */
  #planRenewal(): void {
    const { ttlMs, random = Math.random } = this.#options;
    if (ttlMs === undefined) return;
    const isStanding = this.#wanted.said && this.#wanted.instance !== undefined;
    if (!isStanding) {
      clearTimeout(this.#renewal);
      this.#renewal = undefined;
      this.#hasRenewed = false;
    } else if (this.#renewal === undefined && !this.#abort.signal.aborted) {
      const waitMs = this.#hasRenewed ? ttlMs : ttlMs * random();
      this.#renewal = setTimeout(() => {
        this.#renewal = undefined;
        this.#hasRenewed = true;
        this.#reconciler.renew();
        this.#disturb();
      }, waitMs);
    }
  }
}
