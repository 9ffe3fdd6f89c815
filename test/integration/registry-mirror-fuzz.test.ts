// Whatever happens to the nodes, the network, the servers and the sessions: in the end every mirror shows the truth.
// Runs 60 s by default; TANDEM_FUZZ_SECONDS makes it longer, TANDEM_FUZZ_SEED gives the choices another start.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';

import { startEmbeddedZooKeeper } from '@tandem/embedded-zookeeper';

import { type Churn, createChurn, truthOf } from '../support/churn.ts';
import { startRealEnsemble } from '../support/ensemble.ts';
import { eventually } from '../support/eventually.ts';
import { type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts';
import { createRandom, type Random } from '../support/random.ts';
import { endLater, follow, type Follower, noSurprises, openTestRegistry } from '../support/registries.ts';

const SECONDS = Number(process.env['TANDEM_FUZZ_SECONDS'] ?? 60);
const SEED = Number(process.env['TANDEM_FUZZ_SEED'] ?? 1);
const SESSION_TIMEOUT_MS = 4_000;
const PATHS = ['/fuzz/a', '/fuzz/b', '/fuzz/c', '/fuzz/d', '/fuzz/e'];
const SEQUENTIAL_PATHS = PATHS.slice(0, 2);
const EQUAL_WITHIN_MS = 30_000;

noSurprises();

interface Arena {
  readonly ports: readonly number[];
  /** In front of every server: the way of the mirrors, not of the writers. */
  readonly proxies: readonly FaultProxy[];
  /** Something worse than the network can do, undone when it resolves. */
  readonly strike: (random: Random) => Promise<void>;
  readonly healed: () => Promise<unknown>;
}

/** Faults of the network, each undone when it resolves. */
async function disturb(proxies: readonly FaultProxy[], random: Random): Promise<void> {
  const proxy = random.pick(proxies);
  switch (random.below(6)) {
    case 0:
      proxy.kill();
      return;
    case 1:
      proxy.reset();
      return;
    case 2:
      proxy.cutAfter(random.below(5_000));
      return;
    case 3:
      proxy.acceptThenClose();
      proxy.kill();
      await sleep(random.below(500));
      proxy.pass();
      return;
    case 4: {
      // All at once, and now and then for longer than the session lives.
      for (const each of proxies) each.blackhole();
      await sleep(random.chance(0.2) ? SESSION_TIMEOUT_MS * 1.5 : random.below(SESSION_TIMEOUT_MS));
      for (const each of proxies) each.pass();
      return;
    }
    default:
      proxy.blackhole();
      await sleep(random.below(SESSION_TIMEOUT_MS));
      proxy.pass();
  }
}

async function stir(churn: Churn, random: Random, ms: number): Promise<void> {
  const calmAt = performance.now() + ms;
  while (performance.now() < calmAt) {
    await churn.step();
    await sleep(random.below(15));
  }
}

/** A few changes while the mirrors are cut off, and none after it that could give them away. */
async function unseen(proxies: readonly FaultProxy[], churn: Churn, random: Random): Promise<void> {
  for (const proxy of proxies) proxy.blackhole();
  for (let changes = random.below(20); changes > 0; changes -= 1) await churn.step();
  for (const proxy of proxies) {
    proxy.kill();
    proxy.pass();
  }
}

async function fuzz(arena: Arena, mirrors: readonly Mirror[], seconds: number): Promise<void> {
  const random = createRandom(SEED);
  const churn = createChurn({ ports: arena.ports, paths: PATHS, sequentialPaths: SEQUENTIAL_PATHS, random });
  endLater(() => churn.end());
  const endAt = performance.now() + seconds * 1_000;
  let most = 0;
  for (let round = 1; performance.now() < endAt; round += 1) {
    if (random.chance(0.3)) await unseen(arena.proxies, churn, random);
    else {
      const fault = random.chance(0.3) ? arena.strike(random) : disturb(arena.proxies, random);
      await stir(churn, random, 1_000 + random.below(2_000));
      await fault;
      await arena.healed();
    }
    for (const proxy of arena.proxies) proxy.pass();
    await allTrue(arena, mirrors, `round ${round}, ${churn.steps} changes, TANDEM_FUZZ_SEED=${SEED}`);
    for (const { follower } of mirrors) most = Math.max(most, follower.latest?.instances.length ?? 0);
  }
  assert.ok(most > 10, `there was never more than ${most} instances to compare`);
}

interface Mirror {
  readonly name: string;
  readonly path: string;
  readonly follower: Follower;
}

async function allTrue(arena: Arena, mirrors: readonly Mirror[], when: string): Promise<void> {
  await eventually(
    async () => {
      // Read anew at every look: a change whose answer got lost may still be on its way.
      for (const path of PATHS) {
        const truth = await truthOf(arena.ports[0] ?? 0, path);
        for (const { name, follower } of mirrors.filter((mirror) => mirror.path === path))
          assert.deepEqual(
            follower.latest,
            truth,
            `${name} of ${path}: ${when} ${inspect({ shown: follower.latest, truth }, { depth: 5, maxArrayLength: null })}`,
          );
      }
    },
    { withinMs: EQUAL_WITHIN_MS, everyMs: 100 },
  );
}

async function openMirrors(
  proxies: readonly FaultProxy[],
  kinds: readonly { name: string; mirror: 'auto' | 'classic' }[],
): Promise<Mirror[]> {
  const mirrors: Mirror[] = [];
  for (const { name, mirror } of kinds) {
    const ports = proxies.map(({ port }) => port);
    const registry = await openTestRegistry(ports, { mirror, sessionTimeoutMs: SESSION_TIMEOUT_MS });
    for (const path of PATHS) mirrors.push({ name, path, follower: follow(registry, path) });
  }
  return mirrors;
}

async function proxiesFor(ports: readonly number[]): Promise<FaultProxy[]> {
  const proxies = await Promise.all(ports.map((port) => startFaultProxy(port)));
  for (const proxy of proxies) endLater(() => proxy.close());
  return proxies;
}

test(
  'three real servers that are killed and frozen, over a network that fails',
  { timeout: 600_000 + SECONDS * 2_000 },
  async () => {
    const ensemble = await startRealEnsemble();
    endLater(() => ensemble.stop());
    const proxies = await proxiesFor(ensemble.ports);
    const kinds = [
      { name: 'delta', mirror: 'auto' },
      { name: 'delta of another process', mirror: 'auto' },
      { name: 'classic', mirror: 'classic' },
    ] as const;
    const mirrors = await openMirrors(proxies, kinds);
    const strike = async (random: Random) => {
      const server = random.pick(ensemble.servers);
      if (random.chance(0.5)) {
        await server.kill();
        await sleep(random.below(1_000));
        await server.start();
        return;
      }
      server.signal('SIGSTOP');
      await sleep(random.below(SESSION_TIMEOUT_MS));
      server.signal('SIGCONT');
    };
    await fuzz(
      { ports: ensemble.ports, proxies, strike, healed: () => ensemble.settled() },
      mirrors,
      SECONDS,
    );
    for (const { follower } of mirrors) await follower.stop();
  },
);

for (const generation of ['3.9', '3.5'] as const) {
  test(
    `embedded server of generation ${generation} that ends sessions, over a network that fails`,
    { timeout: 120_000 + SECONDS * 1_000 },
    async () => {
      const server = await startEmbeddedZooKeeper({ generation });
      endLater(() => server.close());
      const proxies = await proxiesFor([server.port]);
      const kinds = [
        { name: 'auto', mirror: 'auto' },
        { name: 'classic', mirror: 'classic' },
      ] as const;
      const mirrors = await openMirrors(proxies, kinds);
      const strike = async (random: Random) => {
        for (const { id } of server.sessions()) if (random.chance(0.7)) server.expireSession(id);
        await sleep(random.below(500));
      };
      await fuzz(
        { ports: [server.port], proxies, strike, healed: () => Promise.resolve() },
        mirrors,
        SECONDS / 6,
      );
      for (const { follower } of mirrors) await follower.stop();
    },
  );
}
