// Whatever happens, and in whatever order: the registry ends as the last health says.
// TANDEM_FUZZ_SECONDS makes the search longer.
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';

import { decodeNerveRecord, type Instance, silentLog } from '@tandem/core';
import { openRegistrar, type Registrar, type ServiceRegistration } from '@tandem/registrar';
import type { Announcer, Registry } from '@tandem/registry';
import { openRegistry } from '@tandem/registry';
import { createMemoryStore, type MemoryStore } from '@tandem/registry/testing';
import * as fc from 'fast-check';

import { createManualClock } from './manual-clock.ts';
import { createScriptedCheck } from './scripted.ts';
import { HOST, registration } from './support.ts';

const SECONDS = Number(process.env['TANDEM_FUZZ_SECONDS'] ?? 5);
const NAMES = ['a', 'b', 'c'] as const;
const PORTS = [1, 2, 3] as const;
type Port = (typeof PORTS)[number];
type Name = (typeof NAMES)[number];

/** What a service file may say; undefined: there is none. */
interface File {
  readonly port: Port;
  readonly path: string;
  readonly weight: number | undefined;
  readonly version: string;
  readonly address: string | undefined;
  readonly extra: Readonly<Record<string, unknown>>;
}

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
  path: fc.constantFrom('/services/x', '/services/y'),
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
        async agreed(signal) {
          while (wish !== undefined)
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

function placeOf({ path, port, address = HOST.address }: File): string {
  return `${path} ${address}:${port}`;
}

function isAt(line: string, places: ReadonlySet<string>): boolean {
  return places.has(line.split(' ').slice(0, 2).join(' '));
}

class World {
  readonly store: MemoryStore = createMemoryStore();
  readonly clock = createManualClock();
  readonly checks = {
    1: createScriptedCheck('fail'),
    2: createScriptedCheck('fail'),
    3: createScriptedCheck('fail'),
  };
  readonly files = new Map<Name, File>();
  /** Where services were before they moved, in this life of the registrar. */
  readonly former = new Map<Name, Set<string>>();
  readonly weights = new Map<Name, number>();
  readonly drained = new Set<Name>();
  readonly exempt = new Set<Name>();
  isAllDrained = false;
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
      host: HOST,
      registry: throughLink(this.#registry, this.#link),
      log: silentLog,
      clock: this.clock,
      stateDir: this.#stateDir,
      createCheck: (_config, context) => this.checks[context.port as Port],
    });
    this.#registrar.update(this.#registrations());
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
      case 'weight':
        return this.#weigh(event.service, event.weight);
      case 'file':
        this.#change(event.service, event.file);
        this.#registrar?.update(this.#registrations());
        return undefined;
      case 'restart':
        await this.end(event.withdraws);
        this.former.clear();
        return this.start();
      case 'outage':
        this.#link.isAway = true;
        return undefined;
      case 'recovery':
        this.recover();
        return undefined;
    }
  }

  recover(): void {
    this.#link.isAway = false;
    const waiting = [...this.#link.waiting];
    this.#link.waiting.clear();
    for (const task of waiting) task();
  }

  /** What must stand, and where else something may stand: where a service was that is not up where it shall be. */
  expected(): { readonly lines: string[]; readonly tolerated: ReadonlySet<string> } {
    const taken = new Set<string>();
    const lines: string[] = [];
    const tolerated = new Set<string>();
    for (const [name, file] of this.#sorted()) {
      const place = placeOf(file);
      // The first has it.
      if (taken.has(place)) continue;
      taken.add(place);
      const isDrained = this.drained.has(name) || (this.isAllDrained && !this.exempt.has(name));
      if (isDrained) continue;
      if (this.checks[file.port].result === 'pass') {
        const own = (file.extra['weight'] as number | undefined) ?? file.weight;
        lines.push(`${place} ${this.weights.get(name) ?? own ?? '-'} ${file.version}`);
      } else for (const former of this.former.get(name) ?? []) tolerated.add(former);
    }
    return { lines: lines.toSorted(), tolerated };
  }

  standing(): string[] {
    return ['/services/x', '/services/y']
      .flatMap((path) =>
        this.store.below(path).map(({ text }) => {
          const decoded = decodeNerveRecord(Buffer.from(text));
          assert.ok(decoded.ok);
          const { host, port, weight, labels } = decoded.instance;
          return `${path} ${host}:${port} ${weight ?? '-'} ${labels?.['version']}`;
        }),
      )
      .toSorted();
  }

  #change(name: Name, file: File | undefined): void {
    const before = this.files.get(name);
    if (file === undefined) {
      this.files.delete(name);
      this.former.delete(name);
      return;
    }
    this.files.set(name, file);
    const former = this.former.get(name) ?? new Set();
    if (before !== undefined) former.add(placeOf(before));
    former.delete(placeOf(file));
    this.former.set(name, former);
  }

  #sorted(): [Name, File][] {
    return [...this.files].toSorted(([a], [b]) => (a < b ? -1 : 1));
  }

  #registrations(): ServiceRegistration[] {
    return this.#sorted().map(([name, { port, path, weight, version, address, extra }]) =>
      registration(
        name,
        {
          port,
          ...(weight === undefined ? {} : { weight }),
          ...(address === undefined ? {} : { address }),
          labels: { version },
          checks: [{ tcp: { interval: '100ms', timeout: '50ms', rise: 2, fall: 2 } }],
          ...extra,
        },
        path,
      ),
    );
  }

  async #drain(kind: 'drain' | 'undrain', service: Name | undefined): Promise<void> {
    const answer = await this.#registrar?.[kind](service);
    if (answer?.ok !== true) return;
    if (service === undefined) {
      this.isAllDrained = kind === 'drain';
      this.exempt.clear();
      if (kind === 'undrain') this.drained.clear();
    } else if (kind === 'drain') {
      this.drained.add(service);
      this.exempt.delete(service);
    } else {
      this.drained.delete(service);
      if (this.isAllDrained) this.exempt.add(service);
    }
  }

  async #weigh(service: Name, weight: number | undefined): Promise<void> {
    const answer = await this.#registrar?.setWeight(service, weight);
    if (answer?.ok !== true) return;
    if (weight === undefined) this.weights.delete(service);
    else this.weights.set(service, weight);
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
        const { lines, tolerated } = world.expected();
        const standing = world.standing();
        assert.deepEqual(
          standing.filter((line) => lines.includes(line) || !isAt(line, tolerated)),
          lines,
        );
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
