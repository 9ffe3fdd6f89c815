import path from 'node:path';

import { createLatest, type Latest, type Log, messageOf, type Rejection, sleepOrAborted } from '@tandem/core';

import type { DiscoveredService } from '../config/discover.ts';
import type { HaproxyConfig } from '../config/haproxy.ts';
import { type Applier, createApplier } from '../haproxy/apply.ts';
import type { PartAside } from '../haproxy/choose-structure.ts';
import { createDesiredBuilder, type Desired } from '../haproxy/desired.ts';
import { createForeignHoldsStore } from '../haproxy/foreign-holds-store.ts';
import { keepApplied } from '../haproxy/keep-applied.ts';
import { createHaproxyProcess, type HaproxyProcess } from '../haproxy/process.ts';
import { readSpares } from '../haproxy/routing.ts';
import type { ForeignHolds } from '../haproxy/running-view.ts';
import { readServing, type Serving } from '../haproxy/serving.ts';
import { createStructureStore } from '../haproxy/structure-store.ts';
import type { Offers, Output } from '../output.ts';
import type { AsideState, HaproxyState } from '../state.ts';

/** Keeps the local HAProxy routing to what is offered. It goes on without the daemon, unless `on_exit` says `stop`. */
export interface HaproxyOutput extends Output {
  /** What one that runs already serves of these services; undefined when none runs, or the signal is aborted. */
  serving(services: readonly DiscoveredService[], signal: AbortSignal): Promise<Serving | undefined>;
  state(): HaproxyState;
  /** By service: instances that HAProxy must never see. */
  readonly rejected: ReadonlyMap<string, readonly Rejection[]>;
}

interface HaproxyOutputOptions {
  readonly config: HaproxyConfig;
  readonly stateDir: string;
  readonly log: Log;
}

const STOP_GRACE_MS = 10_000;
const TIDY_MS = 1_000;

export function createHaproxyOutput(options: HaproxyOutputOptions): HaproxyOutput {
  return new AppliedHaproxy(options);
}

class AppliedHaproxy implements HaproxyOutput {
  readonly #config: HaproxyConfig;
  readonly #log: Log;
  readonly #wake: Latest<true> = createLatest();
  readonly #process: HaproxyProcess;
  readonly #applier: Applier;
  #build: ReturnType<typeof createDesiredBuilder>;
  /** What is offered and not yet built from: a burst of offers costs as little as two. */
  #offered: Offers | undefined;
  #lastOffered: Offers | undefined;
  /** When it is built again from the last offers. */
  #reviseAt = Infinity;
  #desired: Desired | undefined;
  #rejected: ReadonlyMap<string, readonly Rejection[]> = new Map();
  #unplaced: ReadonlyMap<string, string> = new Map();
  #serviceOf: ReadonlyMap<string, string> = new Map();
  #applied: { readonly at: number; readonly tookMs: number } | undefined;
  #problem: string | undefined;

