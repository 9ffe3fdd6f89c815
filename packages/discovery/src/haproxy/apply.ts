import { readFile, rm } from 'node:fs/promises';

import {
  createBackoff,
  isTandemError,
  type Log,
  messageOf,
  sleep,
  sleepOrAborted,
  TandemError,
  writeFileAtomic,
} from '@tandem/core';

import type { HaproxyConfig } from '../config.ts';
import { adoptServers, type Membership, type Structure } from './model.ts';
import { planChanges, type ReloadReason, type Step } from './plan.ts';
import type { HaproxyProcess } from './process.ts';
import { renderConfig } from './render.ts';
import { executeSteps, readIdentity, readRunning, type Running, type RunningIdentity } from './runtime.ts';
import type { StructureStore } from './structure-store.ts';

/** What HAProxy shall be. */
export interface Desired {
  readonly structure: Structure;
  readonly membership: Membership;
}

/** Makes HAProxy, and the file on disk, what is desired; one apply at a time. */
export interface Applier {
  /**
   * Writes the file, brings the running HAProxy to it, and looks whether it worked. Rejects when it did not; the
   * next call tries again. A structure that HAProxy refuses is set aside, and the last good one gets the servers.
   */
  apply(desired: Desired, signal: AbortSignal): Promise<void>;
  /** Whether HAProxy is still the one that was last applied to. About 0.2 ms. */
  isUndisturbed(signal: AbortSignal): Promise<boolean>;
}

interface Chosen extends Desired {
  readonly mark: string;
  readonly text: string;
}

const MIN_RELOAD_INTERVAL_MS = 1_000;
const RETRY_REFUSED_MS = 30_000;
const MAX_ROUNDS = 5;
const POLL_MS = 10;

export function createApplier(deps: {
  config: HaproxyConfig;
  process: HaproxyProcess;
  store: StructureStore;
  log: Log;
}): Applier {
  return new FileFirstApplier(deps);
}

class FileFirstApplier implements Applier {
  readonly #config: HaproxyConfig;
  readonly #process: HaproxyProcess;
  readonly #store: StructureStore;
  readonly #log: Log;
  /** The last structure that HAProxy has really run. */
  #good: { readonly structure: Structure; readonly mark: string } | undefined;
  /** The mark of a structure that passed `haproxy -c`. */
  #checked: string | undefined;
  #refused: { mark: string; at: number } | undefined;
  #written: string | undefined;
  #applied: RunningIdentity | undefined;
  #reloadedAt = -Infinity;

  constructor(deps: { config: HaproxyConfig; process: HaproxyProcess; store: StructureStore; log: Log }) {
    this.#config = deps.config;
    this.#process = deps.process;
    this.#store = deps.store;
    this.#log = deps.log;
  }

