import { mkdir } from 'node:fs/promises';
import path from 'node:path';

import { isTandemError, type Log, messageOf, sleep, systemErrorCode, TandemError } from '@tandem/core';

import type { HaproxyConfig } from '../config/haproxy.ts';
import { createStructureChooser, RETRY_REFUSED_MS, type StructureChooser } from './choose-structure.ts';
import { type ConfigFile, createConfigFile } from './config-file.ts';
import type { Desired } from './desired.ts';
import { adoptServers, type Membership, optionsInFile } from './membership.ts';
import { isGated, type Plan, planChanges, type ReloadReason, type Step } from './plan.ts';
import { createObserver, isSameWorker, type Observer } from './observe.ts';
import type { HaproxyProcess } from './process.ts';
import { renderParts, type RenderedParts } from './render.ts';
import { type ForeignHolds, RunningView } from './running-view.ts';
import { type Executed, executeSteps, type Running, type RunningIdentity } from './runtime.ts';
import type { StructureStore } from './structure-store.ts';
import type { SetAside } from './vet.ts';
import { createWorkers, type Workers } from './workers.ts';

/** Makes HAProxy, and the file on disk, what is desired; one call at a time. */
export interface Applier {
  /**
   * Brings the file and the running HAProxy to what is desired. The file comes first, but a great one, or a slow
   * disk, holds the runtime up for a few milliseconds at most; resolves when both are done. Rejects when it did not
   * work; the next call tries again. A structure that HAProxy refuses is set aside, and the last good one gets the
   * servers. A reload that would come too soon after another is left to a later call: it says when.
   */
  apply(desired: Desired, signal: AbortSignal): Promise<Applied>;
  /** Whether the file and HAProxy are as they were left. A fraction of a millisecond, now and then a full reading. */
  look(signal: AbortSignal): Promise<Look>;
  /** What an operator may want to see. */
  status(): ApplierStatus;
}

export interface ApplierStatus {
  /** Undefined while no HAProxy is known. */
  readonly running: RunningIdentity | undefined;
  readonly foreignHolds: ForeignHolds;
  /** Services that HAProxy cannot have as they are configured. */
  readonly setAside: readonly SetAside[];
  /** Why HAProxy refuses the configuration as a whole, while it does. */
  readonly complaint: string | undefined;
}

export type Applied = { readonly kind: 'done' } | { readonly kind: 'later'; readonly ms: number };

/** `due`: an apply has something to do that was begun before. `disturbed`: somebody else has changed something. */
export type Look = 'as-left' | 'due' | 'disturbed';

export interface ApplierDeps {
  readonly config: HaproxyConfig;
  readonly process: HaproxyProcess;
  readonly store: StructureStore;
  readonly log: Log;
  /** Told whenever the servers change that somebody else holds and whose hold is respected. */
  readonly onForeignHolds?: (holds: ForeignHolds) => void;
}

interface Chosen extends Desired, RenderedParts {}

/** What is being brought about, and the write of its file that goes on beside it. */
interface Work {
  readonly chosen: Chosen;
  readonly writing: Promise<void>;
}

const MIN_RELOAD_INTERVAL_MS = 1_000;
/** Reloads that do not bring about what they are for come ever more slowly. */
const MAX_RELOAD_INTERVAL_MS = 60_000;
/** A reload that fails may cost new connections for 2 s (HAProxy reference 3.3): not to be tried often. */
const RETRY_FAILED_RELOAD_MS = 10 * 60_000;
const MAX_ROUNDS = 5;
const MAX_UNANSWERED = 2;
const POLL_MS = 10;
/** How long the runtime waits for the file. */
const FILE_HEAD_START_MS = 5;

export function createApplier(deps: ApplierDeps): Applier {
  return new FileFirstApplier(deps);
}

class FileFirstApplier implements Applier {
  readonly #deps: ApplierDeps;
  readonly #workers: Workers;
  readonly #chooser: StructureChooser;
  readonly #observer: Observer;
  readonly #file: ConfigFile;
  /** Whether the last write has worked: after one that has not, the runtime waits for the next. */
  #isFileSound = false;
  /** The file that was there before this daemon wrote one. */
  #inherited: string | undefined;
  #inheritedOptions: ReadonlyMap<string, string> | undefined;
  #view: RunningView | undefined;
  /** The servers that HAProxy was left with. */
  #members: Membership = new Map();
  #reloadedAt = -Infinity;
  /** Reloads since all was last as desired. */
  #reloads = 0;
  /** How often in a row a master was there, and no worker. */
  #unanswered = 0;
  #toldHolds = '[]';