  constructor({ config, stateDir, log }: HaproxyOutputOptions) {
    this.#config = config;
    this.#log = log;
    this.#process = createHaproxyProcess(config, { log, onExit: () => this.#wake.set(true) });
    const store = createStructureStore(path.join(stateDir, 'structure.json'), log);
    const foreignHolds = createForeignHoldsStore(path.join(stateDir, 'foreign-holds.json'), log);
    this.#applier = createApplier({
      config,
      process: this.#process,
      store,
      foreignHolds,
      log,
      onForeignHolds: (holds) =>
        log.info(
          { servers: this.#foreignHolds(holds) },
          'servers that somebody else holds are left as they are',
        ),
    });
    this.#build = createDesiredBuilder(config);
  }

  get rejected(): ReadonlyMap<string, readonly Rejection[]> {
    return this.#rejected;
  }

  async serving(services: readonly DiscoveredService[], signal: AbortSignal): Promise<Serving | undefined> {
    try {
      return await readServing(this.#config, services, signal);
    } catch (error) {
      if (signal.aborted) return undefined;
      throw error;
    }
  }

  offer(offers: Offers): void {
    this.#offered = offers;
    this.#wake.set(true);
  }

  async run(signal: AbortSignal): Promise<void> {
    const close = () => this.#wake.close();
    signal.addEventListener('abort', close, { once: true });
    if (signal.aborted) close();
    const tidying = new AbortController();
    const tidied = keepTidy(this.#process, tidying.signal);
    try {
      this.#build = createDesiredBuilder(this.#config, await readSpares(this.#config));
      await keepApplied({
        applier: this.#watched(this.#applier),
        desired: () => this.#take(),
        changes: this.#wake,
        look: () => this.#wake.set(true),
        log: this.#log,
        signal,
      });
    } finally {
      signal.removeEventListener('abort', close);
      close();
      tidying.abort();
      await tidied;
      await this.#applier.end();
      if (this.#config.onExit === 'stop') await this.#process.stop(STOP_GRACE_MS);
    }
  }

  state(): HaproxyState {
    const { running, foreignHolds, setAside, complaint } = this.#applier.status();
    const applied = this.#applied;
    return {
      running:
        running === undefined
          ? undefined
          : { version: running.version, incarnation: running.incarnation, mark: running.mark },
      applied:
        applied === undefined
          ? undefined
          : { agoMs: Math.round(performance.now() - applied.at), tookMs: applied.tookMs },
      problem: this.#problem,
      refused: complaint,
      setAside: [
        ...setAside.map(describeAside),
        ...[...this.#unplaced].map(([name, reason]): AsideState => ({
          kind: 'service',
          name,
          reason,
          goesOn: false,
        })),
      ],
      foreignHolds: this.#foreignHolds(foreignHolds),
    };
  }

  #foreignHolds(holds: ForeignHolds): HaproxyState['foreignHolds'] {
    return [...holds].flatMap(([backend, servers]) => {
      const service = this.#serviceOf.get(backend) ?? backend;
      return [...servers].map(([server, kind]) => ({ service, server, kind }));
    });
  }

  #take(): Desired | undefined {
    const isDue = performance.now() >= this.#reviseAt;
    const offers = this.#offered ?? (isDue ? this.#lastOffered : undefined);
    if (offers === undefined) return this.#desired;
    this.#offered = undefined;
    this.#lastOffered = offers;
    const { desired, rejected, unplaced, serviceOf, reviseAt } = this.#build(offers);
    this.#reviseAt = reviseAt ?? Infinity;
    this.#complainOfUnplaced(unplaced);
    for (const service of offers.keys()) this.#complain(service, rejected.get(service) ?? []);
    this.#rejected = rejected;
    this.#serviceOf = serviceOf;
    this.#desired = desired;
    return desired;
  }

  /** Says once for each service that nothing serves it. */
  #complainOfUnplaced(unplaced: ReadonlyMap<string, string>): void {
    for (const [service, reason] of unplaced) {
      if (this.#unplaced.get(service) !== reason) this.#log.error({ service, reason }, 'set a service aside');
    }
    this.#unplaced = unplaced;
  }

  /** Says what is set aside once, when it changes. */
  #complain(service: string, rejected: readonly Rejection[]): void {
    const before = this.#rejected.get(service) ?? [];
    if (rejected.length === 0 || JSON.stringify(rejected) === JSON.stringify(before)) return;
    this.#log.warn(
      { service, count: rejected.length, rejected: rejected.slice(0, 10) },
      'set instances aside',
    );
  }

  #watched(applier: Applier): Applier {
    return {
      look: (signal) => applier.look(signal),
      status: () => applier.status(),
      end: () => applier.end(),
      apply: async (desired, signal) => {
        const startedAt = performance.now();
        try {
          const outcome = await applier.apply(desired, signal);
          const at = performance.now();
          if (outcome.kind === 'done') this.#applied = { at, tookMs: Math.round((at - startedAt) * 10) / 10 };
          this.#problem = undefined;
          return outcome;
        } catch (error) {
          this.#problem = messageOf(error);
          throw error;
        }
      },
    };
  }
}

/** What HAProxy says has its own pace: one that logs its requests there writes megabytes in a second. */
async function keepTidy(haproxy: HaproxyProcess, signal: AbortSignal): Promise<void> {
  while (!(await sleepOrAborted(TIDY_MS, signal))) await haproxy.tidy();
}

function describeAside({ reason, goesOn, ...part }: PartAside): AsideState {
  if ('service' in part) return { kind: 'service', name: part.service, reason, goesOn };
  if ('sharedFrontend' in part) return { kind: 'shared-frontend', name: part.sharedFrontend, reason, goesOn };
  if ('portRange' in part) return { kind: 'port-range', name: part.portRange, reason, goesOn };
  return { kind: 'section', name: part.section, reason, goesOn };
}