  async apply(desired: Desired, signal: AbortSignal): Promise<void> {
    const startedAt = performance.now();
    await this.#recall();
    const chosen = await this.#choose(await this.#complete(desired, signal), signal);
    await this.#write(chosen.text);
    await this.#ensureRunning(chosen, signal);
    const steps = await this.#converge(chosen, signal);
    if (this.#good?.mark !== chosen.mark) {
      this.#good = { structure: chosen.structure, mark: chosen.mark };
      await this.#store.save(chosen.structure);
    }
    if (steps.length > 0) {
      const ms = Math.round((performance.now() - startedAt) * 10) / 10;
      this.#log.info(
        { changes: steps.slice(0, 20).map(describeStep), count: steps.length, ms },
        'updated HAProxy',
      );
    }
  }

  async isUndisturbed(signal: AbortSignal): Promise<boolean> {
    try {
      const identity = await readIdentity(this.#config.runtimeSocket, signal);
      return identity.incarnation === this.#applied?.incarnation && identity.mark === this.#applied.mark;
    } catch (error) {
      if (signal.aborted) throw error;
      return false;
    }
  }

  async #recall(): Promise<void> {
    if (this.#applied !== undefined || this.#good !== undefined) return;
    const structure = await this.#store.load();
    if (structure !== undefined) this.#good = { structure, mark: renderConfig(structure, new Map()).mark };
  }

  /**
   * A service of which nothing is known, because the registry has not spoken yet, keeps the servers that HAProxy has:
   * the file must not lose them.
   */
  async #complete(desired: Desired, signal: AbortSignal): Promise<Desired> {
    if (desired.structure.proxies.every(({ name }) => desired.membership.has(name))) return desired;
    try {
      const running = await readRunning(this.#config.runtimeSocket, signal);
      return { ...desired, membership: adoptServers(desired, running.backends) };
    } catch (error) {
      signal.throwIfAborted();
      if (!isTandemError(error, 'HAPROXY_UNREACHABLE')) throw error;
      return desired;
    }
  }

  /** The desired structure if HAProxy takes it, else the last good one; with the desired servers in either case. */
  async #choose(desired: Desired, signal: AbortSignal): Promise<Chosen> {
    const wanted = { ...desired, ...renderConfig(desired.structure, desired.membership) };
    if (wanted.mark === this.#checked) return wanted;
    const isRefused =
      this.#refused?.mark === wanted.mark && performance.now() - this.#refused.at < RETRY_REFUSED_MS;
    if (!isRefused) {
      const complaint = await this.#check(wanted.text, signal);
      if (complaint === undefined) {
        this.#checked = wanted.mark;
        return wanted;
      }
      this.#refuse(wanted.mark);
      const remedy =
        this.#good === undefined ? 'nothing to fall back on' : 'going on with the last good structure';
      this.#log.error({ complaint, remedy }, 'HAProxy refuses the configuration');
      if (this.#good === undefined) {
        throw new TandemError('HAPROXY_REJECTED', `HAProxy refuses the configuration: ${complaint}`);
      }
    }
    if (this.#good === undefined)
      throw new TandemError('HAPROXY_REJECTED', 'HAProxy has refused the configuration');
    const { membership } = desired;
    const { structure } = this.#good;
    return { structure, membership, ...renderConfig(structure, membership) };
  }

  async #check(text: string, signal: AbortSignal): Promise<string | undefined> {
    const candidate = `${this.#config.configFile}.candidate`;
    await writeFileAtomic(candidate, text, { mode: 0o640 });
    try {
      return await this.#process.check(candidate, signal);
    } finally {
      await rm(candidate, { force: true });
    }
  }

  #refuse(mark: string): void {
    this.#refused = { mark, at: performance.now() };
    if (this.#checked === mark) this.#checked = undefined;
  }

  /** The file first, the runtime second: whatever happens in between, a HAProxy that restarts comes up right. */
  async #write(text: string): Promise<void> {
    this.#written ??= await readFile(this.#config.configFile, 'utf8').catch(() => undefined);
    if (this.#written === text) return;
    await writeFileAtomic(this.#config.configFile, text, { mode: 0o640 });
    this.#written = text;
  }

  async #ensureRunning(chosen: Chosen, signal: AbortSignal): Promise<void> {
    try {
      await readIdentity(this.#config.runtimeSocket, signal);
      // A daemon that has just started learns here whose HAProxy it is.
      if (this.#applied !== undefined) return;
    } catch (error) {
      signal.throwIfAborted();
      if (!isTandemError(error, 'HAPROXY_UNREACHABLE')) throw error;
      // The file may have gone with the directory that it stood in.
      this.#written = undefined;
      await this.#write(chosen.text);
    }
    const startedAt = performance.now();
    if ((await this.#process.ensure(signal)) === 'found') return;
    await this.#await((identity) => identity.mark === chosen.mark, signal);
    this.#log.info({ ms: Math.round(performance.now() - startedAt) }, 'HAProxy serves');
  }

  async #converge(chosen: Chosen, signal: AbortSignal): Promise<readonly Step[]> {
    const taken: Step[] = [];
    let refusals = 0;
    for (let round = 0; round < MAX_ROUNDS; round += 1) {
      const running = await this.#readRunning(signal);
      const plan = planChanges(running, chosen);
      if (plan.kind === 'reload') {
        await this.#reload(plan.reason, running, chosen, signal);
        continue;
      }
      if (plan.steps.length === 0) {
        this.#applied = running;
        return taken;
      }
      const executed = await executeSteps(this.#config.runtimeSocket, plan.steps, running, signal);
      taken.push(...plan.steps);
      if (executed.kind !== 'refused') continue;
      refusals += 1;
      this.#log.warn({ replies: executed.replies }, 'HAProxy refused a part of an update');
      if (refusals >= 2) {
        await this.#reload({ kind: 'update-refused', replies: executed.replies }, running, chosen, signal);
      }
    }
    throw new TandemError('HAPROXY_UNREACHABLE', `HAProxy is not as desired after ${MAX_ROUNDS} rounds`);
  }

  /** A worker may just be taking over from another. */
  async #readRunning(signal: AbortSignal): Promise<Running> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await readRunning(this.#config.runtimeSocket, signal);
      } catch (error) {
        if (signal.aborted || attempt === 5) throw error;
        await sleep(POLL_MS * attempt, signal);
      }
    }
  }

  /** Serialised and rate-limited; believed only when a new worker shows the structure that was meant. */
  async #reload(
    reason: ReloadReason,
    before: RunningIdentity,
    chosen: Chosen,
    signal: AbortSignal,
  ): Promise<void> {
    await sleep(Math.max(0, this.#reloadedAt + MIN_RELOAD_INTERVAL_MS - performance.now()), signal);
    const startedAt = performance.now();
    this.#log.info({ reason }, 'reloading HAProxy');
    await this.#process.requestReload(signal);
    try {
      await this.#await(
        (identity) => identity.incarnation !== before.incarnation && identity.mark === chosen.mark,
        signal,
      );
    } catch (error) {
      signal.throwIfAborted();
      this.#refuse(chosen.mark);
      throw new TandemError(
        'HAPROXY_RELOAD_FAILED',
        `HAProxy has not loaded the new configuration: ${messageOf(error)}`,
        { cause: error },
      );
    } finally {
      this.#reloadedAt = performance.now();
    }
    this.#log.info(
      { reason: reason.kind, ms: Math.round(performance.now() - startedAt) },
      'reloaded HAProxy',
    );
  }

  async #await(isRight: (identity: RunningIdentity) => boolean, signal: AbortSignal): Promise<void> {
    const giveUpAt = performance.now() + this.#config.reloadDeadlineMs;
    for (;;) {
      try {
        if (isRight(await readIdentity(this.#config.runtimeSocket, signal))) return;
      } catch (error) {
        if (signal.aborted) throw error;
      }
      if (performance.now() > giveUpAt) {
        throw new TandemError(
          'DEADLINE_EXCEEDED',
          `no worker with it within ${this.#config.reloadDeadlineMs} ms`,
        );
      }
      await sleep(POLL_MS, signal);
    }
  }
}

function describeStep(step: Step): string {
  const name = step.kind === 'add' ? step.server.name : step.server;
  return `${step.kind} ${step.backend}/${name}`;
}

const WATCH_MS = 250;
const FULL_CHECK_MS = 10_000;

/**
 * Keeps HAProxy as desired until the signal is aborted: applies what is new, looks every 250 ms whether the worker is
 * still the same, and compares everything every 10 s. Failures are logged and tried again; they never end the loop.
 */
export async function keepApplied(deps: {
  applier: Applier;
  desired: () => Desired | undefined;
  changes: AsyncIterable<unknown>;
  look: () => void;
  log: Log;
  signal: AbortSignal;
  onApplied: () => void;
}): Promise<void> {
  const { applier, changes, log, signal } = deps;
  const backoff = createBackoff({ baseMs: 100, maxMs: 5_000 });
  const timer = setInterval(deps.look, WATCH_MS);
  let applied: Desired | undefined;
  let appliedAt = -Infinity;
  try {
    for await (const _ of changes) {
      const desired = deps.desired();
      if (desired === undefined) continue;
      try {
        const isDue = desired !== applied || performance.now() - appliedAt > FULL_CHECK_MS;
        if (!isDue && (await applier.isUndisturbed(signal))) continue;
        if (!isDue) log.warn({}, 'HAProxy is not the one that was left, looking after it');
        await applier.apply(desired, signal);
        applied = desired;
        appliedAt = performance.now();
        backoff.reset();
        deps.onApplied();
      } catch (error) {
        if (signal.aborted) return;
        applied = undefined;
        const retryMs = Math.round(backoff.next());
        log.error(
          { err: messageOf(error), code: isTandemError(error) ? error.code : undefined, retryMs },
          'cannot bring HAProxy to the desired state, trying again',
        );
        if (await sleepOrAborted(retryMs, signal)) return;
        deps.look();
      }
    }
  } finally {
    clearInterval(timer);
  }
}
