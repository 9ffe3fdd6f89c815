import { rm } from 'node:fs/promises';
import { isDeepStrictEqual } from 'node:util';

import { type Log, TandemError, writeFileAtomic } from '@tandem/core';

import type { HaproxyConfig } from '../config/haproxy.ts';
import type { Endpoint } from './endpoints.ts';
import type { HaproxyProcess } from './process.ts';
import { markOf } from './render.ts';
import type { Structure } from './structure.ts';
import type { StructureStore } from './structure-store.ts';
import { endpointsOf, hasPart, type SetAside, vetStructure, whyTaken } from './vet.ts';
import type { Workers } from './workers.ts';

/** A part that HAProxy does not run as it is wanted; it goes on with its last good version, or there is none. */
export type PartAside = SetAside & { readonly goesOn: boolean };

/** Decides which structure HAProxy is given: the wanted one as far as it can run, else the last good one. */
export interface StructureChooser {
  /** The last structure that HAProxy has really run. */
  readonly good: { readonly structure: Structure; readonly mark: string } | undefined;
  /** What is left out of what was chosen last, or stays as it was. */
  readonly setAside: readonly PartAside[];
  /** Why the wanted structure as a whole was refused, while it is. */
  readonly complaint: string | undefined;
  /** Whether it is time to try once more what could not be had when it was last asked for. */
  isRetryDue(): boolean;
  /** Rejects with `HAPROXY_REJECTED` when HAProxy takes nothing at all. */
  choose(wanted: Structure, signal: AbortSignal): Promise<Structure>;
  /** This one was tried and has not worked. */
  refuse(mark: string, complaint: string, forMs: number): void;
  /** This one runs. Says whether another one ran before. */
  accept(structure: Structure): Promise<boolean>;
  /** Takes up what the last daemon has found good. */
  load(): Promise<void>;
}

/** What `haproxy -c` refuses may be good later, when a file it names is there; asking costs nothing. */
export const RETRY_REFUSED_MS = 30_000;
/** A port may be free again at any time. */
const RETRY_SET_ASIDE_MS = 5_000;

export function createStructureChooser(deps: ChooserDeps): StructureChooser {
  return new VettingChooser(deps);
}

interface ChooserDeps {
  readonly config: HaproxyConfig;
  readonly process: HaproxyProcess;
  readonly store: StructureStore;
  readonly workers: Workers;
  readonly log: Log;
  readonly makeDirectories: () => Promise<void>;
}

class VettingChooser implements StructureChooser {
  readonly #deps: ChooserDeps;
  #good: { readonly structure: Structure; readonly mark: string } | undefined;
  /** The mark of a structure that passed `haproxy -c`. */
  #checked: string | undefined;
  #refused: { mark: string; until: number; complaint: string } | undefined;
  /** A structure without the services that had to be set aside, and the mark of the whole. */
  #partial: { readonly of: string; readonly structure: Structure; readonly until: number } | undefined;
  #setAside: readonly SetAside[] = [];
  #isWhole = false;
  #retryAt = Infinity;

  constructor(deps: ChooserDeps) {
    this.#deps = deps;
  }

  get good(): { readonly structure: Structure; readonly mark: string } | undefined {
    return this.#good;
  }

  get setAside(): readonly PartAside[] {
    if (this.#isWhole) return [];
    const structure = this.#partial?.structure ?? this.#good?.structure;
    const goesOn = (one: SetAside) => structure !== undefined && hasPart(structure, one);
    return this.#setAside.map((one) => ({ ...one, goesOn: goesOn(one) }));
  }

  get complaint(): string | undefined {
    return this.#isWhole || this.#partial !== undefined ? undefined : this.#refused?.complaint;
  }

  async load(): Promise<void> {
    if (this.#good !== undefined) return;
    const stored = await this.#deps.store.load();
    if (stored === undefined) return;
    const structure = { ...stored, runtimeSocket: this.#deps.config.runtimeSocket };
    this.#good = { structure, mark: markOf(structure) };
  }

  async accept(structure: Structure): Promise<boolean> {
    const mark = markOf(structure);
    if (this.#good?.mark === mark) return false;
    this.#good = { structure, mark };
    await this.#deps.store.save(structure);
    return true;
  }

  isRetryDue(): boolean {
    return performance.now() > this.#retryAt;
  }

  async choose(wanted: Structure, signal: AbortSignal): Promise<Structure> {
    const chosen = await this.#pick(wanted, signal);
    const isWhole = markOf(chosen) === markOf(wanted);
    this.#isWhole = isWhole;
    const until = Math.min(this.#partial?.until ?? Infinity, this.#refused?.until ?? Infinity);
    this.#retryAt = isWhole ? Infinity : Math.max(until, performance.now() + RETRY_SET_ASIDE_MS);
    return chosen;
  }

  async #pick(wanted: Structure, signal: AbortSignal): Promise<Structure> {
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
      whyTaken: (endpoint) => whyTaken(endpoint, this.#deps.config.mode === 'managed'),
    });
    if (vetted.kind === 'refused') {
      this.refuse(mark, vetted.complaint, RETRY_REFUSED_MS);
      const { complaint } = vetted;
      const remedy = 'going on with the last good structure';
      if (this.#good !== undefined)
        this.#deps.log.error({ complaint, remedy }, 'HAProxy refuses the configuration');
      return undefined;
    }
    const { structure, setAside } = vetted;
    this.#checked = markOf(structure);
    if (!isDeepStrictEqual(setAside, this.#setAside)) {
      for (const one of setAside) this.#deps.log.error(one, messageAside(one));
    }
    this.#setAside = setAside;
    const until = performance.now() + RETRY_SET_ASIDE_MS;
    this.#partial = setAside.length === 0 ? undefined : { of: mark, structure, until };
    return structure;
  }

  /** Where HAProxy listens by itself; undefined when one runs whose structure is unknown. */
  async #ownEndpoints(signal: AbortSignal): Promise<readonly Endpoint[] | undefined> {
    const isRunning = await this.#deps.workers.identity(signal).then(
      () => true,
      () => false,
    );
    signal.throwIfAborted();
    // One that is silent for a moment has its ports, and so may one that somebody else runs.
    const { config, process } = this.#deps;
    if (!isRunning && config.mode === 'managed' && !process.isRunning()) return [];
    return this.#good === undefined ? undefined : endpointsOf(this.#good.structure);
  }

  /** A worker that came too late to be waited for proves that its structure is good after all. */
  async #isRefused(mark: string, signal: AbortSignal): Promise<boolean> {
    if (this.#refused?.mark !== mark || performance.now() > this.#refused.until) return false;
    try {
      return (await this.#deps.workers.identity(signal)).mark !== mark;
    } catch {
      signal.throwIfAborted();
      return true;
    }
  }

  async #check(text: string, signal: AbortSignal): Promise<string | undefined> {
    const candidate = `${this.#deps.config.configFile}.candidate`;
    await this.#deps.makeDirectories();
    await writeFileAtomic(candidate, text, { mode: 0o640 });
    try {
      return await this.#deps.process.check(candidate, signal);
    } finally {
      await rm(candidate, { force: true });
    }
  }

  refuse(mark: string, complaint: string, forMs: number): void {
    this.#refused = { mark, complaint, until: performance.now() + forMs };
    if (this.#checked === mark) this.#checked = undefined;
  }
}

function messageAside(one: SetAside): string {
  if ('service' in one) return 'set a service aside';
  if ('sharedFrontend' in one) return 'set a shared frontend aside';
  return 'portRange' in one ? 'set a port range aside' : 'set a section aside';
}