  constructor(deps: ApplierDeps) {
    this.#deps = deps;
    const { config } = deps;
    this.#workers = createWorkers(config.runtimeSocket);
    this.#observer = createObserver(config, this.#workers);
    this.#file = createConfigFile(config.configFile);
    const makeDirectories = () => this.#makeDirectories();
    this.#chooser = createStructureChooser({ ...deps, workers: this.#workers, makeDirectories });
  }

  async apply(desired: Desired, signal: AbortSignal): Promise<Applied> {
    const startedAt = performance.now();
    if (this.#view === undefined) await this.#prepare();
    const structure = await this.#chooser.choose(desired.structure, signal);
    const membership = await this.#complete({ structure, membership: desired.membership }, signal);
    const chosen = { structure, membership, ...renderParts(structure, membership) };
    // The file first, the runtime second: whatever happens in between, a HAProxy that restarts comes up right.
    const writing = this.#write(chosen);
    await this.#giveHeadStart(writing);
    const steps: Step[] = [];
    const applied = await this.#converge({ chosen, writing }, steps, signal);
    await writing;
    this.#members = membership;
    if (applied.kind === 'done') await this.#chooser.accept(structure);
    if (steps.length > 0) {
      const ms = Math.round((performance.now() - startedAt) * 10) / 10;
      this.#deps.log.info(
        { changes: steps.slice(0, 20).map(describeStep), count: steps.length, ms },
        'updated HAProxy',
      );
    }
    return applied;
  }

