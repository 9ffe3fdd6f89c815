// Whatever happens, and in whatever order: the registry ends as the last health says.
// TANDEM_FUZZ_SECONDS makes the search longer.
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';

import { type Instance, silentLog } from '@tandem/core';
import { openRegistrar, type Registrar } from '@tandem/registrar';
import type { Announcer, Registry } from '@tandem/registry';
import { openRegistry } from '@tandem/registry';
import { createMemoryStore, type MemoryStore } from '@tandem/registry/testing';
import * as fc from 'fast-check';

import {
  type File,
  lineOf,
  type Name,
  NAMES,
  PATHS,
  type Port,
  PORTS,
  untolerated,
  Wishes,
  WISHING_HOST,
} from '../../support/wishes.ts';
import { createManualClock } from './manual-clock.ts';
import { createScriptedCheck } from './scripted.ts';

const SECONDS = Number(process.env['TANDEM_FUZZ_SECONDS'] ?? 5);
type Event =
  | { readonly kind: 'result'; readonly port: Port; readonly result: 'pass' | 'fail' | 'hang' | 'explode' }
  | { readonly kind: 'drain' | 'undrain'; readonly service: Name | undefined }
  | { readonly kind: 'weight'; readonly service: Name; readonly weight: number | undefined }
  | { readonly kind: 'file'; readonly service: Name; readonly file: File | undefined }
  | { readonly kind: 'restart'; readonly withdraws: boolean }
  | { readonly kind: 'outage' | 'recovery' }
  | { readonly kind: 'time'; readonly ms: number };

const service = fc.constantFrom(...NAMES);
const weight = fc.option(fc.integer({ min: 0, max: 256 }), { nil: undefined });
const file = fc.record<File>({
  port: fc.constantFrom(...PORTS),
  path: fc.constantFrom(...PATHS),
  weight,
  version: fc.constantFrom('1', '2'),
  address: fc.constantFrom(undefined, '10.9.9.9'),
  extra: fc.constantFrom(
    {},
    {},
    { slow_start: '3s', weight: 50 },
    { rate_limit: { per: '2s', burst: 1 } },
    { flap_damping: { max: 1, window: '5s', hold: '1s', max_hold: '4s' } },
    { node_type: 'persistent_sequential' },
  ),
});
const event: fc.Arbitrary<Event> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constant('time' as const), ms: fc.integer({ min: 0, max: 1_500 }) }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('result' as const),
      port: fc.constantFrom(...PORTS),
      result: fc.constantFrom(
        'pass' as const,
        'pass' as const,
        'fail' as const,
        'hang' as const,
        'explode' as const,
      ),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constantFrom('drain' as const, 'undrain' as const),
      service: fc.option(service, { nil: undefined, freq: 4 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('weight' as const), service, weight }) },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('file' as const),
      service,
      file: fc.option(file, { nil: undefined }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('restart' as const), withdraws: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom('outage' as const, 'recovery' as const) }) },
);

/** Lets nothing through while the registry is away; what was wished last happens when it is back. */
interface Link {
  isAway: boolean;
  readonly waiting: Set<() => void>;
}

function throughLink(registry: Registry, link: Link): Pick<Registry, 'announce' | 'withdrawUnclaimed'> {
  const whenThere = (task: () => void) => {
    if (link.isAway) link.waiting.add(task);
    else task();
  };
  return {
    announce(...given): Announcer {
      const announcer = registry.announce(...given);
      let wish: { readonly instance: Instance | undefined } | undefined;
      const carryOut = () => {
        if (wish !== undefined) announcer.set(wish.instance);
        wish = undefined;
      };
      return {
        set(instance) {
          wish = { instance };
          whenThere(carryOut);
        },
        get isAgreed() {
          return wish === undefined && announcer.isAgreed;
        },
        async agreed(signal) {
          const isWished = () => wish !== undefined;
          while (isWished())
            await new Promise<void>((resolve, reject) => {
              if (signal.aborted) reject(signal.reason as Error);
              signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
              link.waiting.add(resolve);
            });
          await announcer.agreed(signal);
        },
        release() {
          wish = undefined;
          link.waiting.delete(carryOut);
          announcer.release();
        },
      };
    },
    withdrawUnclaimed: () => whenThere(() => registry.withdrawUnclaimed()),
  };
}

