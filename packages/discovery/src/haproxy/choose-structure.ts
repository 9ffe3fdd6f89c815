import { rm } from 'node:fs/promises';
import { isDeepStrictEqual } from 'node:util';

import { createBackoff, type Log, messageOf, TandemError, writeFileAtomic } from '@tandem/core';

import type { HaproxyConfig } from '../config/haproxy.ts';
import type { Endpoint } from './endpoints.ts';
import { endpointsOf, hasPart, type SetAside, type Wanted } from './parts.ts';
import type { HaproxyProcess } from './process.ts';
import { markOf } from './render.ts';
import type { Structure } from './structure.ts';
import type { StructureStore } from './structure-store.ts';

import { whyTaken } from './taken.ts';
import { type Limits, NO_LIMITS, type Vetted, vetStructure } from './vet.ts';
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
  /**
   * Tries in the background what could not be had, when it is time to. Says whether there is something new to choose:
   * nobody who only changes members waits for that.
   */
  retry(signal: AbortSignal): boolean;
  /**
   * Asks HAProxy only of what was not asked for last; then it answers at once. Rejects with `HAPROXY_REJECTED` when
   * HAProxy takes nothing at all.
   */
  choose(wanted: Wanted, signal: AbortSignal): Promise<Choice>;
  /** This one was tried and has not worked. */
  refuse(mark: string, complaint: string, forMs: number): void;
  /** This one runs. Says whether another one ran before. */
  accept(structure: Structure): Promise<boolean>;
  /** Takes up what the last daemon has found good. */
  load(): Promise<void>;
  /** Ends what goes on in the background. */
  end(): Promise<void>;
}

interface Choice {
  readonly structure: Structure;
  readonly limits: Limits;
}

/** What `haproxy -c` refuses may be good later, when a file it names is there; asking costs nothing. */
export const RETRY_REFUSED_MS = 30_000;
/** A port may be free again at any time, and one that is not so soon is somebody's. */
const RETRY_TAKEN = { baseMs: 5_000, maxMs: 60_000 };

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

/** What came of a vetting. */
interface Verdict {
  readonly wanted: Wanted;
  readonly vetted: Vetted;
}

class VettingChooser implements StructureChooser {
  readonly #deps: ChooserDeps;
  #good: { readonly structure: Structure; readonly mark: string } | undefined;
  #verdict: Verdict | undefined;
  /** One that passed the vetting and has not worked. After its time it may be tried again, but not unvetted. */
  #refused: { readonly mark: string; readonly until: number; readonly complaint: string } | undefined;
  #complaint: string | undefined;
  #retryAt = Infinity;
  readonly #takenPace = createBackoff(RETRY_TAKEN);
  #retrying: { readonly controller: AbortController; readonly ended: Promise<void> } | undefined;
  /** Whether something has changed since the last choice. */
  #hasNews = false;

  constructor(deps: ChooserDeps) {
    this.#deps = deps;
  }

  get good(): { readonly structure: Structure; readonly mark: string } | undefined {
    return this.#good;
  }

  get setAside(): readonly PartAside[] {
    const vetted = this.#verdict?.vetted;
    if (vetted?.kind !== 'accepted') return [];
    return vetted.setAside.map((one) => ({ ...one, goesOn: hasPart(vetted.structure, one) }));
  }