  async look(signal: AbortSignal): Promise<Look> {
    if (this.#chooser.isRetryDue()) return 'due';
    const view = this.#view;
    if (view === undefined || view.isInDoubt || !(await this.#file.isIntact())) return 'disturbed';
    try {
      const identity = await this.#workers.identity(signal);
      if (!isSameWorker(identity, view.identity)) return this.#lose();
      if (this.#observer.isCompareDue() && (await this.#observer.compare(view, this.#members, signal)))
        return this.#tellHolds(view) ? 'due' : 'disturbed';
      return (await this.#observer.tend(view, this.#members, signal)) ? 'due' : 'as-left';
    } catch (error) {
      signal.throwIfAborted();
      if (!isTandemError(error, 'HAPROXY_UNREACHABLE')) throw error;
      return this.#lose();
    }
  }

  status(): ApplierStatus {
    const { setAside, complaint } = this.#chooser;
    const foreignHolds = this.#view?.foreignHolds ?? new Map();
    return { running: this.#view?.identity, foreignHolds, setAside, complaint };
  }

  #lose(): Look {
    this.#view = undefined;
    return 'disturbed';
  }

  /** Tells who is held by somebody else, if that has changed. */
  #tellHolds({ foreignHolds }: RunningView): boolean {
    const text = JSON.stringify([...foreignHolds].map(([backend, names]) => [backend, [...names]]));
    if (text === this.#toldHolds) return false;
    this.#toldHolds = text;
    this.#deps.onForeignHolds?.(
      new Map([...foreignHolds].map(([backend, names]) => [backend, new Map(names)])),
    );
    return true;
  }

  /** What a daemon that has just started has to find out. */
  async #prepare(): Promise<void> {
    await this.#makeDirectories();
    if (this.#chooser.good !== undefined) return;
    this.#inherited ??= await this.#file.read();
    await this.#chooser.load();
  }

  /** They may be on a file system that does not outlive everything that this daemon does. */
  async #makeDirectories(): Promise<void> {
    const { configFile, runtimeSocket, masterSocket } = this.#deps.config;
    const directories = new Set([configFile, runtimeSocket, masterSocket].map((file) => path.dirname(file)));
    for (const directory of directories) await mkdir(directory, { recursive: true, mode: 0o750 });
  }

  async #write({ parts }: RenderedParts): Promise<void> {
    try {
      await this.#file.write(parts);
      this.#isFileSound = true;
    } catch (error) {
      this.#isFileSound = false;
      throw error;
    }
  }

  async #giveHeadStart(writing: Promise<void>): Promise<void> {
    if (!this.#isFileSound || this.#view === undefined) return writing;
    let timer: NodeJS.Timeout | undefined;
    const isOver = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, FILE_HEAD_START_MS);
    });
    try {
      await Promise.race([writing, isOver]);
    } finally {
      clearTimeout(timer);
    }
    // Whoever waits for it later sees its failure; until then it is nobody's unhandled rejection.
    writing.catch(() => {});
  }

  /**
   * A service of which nothing is known, because the registry has not spoken yet or the structure that goes without it
   * was refused, keeps the servers that HAProxy has: the file must not lose them.
   */
  async #complete(desired: Desired, signal: AbortSignal): Promise<Membership> {
    const { structure, membership } = desired;
    if (structure.proxies.every(({ name }) => membership.has(name))) return membership;
    const isKnown = this.#view !== undefined && !this.#view.isInDoubt;
    const backends = isKnown ? this.#view?.backends : (await this.#workers.look(signal))?.backends;
    if (backends !== undefined) {
      this.#inheritedOptions ??= optionsInFile(this.#inherited ?? '');
      return adoptServers(desired, backends, this.#members, this.#inheritedOptions);
    }
    // HAProxy is gone: it comes back with what it had when it was last seen.
    return new Map([...this.#members, ...membership]);
  }

  /** What was tried has not worked: a HAProxy that restarts now has to come up with what ran before. */
  async #putBack({ membership }: Desired): Promise<void> {
    const { good } = this.#chooser;
    if (good !== undefined) await this.#file.write(renderParts(good.structure, membership).parts);
    else if (this.#inherited !== undefined) await this.#file.write([Buffer.from(this.#inherited)]);
  }

  /** Starts HAProxy unless it runs. A daemon that has just started learns here whose HAProxy it is. */
  async #ensureRunning(chosen: Chosen, signal: AbortSignal): Promise<void> {
    await this.#makeDirectories();
    const startedAt = performance.now();
    if ((await this.#deps.process.ensure(signal)) === 'found') return;
    try {
      await this.#await((identity) => identity.mark === chosen.mark, signal);
    } catch (error) {
      signal.throwIfAborted();
      const { good } = this.#chooser;
      if (good !== undefined && good.mark !== chosen.mark) {
        this.#chooser.refuse(chosen.mark, messageOf(error), RETRY_REFUSED_MS);
        await this.#putBack(chosen);
      }
      throw new TandemError('HAPROXY_UNREACHABLE', `HAProxy does not start: ${messageOf(error)}`, {
        cause: error,
      });
    }
    this.#deps.log.info({ ms: Math.round(performance.now() - startedAt) }, 'HAProxy serves');
  }

  /** What runs, known beyond doubt. */
  async #learn({ chosen, writing }: Work, signal: AbortSignal): Promise<RunningView> {
    if (this.#view?.isInDoubt === true) {
      const view = this.#view;
      try {
        await this.#observer.compare(view, chosen.membership, signal);
        this.#tellHolds(view);
        return view;
      } catch (error) {
        signal.throwIfAborted();
        if (!isTandemError(error, 'HAPROXY_UNREACHABLE')) throw error;
        this.#view = undefined;
      }
    }
    if (this.#view !== undefined) return this.#view;
    await writing;
    await this.#ensureRunning(chosen, signal);
    const view = new RunningView(await this.#firstReading(chosen, signal));
    this.#view = view;
    this.#tellHolds(view);
    return view;
  }

  /**
   * A master that was told to reload just when it had lost its worker lives on without one, and waits for the next
   * reload: nobody listens on the runtime socket then, however often it is asked.
   */
  async #firstReading({ membership }: Chosen, signal: AbortSignal): Promise<Running> {
    try {
      const running = await this.#observer.read(membership, signal);
      this.#unanswered = 0;
      return running;
    } catch (error) {
      signal.throwIfAborted();
      const isRefused = error instanceof Error && systemErrorCode(error.cause) === 'ECONNREFUSED';
      this.#unanswered = isRefused ? this.#unanswered + 1 : 0;
      const isTime = performance.now() > this.#reloadedAt + this.#reloadIntervalMs();
      if (this.#unanswered >= MAX_UNANSWERED && isTime) {
        const reason: ReloadReason = { kind: 'no-worker' };
        this.#deps.log.info({ reason }, 'reloading HAProxy');
        this.#reloads += 1;
        this.#reloadedAt = performance.now();
        await this.#deps.process.requestReload(signal);
      }
      throw error;
    }
  }

  /** @param taken gets every step that was taken */
  async #converge(work: Work, taken: Step[], signal: AbortSignal): Promise<Applied> {
    const { chosen } = work;
    let refusals = 0;
    for (let round = 0; round < MAX_ROUNDS; round += 1) {
      const view = await this.#learn(work, signal);
      const running = { ...view.identity, backends: view.backends };
      const plan = planChanges(running, chosen, view.circumstances());
      let { reload } = plan;
      const executed = await this.#execute(plan, view, chosen, signal);
      if (executed.kind === 'other-worker') {
        this.#view = undefined;
        continue;
      }
      if (executed.kind === 'refused') {
        view.doubt();
        refusals += 1;
        this.#deps.log.warn({ replies: executed.replies }, 'HAProxy refused a part of an update');
        if (refusals < 2) continue;
        reload = { kind: 'update-refused', replies: executed.replies };
      } else {
        taken.push(...plan.steps.filter((step) => !executed.untaken.includes(step)));
        view.advance(plan, chosen.membership, executed.untaken);
        this.#tellHolds(view);
      }
      if (reload === undefined) {
        this.#reloads = 0;
        return { kind: 'done' };
      }
      const waitMs = this.#reloadedAt + this.#reloadIntervalMs() - performance.now();
      if (waitMs > 0) return { kind: 'later', ms: Math.ceil(waitMs) };
      await this.#reload(reload, view.identity, work, signal);
    }
    throw new TandemError('HAPROXY_UNREACHABLE', `HAProxy is not as desired after ${MAX_ROUNDS} rounds`);
  }

  /** A worker that is on its way out has lost its place to another, which has not got these steps. */
  async #execute(plan: Plan, view: RunningView, chosen: Chosen, signal: AbortSignal): Promise<Executed> {
    if (plan.steps.length === 0) return { kind: 'done', untaken: [] };
    const proxies = new Map(chosen.structure.proxies.map((proxy) => [proxy.name, proxy]));
    for (const step of plan.steps) {
      if (step.kind !== 'add') continue;
      const proxy = proxies.get(step.backend);
      if (proxy?.firstCheckMs === undefined || !isGated(proxy, step.server)) continue;
      view.wait(step.backend, step.server.name, performance.now() + proxy.firstCheckMs);
    }
    // Until the answers are here, nobody knows what has been done.
    view.doubt();
    try {
      const executed = await executeSteps(this.#deps.config.runtimeSocket, plan.steps, view.identity, signal);
      if (executed.kind === 'done') view.trust();
      return executed;
    } catch (error) {
      signal.throwIfAborted();
      if (!isTandemError(error, 'HAPROXY_UNREACHABLE')) throw error;
      return { kind: 'other-worker' };
    }
  }

  #reloadIntervalMs(): number {
    return Math.min(MIN_RELOAD_INTERVAL_MS * 2 ** Math.max(0, this.#reloads - 1), MAX_RELOAD_INTERVAL_MS);
  }

  /** Serialised and rate-limited; believed only when a new worker shows the structure that was meant. */
  async #reload(
    reason: ReloadReason,
    before: RunningIdentity,
    { chosen, writing }: Work,
    signal: AbortSignal,
  ): Promise<void> {
    await writing;
    const startedAt = performance.now();
    this.#reloads += 1;
    this.#deps.log.info({ reason }, 'reloading HAProxy');
    this.#view = undefined;
    await this.#deps.process.requestReload(signal);
    try {
      await this.#await(
        (identity) => identity.incarnation !== before.incarnation && identity.mark === chosen.mark,
        signal,
      );
    } catch (error) {
      signal.throwIfAborted();
      this.#chooser.refuse(chosen.mark, messageOf(error), RETRY_FAILED_RELOAD_MS);
      await this.#putBack(chosen);
      throw new TandemError(
        'HAPROXY_RELOAD_FAILED',
        `HAProxy has not loaded the new configuration: ${messageOf(error)}`,
        { cause: error },
      );
    } finally {
      this.#reloadedAt = performance.now();
    }
    this.#workers.replace(before.incarnation);
    this.#deps.log.info(
      { reason: reason.kind, ms: Math.round(performance.now() - startedAt) },
      'reloaded HAProxy',
    );
  }

  async #await(isRight: (identity: RunningIdentity) => boolean, signal: AbortSignal): Promise<void> {
    const { reloadDeadlineMs } = this.#deps.config;
    const giveUpAt = performance.now() + reloadDeadlineMs;
    for (;;) {
      try {
        if (isRight(await this.#workers.identity(signal))) return;
      } catch (error) {
        if (signal.aborted) throw error;
      }
      if (!this.#deps.process.isRunning()) throw new TandemError('HAPROXY_UNREACHABLE', 'it has ended');
      if (performance.now() > giveUpAt)
        throw new TandemError('DEADLINE_EXCEEDED', `no worker with it within ${reloadDeadlineMs} ms`);
      await sleep(POLL_MS, signal);
    }
  }
}

function describeStep(step: Step): string {
  const name = step.kind === 'add' ? step.server.name : step.server;
  return `${step.kind} ${step.backend}/${name}`;
}