class World {
  readonly store: MemoryStore = createMemoryStore();
  readonly clock = createManualClock();
  readonly checks = {
    1: createScriptedCheck('fail'),
    2: createScriptedCheck('fail'),
    3: createScriptedCheck('fail'),
  };
  readonly wishes = new Wishes((port) => this.checks[port].result === 'pass', {
    interval: '100ms',
    timeout: '50ms',
    rise: 2,
    fall: 2,
  });
  #link: Link = { isAway: false, waiting: new Set() };
  #registry: Registry | undefined;
  #registrar: Registrar | undefined;
  readonly #stateDir: string;

  constructor(stateDir: string) {
    this.#stateDir = stateDir;
  }

  async start(): Promise<void> {
    this.#link = { isAway: this.#link.isAway, waiting: new Set() };
    this.#registry = await openRegistry(
      { kind: 'memory', pathTemplate: '/services/{service}' },
      { log: silentLog, store: this.store, resumeFile: 'session' },
    );
    this.#registrar = await openRegistrar({
      host: WISHING_HOST,
      registry: throughLink(this.#registry, this.#link),
      log: silentLog,
      clock: this.clock,
      stateDir: this.#stateDir,
      createCheck: (_config, context) => this.checks[context.port as Port],
    });
    this.#registrar.update(this.wishes.registrations());
  }

  async end(withdraws: boolean): Promise<void> {
    const limit = new AbortController();
    if (withdraws) {
      const withdrawn = this.#registrar?.withdrawAll(limit.signal);
      await this.clock.advance(1_000);
      limit.abort(new Error('no more patience'));
      await withdrawn;
    }
    const stopped = this.#registrar?.stop();
    await this.clock.advance(1_000);
    await stopped;
    await this.#registry?.close({ keep: !withdraws });
  }

  async happen(event: Event): Promise<void> {
    switch (event.kind) {
      case 'time':
        return this.clock.advance(event.ms);
      case 'result':
        this.checks[event.port].result = event.result;
        return undefined;
      case 'drain':
      case 'undrain':
        return this.#drain(event.kind, event.service);
      case 'weight': {
        const answer = await this.#registrar?.setWeight(event.service, event.weight);
        if (answer?.ok === true) this.wishes.weigh(event.service, event.weight);
        return undefined;
      }
      case 'file':
        this.wishes.change(event.service, event.file);
        this.#registrar?.update(this.wishes.registrations());
        return undefined;
      case 'restart':
        await this.end(event.withdraws);
        this.wishes.restart();
        return this.start();
      case 'outage':
        this.#link.isAway = true;
        return undefined;
      case 'recovery':
        this.recover();
        return undefined;
    }
  }

  async #drain(kind: 'drain' | 'undrain', service: Name | undefined): Promise<void> {
    const answer = await this.#registrar?.[kind](service);
    if (answer?.ok === true) this.wishes[kind](service);
  }

  recover(): void {
    this.#link.isAway = false;
    const waiting = [...this.#link.waiting];
    this.#link.waiting.clear();
    for (const task of waiting) task();
  }

  standing(): string[] {
    return PATHS.flatMap((path) => this.store.below(path).map(({ text }) => lineOf(path, text)));
  }
}

test('for any sequence of results, drains, weights, reloads, restarts and outages the registry ends as the last health says', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(event, { maxLength: 40 }), async (events) => {
      const stateDir = await mkdtemp(path.join(tmpdir(), 'tandem-convergence-'));
      const world = new World(stateDir);
      try {
        await world.start();
        for (const event of events) await world.happen(event);
        world.recover();
        // Longer than every limit, hold and slow start.
        await world.clock.advance(15_000);
        const [standing, expected] = [world.standing(), world.wishes.expected()];
        assert.deepEqual(untolerated(standing, expected), expected.lines);
        assert.equal(new Set(standing).size, standing.length, 'nothing stands twice');
      } finally {
        await world.end(false);
        await rm(stateDir, { recursive: true });
      }
    }),
    {
      interruptAfterTimeLimit: SECONDS * 1_000,
      markInterruptAsFailure: false,
      numRuns: 100_000,
    },
  );
});
