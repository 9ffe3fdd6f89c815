import { mkdir } from 'node:fs/promises';
import path from 'node:path';

import { isTandemError, type Log, TandemError } from '@tandem/core';

import type { HaproxyConfig } from '../config/haproxy.ts';
import { createStructureChooser, type PartAside, type StructureChooser } from './choose-structure.ts';
import { type ConfigFile, createConfigFile } from './config-file.ts';
import type { Desired } from './desired.ts';
import { createLeftOut, type LeftOut } from './left-out.ts';
import { createLoader, type Loader } from './loader.ts';
import { adoptServers, type Membership, type ServersInFile, serversInFile } from './membership.ts';
import { describeStep, isGated, type Plan, planChanges, type Step } from './plan.ts';
import { createObserver, isSameWorker, type Kept, type Observer } from './observe.ts';
import type { ForeignHoldsStore } from './foreign-holds-store.ts';
import type { HaproxyProcess } from './process.ts';
import { renderParts, type RenderedParts } from './render.ts';
import { RespectedHolds } from './respected-holds.ts';
import { createRouting, openWorker, type Routing, type Worker } from './routing.ts';
import { type ForeignHolds, RunningView } from './running-view.ts';
import { type Executed, executeSteps, type RunningIdentity } from './runtime.ts';
import type { StructureStore } from './structure-store.ts';
import { mapFilesOf, type Structure } from './structure.ts';
import { type Limits, NO_LIMITS } from './vet.ts';
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
  /** Ends what goes on in the background; after the signal of the others was aborted. */
  end(): Promise<void>;
}

export interface ApplierStatus {
  /** Undefined while no HAProxy is known. */
  readonly running: RunningIdentity | undefined;
  readonly foreignHolds: ForeignHolds;
  /** What HAProxy cannot have as it is configured. */
  readonly setAside: readonly PartAside[];
  /** Why HAProxy refuses the configuration as a whole, while it does. */
  readonly complaint: string | undefined;
}

/** `awaiting`: the file is as desired, and somebody else has to start HAProxy. */
export type Applied =
  { readonly kind: 'done' } | { readonly kind: 'awaiting' } | { readonly kind: 'later'; readonly ms: number };

/** `due`: an apply has something to do that was begun before. `disturbed`: somebody else has changed something. */
export type Look = 'as-left' | 'due' | 'disturbed';

export interface ApplierDeps {
  readonly config: HaproxyConfig;
  readonly process: HaproxyProcess;
  readonly store: StructureStore;
  readonly foreignHolds: ForeignHoldsStore;
  readonly log: Log;
  /** Told whenever the servers change that somebody else holds and whose hold is respected. */
  readonly onForeignHolds?: (holds: ForeignHolds) => void;
}

interface Chosen extends Described, RenderedParts {}
type Described = Pick<Desired, 'structure' | 'membership' | 'routes' | 'holds'>;

/** What is being brought about, and the write of its file that goes on beside it. */
interface Work {
  readonly chosen: Chosen;
  readonly writing: Promise<void>;
}

