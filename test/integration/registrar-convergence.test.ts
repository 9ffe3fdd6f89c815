// A registrar through everything that can go wrong between it and its registry: it ends as the last health says.
// TANDEM_FUZZ_SECONDS makes it longer, TANDEM_FUZZ_SEED gives the choices another start.
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { silentLog } from '@tandem/core';
import { startEmbeddedZooKeeper } from '@tandem/embedded-zookeeper';
import {
  type Check,
  createRegistrar,
  openRegistrar,
  type Registrar,
  RegisterSection,
} from '@tandem/registrar';
import { openRegistry, type Registry } from '@tandem/registry';
import { createMemoryStore } from '@tandem/registry/testing';

import { eventually } from '../support/eventually.ts';
import { type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts';
import { createRandom, type Random } from '../support/random.ts';
import { startRealZooKeeper } from '../support/real-zookeeper.ts';
import {
  follow,
  limit,
  listen,
  type Nodes,
  nodesOf,
  noSurprises,
  openTestRegistry,
} from '../support/registries.ts';
import {
  lineOf,
  NAMES,
  PATHS,
  type Port,
  PORTS,
  untolerated,
  Wishes,
  WISHING_HOST,
} from '../support/wishes.ts';

const SECONDS = Number(process.env['TANDEM_FUZZ_SECONDS'] ?? 10);
const SEED = Number(process.env['TANDEM_FUZZ_SEED'] ?? 1);
/** After so many events everything is let through, and has to be true. */
const ROUND = 25;
const ANNOUNCED_WITHIN_MS = 60_000;
const SCHEDULE = { interval: '20ms', timeout: '1s', rise: 2, fall: 2 };
const EXTRAS = [
  {},
  {},
  { slow_start: '1s', weight: 50 },
  { rate_limit: { per: '500ms', burst: 1 } },
  { flap_damping: { max: 1, window: '1s', hold: '300ms', max_hold: '1s' } },
  { node_type: 'persistent_sequential' },
] as const;

noSurprises();

interface Server {
  readonly port: number;
  /** It dies and comes back with what it had. */
  readonly restart?: () => Promise<void>;
  readonly stop: () => Promise<void>;
}

converging('the embedded server', async () => {
  const server = await startEmbeddedZooKeeper();
  return { port: server.port, stop: () => server.close() };
});
converging('a real server', async () => {
  const server = await startRealZooKeeper({ properties: { 'zookeeper.enforceQuota': 'true' } });
  const restart = async () => {
    await server.kill();
    await server.start();
  };
  return { port: server.port, restart, stop: () => server.stop() };
});

function converging(where: string, start: () => Promise<Server>): void {
  describe(`a registrar on ${where}`, () => {
    test('ends as the last health says, through cuts, outages, quotas, drains, reloads and restarts', async (t) => {
      t.diagnostic(`TANDEM_FUZZ_SEED=${SEED} TANDEM_FUZZ_SECONDS=${SECONDS}`);
      const directory = await mkdtemp(path.join(tmpdir(), 'tandem-convergence-'));
      const server = await start();
      const proxy = await startFaultProxy(server.port);
      const world = new World(server, proxy, directory, createRandom(SEED));
      try {
        await world.start();
        const end = performance.now() + SECONDS * 1_000;
        let rounds = 0;
        do {
          for (let event = 0; event < ROUND; event += 1) await world.happen();
          await world.isTrue();
          rounds += 1;
        } while (performance.now() < end);
        t.diagnostic(`${rounds} rounds; ${world.quotaErrors} refusals because of a quota`);
        await world.end(true);
        await eventually(async () => assert.deepEqual(await world.standing(), []));
      } finally {
        await world.end(false);
        await proxy.close();
        await server.stop();
        await rm(directory, { recursive: true, force: true });
      }
    });
  });
}

describe('another weight or label while a service runs', () => {
  for (const [where, openOne] of [
    [
      'in memory',
      async () => ({
        registry: await openRegistry(
          { kind: 'memory', pathTemplate: '/services/{service}' },
          { log: silentLog, store: createMemoryStore() },
        ),
        stop: () => Promise.resolve(),
      }),
    ],
    [
      'on the embedded server',
      async () => {
        const server = await startEmbeddedZooKeeper();
        return { registry: await openTestRegistry(server.port), stop: () => server.close() };
      },
    ],
  ] as const)
    test(`${where}: is announced before what stood there goes, so that nobody ever sees less`, async () => {
      const { registry, stop } = await openOne();
      const registrar = createRegistrar({ host: WISHING_HOST, registry, log: silentLog });
      const follower = follow(registry, '/services/web');
      const change = async (weight: number, version: string) => {
        const config = RegisterSection.parse({ port: 80, weight, labels: { version } });
        registrar.update([{ service: 'web', path: '/services/web', config }]);
        await registrar.agreed('web', limit());
        await eventually(() => {
          const [instance, ...others] = follower.latest?.instances ?? [];
          assert.deepEqual([instance?.weight, instance?.labels, others], [weight, { version }, []]);
        });
      };
      await change(1, 'a');
      const before = follower.snapshots.length;
      for (const [weight, version] of [
        [2, 'a'],
        [2, 'b'],
        [0, 'c'],
      ] as const)
        await change(weight, version);
      await registrar.setWeight('web', 9);
      await registrar.agreed('web', limit());
      await follower.shows('i-1:9');
      assert.ok(follower.snapshots.slice(before).every(({ instances }) => instances.length === 1));
      await registrar.withdrawAll(limit());
      await registrar.stop();
      await follower.stop();
      await registry.close();
      await stop();
    });
});

class World {
  readonly #server: Server;
  readonly #proxy: FaultProxy;
  readonly #directory: string;
  readonly #random: Random;
  readonly #nodes: Nodes;
  readonly #up = new Set<Port>();
  readonly #wishes = new Wishes((port) => this.#up.has(port), SCHEDULE);
  readonly #log = listen();
  #registry: Registry | undefined;
  #registrar: Registrar | undefined;

  constructor(server: Server, proxy: FaultProxy, directory: string, random: Random) {
    this.#server = server;
    this.#proxy = proxy;
    this.#directory = directory;
    this.#random = random;
    this.#nodes = nodesOf(server.port);
  }

  get quotaErrors(): number {
    return this.#log.lines.filter(({ facts }) => String(facts['err']).includes('QUOTA')).length;
  }

  async start(): Promise<void> {
    const resumeFile = path.join(this.#directory, 'session.json');
    this.#registry = await openTestRegistry(this.#proxy.port, { resumeFile, log: this.#log.log });
    this.#registrar = await openRegistrar({
      host: WISHING_HOST,
      registry: this.#registry,
      log: silentLog,
      stateDir: this.#directory,
      createCheck: (_config, { port }) => this.#check(port as Port),
    });
    this.#registrar.update(this.#wishes.registrations());
  }

  /** @param withdraws false: as for a successor */
  async end(withdraws: boolean): Promise<void> {
    if (withdraws) await this.#registrar?.withdrawAll(AbortSignal.timeout(5_000));
    await this.#registrar?.stop();
    await this.#registry?.close({ keep: !withdraws });
  }

  async happen(): Promise<void> {
    const random = this.#random;
    const events: readonly (() => Promise<void> | void)[] = [
      () => this.#flip(),
      () => this.#flip(),
      () => this.#flip(),
      () => this.#drain(),
      () => this.#weigh(),
      () => this.#change(),
      () => this.#change(),
      () => this.#cut(),
      () => this.#cut(),
      () => this.#removeOne(),
      () => (random.chance(0.3) ? this.#restart() : undefined),
      () => (random.chance(0.3) ? this.#limitNodes() : undefined),
      () => (random.chance(0.05) ? this.#server.restart?.() : undefined),
    ];
    await random.pick(events)();
    await sleep(random.below(60));
  }

  /** Once nothing is in the way any more, the registry agrees, and then it is true. */
  async isTrue(): Promise<void> {
    this.#proxy.pass();
    await this.#unlimitNodes();
    await eventually(
      async () => {
        const [standing, expected] = [await this.standing(), this.#wishes.expected()];
        assert.deepEqual(untolerated(standing, expected), expected.lines, this.#log.lines.at(-1)?.message);
        assert.equal(new Set(standing).size, standing.length, 'nothing stands twice');
      },
      { withinMs: ANNOUNCED_WITHIN_MS, everyMs: 100 },
    );
    await this.#registrar?.agreed(undefined, limit());
    const [standing, expected] = [await this.standing(), this.#wishes.expected()];
    assert.deepEqual(untolerated(standing, expected), expected.lines, 'and stays so');
  }

  async standing(): Promise<string[]> {
    const found = await Promise.all(
      PATHS.map(async (below) => (await this.#nodes.records(below)).map((record) => lineOf(below, record))),
    );
    return found.flat();
  }

  #check(port: Port): Check {
    return {
      kind: 'fuzzed',
      probe: () => Promise.resolve(this.#up.has(port) ? { ok: true } : { ok: false, reason: 'fuzzed' }),
    };
  }

  #flip(): void {
    const port = this.#random.pick(PORTS);
    if (!this.#up.delete(port)) this.#up.add(port);
  }

  async #drain(): Promise<void> {
    const kind = this.#random.chance(0.4) ? 'drain' : 'undrain';
    const service = this.#random.chance(0.2) ? undefined : this.#random.pick(NAMES);
    const answer = await this.#registrar?.[kind](service);
    if (answer?.ok === true) this.#wishes[kind](service);
  }

  async #weigh(): Promise<void> {
    const service = this.#random.pick(NAMES);
    const weight = this.#random.chance(0.4) ? undefined : this.#random.below(257);
    const answer = await this.#registrar?.setWeight(service, weight);
    if (answer?.ok === true) this.#wishes.weigh(service, weight);
  }

  #change(): void {
    const random = this.#random;
    const file = {
      port: random.pick(PORTS),
      path: random.pick(PATHS),
      weight: random.chance(0.5) ? random.below(257) : undefined,
      version: random.pick(['1', '2']),
      address: random.chance(0.2) ? '10.9.9.9' : undefined,
      extra: random.pick(EXTRAS),
    };
    this.#wishes.change(random.pick(NAMES), random.chance(0.8) ? file : undefined);
    this.#registrar?.update(this.#wishes.registrations());
  }

  /** Now, in the middle of an answer, or for a while. */
  async #cut(): Promise<void> {
    const proxy = this.#proxy;
    const ways: readonly (() => void)[] = [
      () => proxy.kill(),
      () => proxy.reset(),
      () => proxy.cutAfter(this.#random.below(120)),
      () => proxy.blackhole(),
      () => {
        proxy.acceptThenClose();
        proxy.kill();
      },
    ];
    this.#random.pick(ways)();
    this.#flip();
    await sleep(this.#random.below(300));
    if (this.#random.chance(0.8)) proxy.pass();
  }

  /** Somebody else does what nobody should. */
  async #removeOne(): Promise<void> {
    const below = this.#random.pick(PATHS);
    const [name] = await this.#nodes.children(below);
    if (name !== undefined) await this.#nodes.remove(`${below}/${name}`);
  }

  async #restart(): Promise<void> {
    await this.end(this.#random.chance(0.3));
    this.#wishes.restart();
    await this.start();
  }

  /** One node is the most from now on. Only the real server knows of quotas. */
  async #limitNodes(): Promise<void> {
    if (this.#server.restart === undefined) return;
    const below = `/zookeeper/quota${this.#random.pick(PATHS)}`;
    const most = 'count=-1,bytes=-1=;byteHardLimit=-1;countHardLimit=2';
    await this.#nodes.create(`${below}/zookeeper_limits`, most);
    await this.#nodes.create(`${below}/zookeeper_stats`, 'count=1,bytes=0');
  }

  async #unlimitNodes(): Promise<void> {
    if (this.#server.restart === undefined) return;
    for (const below of PATHS) await this.#nodes.remove(`/zookeeper/quota${below}`);
  }
}
