import { mkdir, rm } from 'node:fs/promises';
import path from 'node:path';

import { isTandemError, type Log, messageOf, sleep, TandemError, writeFileAtomic } from '@tandem/core';

import type { HaproxyConfig } from '../config/haproxy.ts';
import { type ConfigFile, createConfigFile } from './config-file.ts';
import type { Desired } from './desired.ts';
import type { Endpoint } from './endpoints.ts';
import { adoptServers, type Membership } from './membership.ts';
import { planChanges, type ReloadReason, type Step } from './plan.ts';
import type { HaproxyProcess } from './process.ts';
import { markOf, renderConfig } from './render.ts';
import {
  askWorker,
  type Executed,
  executeSteps,
  requireSupported,
  type Running,
  type RunningIdentity,
} from './runtime.ts';
import { mapFilesOf, type Structure } from './structure.ts';
import type { StructureStore } from './structure-store.ts';
import { createRouting, type Routing, type RoutingOutcome, type Worker } from './routing.ts';
import { endpointsOf, type SetAside, vetStructure, whyTaken } from './vet.ts';
import { createWorkers, type Workers } from './workers.ts';

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
/** What `haproxy -c` refuses may be good later, when a file it names is there; asking costs nothing. */
const RETRY_REFUSED_MS = 30_000;
/** A port may be free again at any time. */
const RETRY_SET_ASIDE_MS = 5_000;
/** A reload that fails may cost new connections for 2 s (HAProxy reference 3.3): not to be tried often. */
const RETRY_FAILED_RELOAD_MS = 10 * 60_000;
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
  readonly #workers: Workers;
  /** The last structure that HAProxy has really run. */
  #good: { readonly structure: Structure; readonly mark: string } | undefined;
  /** The mark of a structure that passed `haproxy -c`. */
  #checked: string | undefined;
  #refused: { mark: string; until: number; complaint: string } | undefined;
  /** A structure without the services that had to be set aside, and the mark of the whole. */
  #partial: { readonly of: string; readonly structure: Structure; readonly until: number } | undefined;
  #complained = '[]';
  readonly #file: ConfigFile;
  readonly #routing: Routing = createRouting();
  /** The file that was there before this daemon wrote one. */
  #inherited: string | undefined;
  #applied: RunningIdentity | undefined;
  /** The servers that HAProxy was left with. */
  #members: Membership = new Map();
  #reloadedAt = -Infinity;

  constructor(deps: { config: HaproxyConfig; process: HaproxyProcess; store: StructureStore; log: Log }) {
    this.#config = deps.config;
    this.#process = deps.process;
    this.#store = deps.store;
    this.#log = deps.log;
    this.#workers = createWorkers(deps.config.runtimeSocket);
    this.#file = createConfigFile(deps.config.configFile);
  }

  async apply(desired: Desired, signal: AbortSignal): Promise<void> {
    const startedAt = performance.now();
    if (this.#applied === undefined) await this.#prepare();
    const { routes } = desired;
    await this.#routing.write(routes, this.#good === undefined ? [] : mapFilesOf(this.#good.structure));
    const structure = await this.#choose(desired.structure, signal);
    const membership = await this.#complete({ ...desired, structure }, signal);
    const chosen = { structure, membership, routes, ...renderConfig(structure, membership) };
    // The file first, the runtime second: whatever happens in between, a HAProxy that restarts comes up right.
    // To look at the runtime meanwhile changes nothing.
    const [running] = await Promise.all([this.#workers.look(signal), this.#file.write(chosen.text)]);
    const isKnown = running !== undefined && this.#applied !== undefined;
    if (!isKnown) await this.#ensureRunning(chosen, signal);
    const steps = await this.#converge(chosen, isKnown ? running : await this.#workers.read(signal), signal);
    this.#members = membership;
    if (this.#good?.mark !== chosen.mark) {
      this.#good = { structure: chosen.structure, mark: chosen.mark };
      await this.#store.save(chosen.structure);
      await this.#routing.tidy([...routes.keys(), ...mapFilesOf(chosen.structure)]);
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
      const identity = await this.#workers.identity(signal);
      const isSame =
        identity.incarnation === this.#applied?.incarnation && identity.mark === this.#applied.mark;
      return isSame && (await this.#routing.isAsLeft(this.#worker(identity, signal)));
    } catch (error) {
      if (signal.aborted) throw error;
      return false;
    }
  }

  /** What a daemon that has just started has to find out. */
  async #prepare(): Promise<void> {
    await this.#makeDirectories();
    if (this.#good !== undefined) return;
    this.#inherited ??= await this.#file.read();
    const stored = await this.#store.load();
    if (stored === undefined) return;
    const structure = { ...stored, runtimeSocket: this.#config.runtimeSocket };
    this.#good = { structure, mark: markOf(structure) };
  }

  /** They may be on a file system that does not outlive everything that this daemon does. */
  async #makeDirectories(): Promise<void> {
    const { configFile, runtimeSocket, masterSocket } = this.#config;
    const directories = new Set([configFile, runtimeSocket, masterSocket].map((file) => path.dirname(file)));
    for (const directory of directories) await mkdir(directory, { recursive: true, mode: 0o750 });
  }

  /**
   * A service of which nothing is known, because the registry has not spoken yet or the structure that goes without it
   * was refused, keeps the servers that HAProxy has: the file must not lose them.
   */
  async #complete(desired: Desired, signal: AbortSignal): Promise<Membership> {
    const { structure, membership } = desired;
    if (structure.proxies.every(({ name }) => membership.has(name))) return membership;
    const running = await this.#workers.look(signal);
    if (running !== undefined) return adoptServers(desired, running.backends);
    // HAProxy is gone: it comes back with what it had when it was last seen.
    return new Map([...this.#members, ...membership]);
  }

  /** The wanted structure as far as HAProxy can run it, else the last good one. */
  async #choose(wanted: Structure, signal: AbortSignal): Promise<Structure> {
    const mark = markOf(wanted);
    if (mark === this.#checked) return wanted;
    if (!(await this.#isRefused(mark, signal))) {
      const vetted = await this.#vet(wanted, mark, signal);
      if (vetted !== undefined && !(await this.#isRefused(markOf(vetted), signal))) return vetted;
    }
    if (this.#good === undefined) {
      const complaint = this.#refused?.complaint ?? '';
      throw new TandemError('HAPROXY_REJECTED', `HAProxy refuses the configuration: ${complaint}`);
    }
    return this.#good.structure;
  }

  async #vet(wanted: Structure, mark: string, signal: AbortSignal): Promise<Structure | undefined> {
    if (this.#partial?.of === mark && performance.now() < this.#partial.until) return this.#partial.structure;
    const vetted = await vetStructure(wanted, {
      good: this.#good?.structure,
      own: await this.#ownEndpoints(signal),
      check: (text) => this.#check(text, signal),
      whyTaken: (endpoint) => whyTaken(endpoint, this.#config.mode === 'managed'),
    });
    if (vetted.kind === 'refused') {
      this.#refuse(mark, vetted.complaint, RETRY_REFUSED_MS);
      const { complaint } = vetted;
      const remedy = 'going on with the last good structure';
      if (this.#good !== undefined)
        this.#log.error({ complaint, remedy }, 'HAProxy refuses the configuration');
      return undefined;
    }
    const { structure, setAside } = vetted;
    this.#checked = markOf(structure);
    const text = JSON.stringify(setAside);
    if (text !== this.#complained) {
      for (const one of setAside) this.#log.error(one, messageAside(one));
    }
    this.#complained = text;
    const until = performance.now() + RETRY_SET_ASIDE_MS;
    this.#partial = setAside.length === 0 ? undefined : { of: mark, structure, until };
    return structure;
  }

  /** Where HAProxy listens by itself; undefined when one runs whose structure is unknown. */
  async #ownEndpoints(signal: AbortSignal): Promise<readonly Endpoint[] | undefined> {
    if ((await this.#workers.look(signal)) === undefined) return [];
    return this.#good === undefined ? undefined : endpointsOf(this.#good.structure);
  }

  /** A worker that came too late to be waited for proves that its structure is good after all. */
  async #isRefused(mark: string, signal: AbortSignal): Promise<boolean> {
    if (this.#refused?.mark !== mark || performance.now() > this.#refused.until) return false;
    try {
      return (await this.#workers.identity(signal)).mark !== mark;
    } catch {
      signal.throwIfAborted();
      return true;
    }
  }

  async #check(text: string, signal: AbortSignal): Promise<string | undefined> {
    const candidate = `${this.#config.configFile}.candidate`;
    await this.#makeDirectories();
    await writeFileAtomic(candidate, text, { mode: 0o640 });
    try {
      return await this.#process.check(candidate, signal);
    } finally {
      await rm(candidate, { force: true });
    }
  }

  #refuse(mark: string, complaint: string, forMs: number): void {
    this.#refused = { mark, complaint, until: performance.now() + forMs };
    if (this.#checked === mark) this.#checked = undefined;
  }

  /** What was tried has not worked: a HAProxy that restarts now has to come up with what ran before. */
  async #putBack({ membership }: Desired): Promise<void> {
    const text =
      this.#good === undefined ? this.#inherited : renderConfig(this.#good.structure, membership).text;
    if (text !== undefined) await this.#file.write(text);
  }

  /** Starts HAProxy unless it runs. A daemon that has just started learns here whose HAProxy it is. */
  async #ensureRunning(chosen: Chosen, signal: AbortSignal): Promise<void> {
    await this.#makeDirectories();
    const startedAt = performance.now();
    if ((await this.#process.ensure(signal)) === 'found') return;
    try {
      await this.#await((identity) => identity.mark === chosen.mark, signal);
    } catch (error) {
      signal.throwIfAborted();
      if (this.#good !== undefined && this.#good.mark !== chosen.mark) {
        this.#refuse(chosen.mark, messageOf(error), RETRY_REFUSED_MS);
        await this.#putBack(chosen);
      }
      throw new TandemError('HAPROXY_UNREACHABLE', `HAProxy does not start: ${messageOf(error)}`, {
        cause: error,
      });
    }
    this.#log.info({ ms: Math.round(performance.now() - startedAt) }, 'HAProxy serves');
  }

  async #converge(chosen: Chosen, first: Running, signal: AbortSignal): Promise<readonly Step[]> {
    const taken: Step[] = [];
    let refusals = 0;
    for (let round = 0; round < MAX_ROUNDS; round += 1) {
      const running = round === 0 ? first : await this.#workers.read(signal);
      requireSupported(running.version);
      const plan = planChanges(running, chosen);
      if (plan.kind === 'reload') {
        await this.#reload(plan.reason, running, chosen, signal);
        continue;
      }
      const withdrawn = await this.#route('withdraw', chosen, running, signal);
      if (withdrawn.kind === 'done' && plan.steps.length === 0) {
        const completed = await this.#route('complete', chosen, running, signal);
        if (completed.kind !== 'done') continue;
        this.#applied = running;
        return taken;
      }
      if (withdrawn.kind !== 'done') continue;
      const executed = await this.#execute(plan.steps, running, signal);
      if (executed.kind === 'done') taken.push(...plan.steps);
      if (executed.kind !== 'refused') continue;
      refusals += 1;
      this.#log.warn({ replies: executed.replies }, 'HAProxy refused a part of an update');
      if (refusals >= 2) {
        await this.#reload({ kind: 'update-refused', replies: executed.replies }, running, chosen, signal);
      }
    }
    throw new TandemError('HAPROXY_UNREACHABLE', `HAProxy is not as desired after ${MAX_ROUNDS} rounds`);
  }

  #worker(identity: RunningIdentity, signal: AbortSignal): Worker {
    const { incarnation } = identity;
    return {
      incarnation,
      ask: (commands) => askWorker(this.#config.runtimeSocket, commands, identity, signal),
    };
  }

  /** The part of the maps that comes before servers change, or after. */
  async #route(
    stage: 'withdraw' | 'complete',
    { routes }: Chosen,
    running: RunningIdentity,
    signal: AbortSignal,
  ): Promise<RoutingOutcome> {
    try {
      const outcome = await this.#routing[stage](routes, this.#worker(running, signal));
      if (outcome.kind === 'done' && outcome.changes > 0)
        this.#log.info({ stage, count: outcome.changes }, "updated HAProxy's maps");
      if (outcome.kind === 'refused')
        this.#log.warn({ replies: outcome.replies }, 'HAProxy refused a part of an update of its maps');
      return outcome;
    } catch (error) {
      signal.throwIfAborted();
      if (!isTandemError(error, 'HAPROXY_UNREACHABLE')) throw error;
      return { kind: 'other-worker' };
    }
  }

  /** A worker that is on its way out has lost its place to another, which has not got these steps. */
  async #execute(steps: readonly Step[], running: Running, signal: AbortSignal): Promise<Executed> {
    try {
      return await executeSteps(this.#config.runtimeSocket, steps, running, signal);
    } catch (error) {
      signal.throwIfAborted();
      if (!isTandemError(error, 'HAPROXY_UNREACHABLE')) throw error;
      return { kind: 'other-worker' };
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
      this.#refuse(chosen.mark, messageOf(error), RETRY_FAILED_RELOAD_MS);
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
    this.#log.info(
      { reason: reason.kind, ms: Math.round(performance.now() - startedAt) },
      'reloaded HAProxy',
    );
  }

  async #await(isRight: (identity: RunningIdentity) => boolean, signal: AbortSignal): Promise<void> {
    const giveUpAt = performance.now() + this.#config.reloadDeadlineMs;
    for (;;) {
      try {
        if (isRight(await this.#workers.identity(signal))) return;
      } catch (error) {
        if (signal.aborted) throw error;
      }
      if (!this.#process.isRunning()) throw new TandemError('HAPROXY_UNREACHABLE', 'it has ended');
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

function messageAside(one: SetAside): string {
  if ('service' in one) return 'set a service aside';
  if ('sharedFrontend' in one) return 'set a shared frontend aside';
  return 'portRange' in one ? 'set a port range aside' : 'set a section aside';
}