const MAX_ROUNDS = 5;
/** A worker that has just taken steps needs not be asked who it is. */
const RECENT_MS = 200;
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
  readonly #routing: Routing;
  /** The file that was there before this daemon wrote one. */
  #inherited: string | undefined;
  #inheritedServers: ServersInFile | undefined;
  #view: RunningView | undefined;
  /** What HAProxy was left with. */
  #kept: Kept = { structure: undefined, membership: new Map() };
  readonly #respected: RespectedHolds;
  #limits: Limits = NO_LIMITS;
  readonly #leftOut: LeftOut;
  readonly #loader: Loader;
  /** Nothing is left to do until the owner of HAProxy starts it. */
  #isAwaiting = false;
  /** When the worker has last said that it is still the one. */
  #heardAt = -Infinity;

  constructor(deps: ApplierDeps) {
    this.#deps = deps;
    const { config } = deps;
    this.#workers = createWorkers(config.runtimeSocket);
    this.#observer = createObserver(config, this.#workers);
    this.#file = createConfigFile(config.configFile);
    this.#routing = createRouting(deps);
    this.#leftOut = createLeftOut(deps.log);
    const makeDirectories = () => this.#makeDirectories();
    this.#respected = new RespectedHolds(deps.foreignHolds, deps.onForeignHolds);
    this.#chooser = createStructureChooser({ ...deps, workers: this.#workers, makeDirectories });
    this.#loader = createLoader({
      ...deps,
      workers: this.#workers,
      chooser: this.#chooser,
      leftOut: this.#leftOut,
      makeDirectories,
      putBack: (membership) => this.#putBack(membership),
    });
  }

  async apply(desired: Desired, signal: AbortSignal): Promise<Applied> {
    const startedAt = performance.now();
    if (this.#view === undefined) await this.#prepare();
    const { good } = this.#chooser;
    // Before any text that names them, also one that is only to be checked.
    const inUse = good === undefined ? [] : mapFilesOf(good.structure);
    const former = desired.within(this.#limits).routes;
    await this.#routing.write(former, inUse);
    const { structure, limits } = await this.#chooser.choose(desired, signal);
    this.#limits = limits;
    const { routes, membership: wanted } = desired.within(limits);
    if (routes !== former) await this.#routing.write(routes, inUse);
    const described = { ...desired, structure, membership: wanted, routes };
    const membership = this.#leftOut.without(structure, await this.#complete(described, signal));
    await this.#respected.remember();
    const chosen = { structure, membership, routes, ...this.#render(structure, membership) };
    // The file first, the runtime second: whatever happens in between, a HAProxy that restarts comes up right.
    const writing = this.#file.write(chosen.parts);
    await (this.#view === undefined ? writing : this.#file.giveHeadStart(writing, FILE_HEAD_START_MS));
    const steps: Step[] = [];
    const applied = await this.#converge({ chosen, writing }, steps, signal);
    await writing;
    this.#isAwaiting = applied.kind === 'awaiting';
    this.#kept = { structure, membership };
    if (applied.kind === 'done') {
      await this.#chooser.accept(structure);
      await this.#routing.tidy([...routes.keys(), ...mapFilesOf(structure)]);
    }
    if (steps.length > 0) {
      const ms = Math.round((performance.now() - startedAt) * 10) / 10;
      this.#deps.log.info(
        { changes: steps.slice(0, 20).map(describeStep), count: steps.length, ms },
        'updated HAProxy',
      );
    }
    return applied;
  }

  status(): ApplierStatus {
    const { setAside, complaint } = this.#chooser;
    const foreignHolds = this.#view?.foreignHolds ?? new Map();
    return { running: this.#view?.identity, foreignHolds, setAside, complaint };
  }

  end(): Promise<void> {
    return this.#chooser.end();
  }

  async look(signal: AbortSignal): Promise<Look> {
    if (this.#isDue(signal)) return 'due';
    if (!(await this.#file.isIntact())) return 'disturbed';
    const view = this.#view;
    try {
      if (this.#isAwaiting) return (await this.#workers.look(signal)) === undefined ? 'as-left' : 'due';
      if (view === undefined || view.isInDoubt) return 'disturbed';
      if (this.#observer.isCompareDue()) {
        if (await this.#observer.compare(view, this.#kept, signal))
          return this.#respected.learn(view.foreignHolds) ? 'due' : 'disturbed';
      } else if (performance.now() > this.#heardAt + RECENT_MS) {
        if (!isSameWorker(await this.#workers.identity(signal), view.identity)) return this.#lose();
      }
      if (!(await this.#routing.isAsLeft(this.#worker(view.identity, signal)))) return 'disturbed';
      return (await this.#observer.tend(view, this.#kept.membership, signal)) ? 'due' : 'as-left';
    } catch (error) {
      signal.throwIfAborted();
      if (!isTandemError(error, 'HAPROXY_UNREACHABLE')) throw error;
      return this.#lose();
    }
  }

  #isDue(signal: AbortSignal): boolean {
    return this.#chooser.retry(signal) || this.#respected.isDue;
  }

  #lose(): Look {
    this.#view = undefined;
    return 'disturbed';
  }

  #render(structure: Structure, membership: Membership): RenderedParts {
    return renderParts(structure, this.#respected.over(membership));
  }

  /** What a daemon that has just started has to find out. */
  async #prepare(): Promise<void> {
    await this.#makeDirectories();
    await this.#loader.prepare();
    if (this.#deps.config.foreignHolds === 'respect') await this.#respected.recall();
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

  /**
   * A service of which nothing is known, because the registry has not spoken yet or the structure that goes without it
   * was refused, keeps the servers that HAProxy has: the file must not lose them.
   */
  async #complete(desired: Described, signal: AbortSignal): Promise<Membership> {
    const { structure, membership } = desired;
    if (structure.proxies.every(({ name }) => membership.has(name))) return membership;
    const isKnown = this.#view !== undefined && !this.#view.isInDoubt;
    const backends = isKnown ? this.#view?.backends : (await this.#workers.look(signal))?.backends;
    if (backends !== undefined) {
      this.#inheritedServers ??= serversInFile(this.#inherited ?? '');
      return adoptServers(desired, backends, this.#kept.membership, this.#inheritedServers);
    }
    // HAProxy is gone: it comes back with what it had when it was last seen.
    return new Map([...this.#kept.membership, ...membership]);
  }

  /** What was tried has not worked: a HAProxy that restarts now has to come up with what ran before. */
  async #putBack(membership: Membership): Promise<void> {
    const { good } = this.#chooser;
    const rest = good === undefined ? membership : this.#leftOut.without(good.structure, membership);
    if (good !== undefined) await this.#file.write(this.#render(good.structure, rest).parts);
    else if (this.#inherited !== undefined) await this.#file.write([Buffer.from(this.#inherited)]);
  }

  /** What runs, known beyond doubt; undefined when nothing does, and somebody else has to start it. */
  async #learn({ chosen, writing }: Work, signal: AbortSignal): Promise<RunningView | undefined> {
    if (this.#view?.isInDoubt === true) {
      const view = this.#view;
      try {
        await this.#observer.compare(view, chosen, signal);
        this.#respected.learn(view.foreignHolds);
        return view;
      } catch (error) {
        signal.throwIfAborted();
        if (!isTandemError(error, 'HAPROXY_UNREACHABLE')) throw error;
        this.#view = undefined;
      }
    }
    if (this.#view !== undefined) return this.#view;
    await writing;
    if (!(await this.#loader.ensureRunning(chosen, signal))) return undefined;
    const read = () => this.#observer.read(chosen.membership, signal);
    const view = new RunningView(await this.#loader.readFirst(read, signal));
    this.#view = view;
    view.inherit(this.#respected.holds, chosen.membership);
    view.waitAgain(chosen.structure, chosen.membership, performance.now());
    this.#respected.learn(view.foreignHolds);
    return view;
  }

  /** @param taken gets every step that was taken */
  async #converge(work: Work, taken: Step[], signal: AbortSignal): Promise<Applied> {
    const { chosen } = work;
    let refusals = 0;
    for (let round = 0; round < MAX_ROUNDS; round += 1) {
      const view = await this.#learn(work, signal);
      if (view === undefined) return { kind: 'awaiting' };
      const running = { ...view.identity, backends: view.backends };
      const plan = planChanges(running, chosen, view.circumstances());
      let { reload } = plan;
      const withdrawn = await this.#routing.withdraw(chosen.routes, this.#worker(view.identity, signal));
      const executed =
        withdrawn.kind === 'done' ? await this.#execute(plan, view, chosen, signal) : withdrawn;
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
        this.#respected.learn(view.foreignHolds);
      }
      if (reload === undefined) {
        const completed = await this.#routing.complete(chosen.routes, this.#worker(view.identity, signal));
        if (completed.kind === 'other-worker') this.#view = undefined;
        if (completed.kind !== 'done') continue;
        this.#loader.settle();
        return { kind: 'done' };
      }
      await this.#routing.lead(chosen.routes, this.#worker(view.identity, signal));
      const waitMs = this.#loader.waitMs();
      if (waitMs > 0) return { kind: 'later', ms: Math.ceil(waitMs) };
      await work.writing;
      this.#view = undefined;
      await this.#loader.reload({ reason: reload, before: view.identity, chosen, kept: this.#kept }, signal);
    }
    throw new TandemError('HAPROXY_UNREACHABLE', `HAProxy is not as desired after ${MAX_ROUNDS} rounds`);
  }

  #worker(identity: RunningIdentity, signal: AbortSignal): Worker {
    return openWorker(this.#deps.config.runtimeSocket, identity, signal);
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
      if (executed.kind === 'done') {
        view.trust();
        this.#heardAt = performance.now();
      }
      return executed;
    } catch (error) {
      signal.throwIfAborted();
      if (!isTandemError(error, 'HAPROXY_UNREACHABLE')) throw error;
      return { kind: 'other-worker' };
    }
  }
}
