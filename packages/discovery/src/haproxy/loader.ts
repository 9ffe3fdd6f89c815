import { isTandemError, type Log, messageOf, systemErrorCode } from '@tandem/core';

import type { HaproxyConfig } from '../config/haproxy.ts';
import { RETRY_REFUSED_MS, type StructureChooser } from './choose-structure.ts';
import { backendsWithKeptHealth, createKeptHealth, type KeptHealth } from './kept-health.ts';
import type { LeftOut } from './left-out.ts';
import type { Membership } from './membership.ts';
import type { Kept } from './observe.ts';
import type { ReloadReason } from './plan.ts';
import type { HaproxyProcess } from './process.ts';
import { createRetryPace, type ReloadDeps, reloadIntervalMs, reloadTo, waitForStart } from './reload.ts';
import type { RenderedParts } from './render.ts';
import type { Running, RunningIdentity } from './runtime.ts';
import type { Structure } from './structure.ts';
import type { Workers } from './workers.ts';

/** Gets the file on disk loaded: by a HAProxy that starts, or by a new worker of the one that runs. */
export interface Loader {
  /** Clears away what a daemon that was killed has left. */
  prepare(): Promise<void>;
  /** Starts HAProxy unless it runs; false when that is somebody else's business. Rejects when it does not start. */
  ensureRunning(loaded: Loaded, signal: AbortSignal): Promise<boolean>;
  /**
   * The first reading of a worker. A master that was told to reload just when it had lost its worker lives on without
   * one, and waits for the next reload: nobody listens on the runtime socket then, however often it is asked.
   */
  readFirst(read: () => Promise<Running>, signal: AbortSignal): Promise<Running>;
  /** Believed only when a new worker shows the structure that was meant. Rejects when none does. */
  reload(order: ReloadOrder, signal: AbortSignal): Promise<void>;
  /** How long the next reload has to wait; not above 0 when it need not. */
  waitMs(): number;
  /** All is as desired: the next reload is the first again. */
  settle(): void;
}

/** What the file on disk says. */
interface Loaded extends RenderedParts {
  readonly structure: Structure;
  readonly membership: Membership;
}

interface ReloadOrder {
  readonly reason: ReloadReason;
  readonly before: RunningIdentity;
  readonly chosen: Loaded;
  /** What HAProxy was left with. */
  readonly kept: Kept;
}

interface LoaderDeps {
  readonly config: HaproxyConfig;
  readonly process: HaproxyProcess;
  readonly workers: Workers;
  readonly chooser: StructureChooser;
  readonly leftOut: LeftOut;
  readonly log: Log;
  readonly makeDirectories: () => Promise<void>;
  /** Makes the file what ran before, with these servers. */
  readonly putBack: (membership: Membership) => Promise<void>;
}

const MAX_UNANSWERED = 2;

export function createLoader(deps: LoaderDeps): Loader {
  return new PacedLoader(deps);
}

class PacedLoader implements Loader {
  readonly #deps: LoaderDeps;
  readonly #health: KeptHealth;
  readonly #retryPace = createRetryPace();
  #reloadedAt = -Infinity;
  /** Reloads since all was last as desired. */
  #reloads = 0;
  /** How often in a row a master was there, and no worker. */
  #unanswered = 0;

  constructor(deps: LoaderDeps) {
    this.#deps = deps;
    this.#health = createKeptHealth(deps.config.runtimeSocket, deps.log);
  }

  prepare(): Promise<void> {
    return this.#health.forget();
  }

  waitMs(): number {
    return this.#reloadedAt + reloadIntervalMs(this.#reloads) - performance.now();
  }

  settle(): void {
    this.#reloads = 0;
  }

  async ensureRunning(loaded: Loaded, signal: AbortSignal): Promise<boolean> {
    const { process, chooser, leftOut, log } = this.#deps;
    await this.#deps.makeDirectories();
    const startedAt = performance.now();
    const ensured = await process.ensure(signal);
    if (ensured !== 'started') return ensured === 'found';
    try {
      await waitForStart(loaded.mark, this.#reloadDeps(signal));
    } catch (error) {
      signal.throwIfAborted();
      const { good } = chooser;
      const isOfServers = leftOut.learn(messageOf(error), loaded, loaded.structure);
      if (!isOfServers && good !== undefined && good.mark !== loaded.mark) {
        chooser.refuse(loaded.mark, messageOf(error), RETRY_REFUSED_MS);
        await this.#deps.putBack(loaded.membership);
      }
      throw error;
    }
    log.info({ ms: Math.round(performance.now() - startedAt) }, 'HAProxy serves');
    return true;
  }

  async readFirst(read: () => Promise<Running>, signal: AbortSignal): Promise<Running> {
    try {
      const running = await read();
      this.#unanswered = 0;
      return running;
    } catch (error) {
      signal.throwIfAborted();
      const isRefused = error instanceof Error && systemErrorCode(error.cause) === 'ECONNREFUSED';
      this.#unanswered = isRefused ? this.#unanswered + 1 : 0;
      if (this.#unanswered >= MAX_UNANSWERED && this.waitMs() < 0) {
        this.#begin({ kind: 'no-worker' });
        this.#reloadedAt = performance.now();
        await this.#deps.process.requestReload(signal);
      }
      throw error;
    }
  }

  async reload({ reason, before, chosen, kept }: ReloadOrder, signal: AbortSignal): Promise<void> {
    const { chooser, leftOut, process, workers, log } = this.#deps;
    const startedAt = performance.now();
    this.#begin(reason);
    const checked = backendsWithKeptHealth(chooser.good?.structure, chosen.structure, kept.membership);
    try {
      await this.#health.keep(checked, signal);
      await reloadTo(chosen.mark, before, this.#reloadDeps(signal));
    } catch (error) {
      signal.throwIfAborted();
      // A master that could not even be asked has not died of it.
      const isFatal = isTandemError(error, 'HAPROXY_RELOAD_FAILED') && !process.isRunning();
      if (!leftOut.learn(messageOf(error), chosen, chosen.structure))
        chooser.refuse(chosen.mark, messageOf(error), this.#retryPace(chosen.mark, isFatal));
      await this.#deps.putBack(chosen.membership);
      throw error;
    } finally {
      await this.#health.forget();
      this.#reloadedAt = performance.now();
    }
    workers.replace(before.incarnation);
    log.info({ reason: reason.kind, ms: Math.round(performance.now() - startedAt) }, 'reloaded HAProxy');
  }

  #begin(reason: ReloadReason): void {
    this.#reloads += 1;
    this.#deps.log.info({ reason }, 'reloading HAProxy');
  }

  #reloadDeps(signal: AbortSignal): ReloadDeps {
    const { process, workers, config } = this.#deps;
    return { process, workers, deadlineMs: config.reloadDeadlineMs, signal };
  }
}