  get complaint(): string | undefined {
    return this.#complaint;
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

  retry(signal: AbortSignal): boolean {
    const verdict = this.#verdict;
    if (verdict !== undefined && this.#retrying === undefined && performance.now() > this.#retryAt)
      this.#retrying = this.#vetAgain(verdict, signal);
    return this.#hasNews;
  }

  async end(): Promise<void> {
    const retrying = this.#retrying;
    retrying?.controller.abort(new Error('nobody waits for it any more'));
    await retrying?.ended;
  }

  async choose(wanted: Wanted, signal: AbortSignal): Promise<Choice> {
    if (this.#verdict === undefined || !isSame(this.#verdict.wanted, wanted)) {
      await this.end();
      this.#takenPace.reset();
      this.#conclude({ wanted, vetted: await this.#vet(wanted, signal) });
    }
    this.retry(signal);
    this.#hasNews = false;
    const vetted = this.#verdict?.vetted;
    this.#complaint = vetted?.kind === 'refused' ? vetted.complaint : undefined;
    if (vetted?.kind === 'accepted') {
      const { structure, limits } = vetted;
      this.#complaint = await this.#whyRefused(markOf(structure), signal);
      if (this.#complaint === undefined) return { structure, limits };
    }
    if (this.#good === undefined)
      throw new TandemError(
        'HAPROXY_REJECTED',
        `HAProxy refuses the configuration: ${this.#complaint ?? ''}`,
      );
    return { structure: this.#good.structure, limits: vetted?.limits ?? NO_LIMITS };
  }

  refuse(mark: string, complaint: string, forMs: number): void {
    this.#refused = { mark, complaint, until: performance.now() + forMs };
    // What speaks against it may be something that the next vetting sees, such as an address that was taken since.
    this.#retryAt = performance.now();
  }

  #vetAgain({ wanted }: Verdict, signal: AbortSignal) {
    const controller = new AbortController();
    const abort = () => controller.abort(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    const vet = async () => {
      try {
        const vetted = await this.#vet(wanted, controller.signal);
        if (!controller.signal.aborted) this.#conclude({ wanted, vetted });
      } catch (error) {
        if (controller.signal.aborted) return;
        this.#retryAt = performance.now() + RETRY_REFUSED_MS;
        this.#deps.log.warn({ err: messageOf(error) }, 'cannot ask HAProxy of the configuration again');
      } finally {
        signal.removeEventListener('abort', abort);
        this.#retrying = undefined;
      }
    };
    return { controller, ended: vet() };
  }

  async #vet({ structure, allowances }: Wanted, signal: AbortSignal): Promise<Vetted> {
    const isManaged = this.#deps.config.mode === 'managed';
    return vetStructure(
      { structure, allowances },
      {
        good: this.#good?.structure,
        own: await this.#ownEndpoints(signal),
        check: (text) => this.#check(text, signal),
        whyTaken: (endpoint) => whyTaken(endpoint, isManaged, signal),
      },
    );
  }

  #conclude(verdict: Verdict): void {
    const before = this.#verdict?.vetted;
    const { vetted } = verdict;
    const isNews = before === undefined || !isSameOutcome(before, vetted);
    if (this.#refused !== undefined && performance.now() > this.#refused.until) {
      this.#refused = undefined;
      this.#hasNews = true;
    }
    this.#retryAt = Math.min(
      performance.now() + this.#retryDelayMs(vetted),
      this.#refused?.until ?? Infinity,
    );
    if (isNews) {
      this.#tell(before, vetted);
      this.#verdict = verdict;
      this.#hasNews = true;
    } else if (this.#verdict !== undefined) this.#verdict = { ...this.#verdict, wanted: verdict.wanted };
  }

  /** Options that are no good stay so; everything else may be good later. */
  #retryDelayMs(vetted: Vetted): number {
    if (vetted.kind === 'refused') return RETRY_REFUSED_MS;
    if (!vetted.hasTaken) this.#takenPace.reset();
    else return this.#takenPace.next();
    return vetted.setAside.length > 0 ? RETRY_REFUSED_MS : Infinity;
  }

  #tell(before: Vetted | undefined, vetted: Vetted): void {
    const { log } = this.#deps;
    if (vetted.kind === 'refused') {
      const { complaint } = vetted;
      const remedy = 'going on with the last good structure';
      if (this.#good !== undefined) log.error({ complaint, remedy }, 'HAProxy refuses the configuration');
      return;
    }
    const told = before?.kind === 'accepted' ? before : undefined;
    for (const one of vetted.setAside) {
      if (told?.setAside.some((other) => isDeepStrictEqual(other, one)) !== true)
        log.error(one, messageAside(one));
    }
    for (const [service, reason] of vetted.limits.plain) {
      if (told?.limits.plain.get(service) === reason) continue;
      const remedy = 'name in instance_options only what goes with server_options';
      log.error({ service, reason, remedy }, 'set the options of instances aside');
    }
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
  async #whyRefused(mark: string, signal: AbortSignal): Promise<string | undefined> {
    if (this.#refused?.mark !== mark) return undefined;
    const { complaint } = this.#refused;
    try {
      return (await this.#deps.workers.identity(signal)).mark === mark ? undefined : complaint;
    } catch {
      signal.throwIfAborted();
      return complaint;
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
}

function isSame(a: Wanted, b: Wanted): boolean {
  return (
    (a.structure === b.structure || markOf(a.structure) === markOf(b.structure)) &&
    (a.allowances === b.allowances || isDeepStrictEqual(a.allowances, b.allowances))
  );
}

function isSameOutcome(a: Vetted, b: Vetted): boolean {
  if (a.kind === 'refused' || b.kind === 'refused') return isDeepStrictEqual(a, b);
  return (
    markOf(a.structure) === markOf(b.structure) &&
    isDeepStrictEqual([a.setAside, a.limits], [b.setAside, b.limits])
  );
}

function messageAside(one: SetAside): string {
  if ('service' in one) return 'set a service aside';
  if ('sharedFrontend' in one) return 'set a shared frontend aside';
  return 'portRange' in one ? 'set a port range aside' : 'set a section aside';
}
