import assert from 'node:assert/strict';
import { rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import {
  createWorld,
  type Daemon,
  type Routing,
  startTraffic,
  type Traffic,
  watchRouting,
  type World,
} from '@tandem/cli/testing';

import { eventually } from '../support/eventually.ts';
import { type RealZooKeeper, startRealZooKeeper } from '../support/real-zookeeper.ts';
import { connectWire, zk } from '../support/zookeeper-wire.ts';

const NAMES = ['web-1', 'web-2', 'web-3'] as const;
const LIMIT_MS = 30_000;

/** A host with three instances, both daemons, HAProxy and a real ZooKeeper, under steady traffic. */
interface Host extends AsyncDisposable {
  readonly zookeeper: RealZooKeeper;
  readonly world: World;
  readonly routing: Routing;
  readonly traffic: Traffic;
  /** The instances' nodes, and the sessions that own them, as ZooKeeper has them. */
  nodes(): Promise<{ name: string; owner: bigint; port: number }[]>;
  untilRouted(isSo: (ports: ReadonlySet<number>) => boolean, what: string): Promise<void>;
}

async function startHost(): Promise<Host> {
  const zookeeper = await startRealZooKeeper();
  const world = await createWorld(zookeeper.connectString);
  const routing = watchRouting({ socket: world.runtimeSocket, backend: 'web' });
  for (const name of NAMES) {
    await world.startInstance(name);
    await world.writeInstanceFile(name);
  }
  await world.writeServiceFile({ balance: 'roundrobin' });
  world.startDaemon('register');
  world.startDaemon('discover');
  const routed = await routing.until(
    ({ ports }) => NAMES.every((name) => ports.has(world.portOf(name))),
    LIMIT_MS,
  );
  const traffic = startTraffic({ port: world.port, perSecond: 100 });
  const host: Host = {
    zookeeper,
    world,
    routing,
    traffic,
    async nodes() {
      const client = await connectWire(zookeeper.port);
      try {
        const { children = [] } = await zk.getChildren(client, world.registryPath);
        return await Promise.all(
          children
            .map(String)
            .toSorted()
            .map(async (name) => {
              const { data, stat } = await zk.getData(client, `${world.registryPath}/${name}`);
              const { port } = JSON.parse(String(data)) as { port: number };
              return { name, owner: stat?.ephemeralOwner ?? 0n, port };
            }),
        );
      } finally {
        client.destroy();
      }
    },
    async untilRouted(isSo, what) {
      const at = await routing.until(({ ports }) => isSo(ports), LIMIT_MS);
      assert.notEqual(
        at,
        undefined,
        `${what}: HAProxy routes to ${[...(routing.current?.ports ?? [])].join()}`,
      );
    },
    async [Symbol.asyncDispose]() {
      routing.stop();
      await traffic.stop();
      await world.end({ keepFiles: false });
      await zookeeper.stop();
    },
  };
  if (routed === undefined) {
    await host[Symbol.asyncDispose]();
    assert.fail('HAProxy did not come up');
  }
  await traffic.nextAnswer();
  return host;
}

function sorted(ports: Iterable<number>): number[] {
  return [...ports].toSorted((a, b) => a - b);
}

async function restart(host: Host, daemon: Daemon): Promise<void> {
  await host.world.killDaemon(daemon);
  await sleep(1_000);
  host.world.startDaemon(daemon);
  await sleep(4_000);
}

async function assertNothingFailed(host: Host): Promise<void> {
  await host.traffic.stop();
  assert.ok(host.traffic.answered > 20, `only ${host.traffic.answered} requests were answered`);
  assert.deepEqual(host.traffic.failures, []);
}

describe('under traffic', { timeout: 180_000 }, () => {
  test('an instance that is killed leaves rotation and one that starts joins it, without a reload', async () => {
    await using host = await startHost();
    const { world, routing } = host;
    const worker = routing.current?.worker;
    const port = world.portOf('web-2');

    await world.signalInstance('web-2', 'SIGKILL');
    await host.untilRouted((ports) => !ports.has(port) && ports.size === 2, 'after the kill');
    await world.startInstance('web-2');
    await host.untilRouted((ports) => ports.has(port), 'after the start');

    assert.equal(routing.current?.worker, worker);
    assert.deepEqual(await world.reloadReasons(), []);
    await assertNothingFailed(host);
  });

  test('a killed HAProxy comes back by itself with the membership of that moment', async () => {
    await using host = await startHost();
    const { world, routing, traffic } = host;
    await world.startInstance('web-4');
    await world.writeInstanceFile('web-4');
    await host.untilRouted((ports) => ports.has(world.portOf('web-4')), 'after web-4 has joined');
    const before = routing.current;
    const pid = await world.haproxyPid();
    assert.ok(pid !== undefined && before !== undefined);

    const killedAt = performance.now();
    process.kill(pid, 'SIGKILL');
    const backAt = await routing.until((route) => route.worker !== before.worker, LIMIT_MS);
    const answeredAt = await traffic.nextAnswer();

    assert.notEqual(backAt, undefined, 'HAProxy did not come back');
    assert.deepEqual(sorted(routing.current?.ports ?? []), sorted(before.ports));
    await traffic.stop();
    const outside = traffic.failures.filter(
      ({ sentAt, failedAt }) => failedAt < killedAt || sentAt > answeredAt,
    );
    assert.deepEqual(outside, []);
  });

  test('a killed registrar changes no registration: its successor resumes the session and adopts the nodes', async () => {
    await using host = await startHost();
    const before = await host.nodes();
    const seen = host.routing.history.length;
    assert.equal(before.length, NAMES.length);

    await restart(host, 'register');

    assert.deepEqual(await host.nodes(), before);
    assert.equal(host.routing.history.length, seen, 'routing changed');
    // The successor does its work: what dies now is withdrawn.
    await host.world.signalInstance('web-1', 'SIGKILL');
    await host.untilRouted(
      (ports) => !ports.has(host.world.portOf('web-1')),
      'after the successor took over',
    );
    await assertNothingFailed(host);
  });

  test('a killed registrar goes on with services whose files were broken meanwhile, and when all of them are away', async () => {
    await using host = await startHost();
    const { world, zookeeper } = host;
    const services = path.join(world.directory, 'services.d');
    const before = await host.nodes();

    await world.killDaemon('register');
    await writeFile(path.join(services, 'web-1.yaml'), 'service: [\n');
    world.startDaemon('register');
    await sleep(4_000);
    assert.deepEqual(await host.nodes(), before);
    await world.killDaemon('register');
    await rename(services, `${services}.away`);
    world.startDaemon('register');
    await sleep(4_000);
    assert.deepEqual(await host.nodes(), before);

    // It does not only leave them: what dies is withdrawn, and what is lost is announced again.
    await world.signalInstance('web-1', 'SIGKILL');
    await host.untilRouted((ports) => !ports.has(world.portOf('web-1')), 'after web-1 has died');
    await world.startInstance('web-1');
    await host.untilRouted((ports) => ports.has(world.portOf('web-1')), 'after web-1 is back');
    const client = await connectWire(zookeeper.port);
    try {
      for (const { name } of await host.nodes()) await zk.delete(client, `${world.registryPath}/${name}`);
    } finally {
      client.destroy();
    }
    await eventually(async () => assert.equal((await host.nodes()).length, NAMES.length), {
      withinMs: LIMIT_MS,
    });
    await assertNothingFailed(host);
  });

  test('a killed discovery daemon drops no connection: its successor adopts HAProxy and catches up without a reload', async () => {
    await using host = await startHost();
    const { world, routing } = host;
    const worker = routing.current?.worker;
    const pid = await world.haproxyPid();

    await world.killDaemon('discover');
    await world.signalInstance('web-3', 'SIGKILL');
    await sleep(2_000);
    assert.ok(routing.current?.ports.has(world.portOf('web-3')), 'nobody is there to take it out');
    world.startDaemon('discover');
    await host.untilRouted((ports) => !ports.has(world.portOf('web-3')), 'after the restart');

    assert.equal(routing.current?.worker, worker);
    assert.equal(await world.haproxyPid(), pid);
    assert.deepEqual(await world.reloadReasons(), []);
    await assertNothingFailed(host);
  });

  test('20 s without ZooKeeper are a non-event: routing stays, and what happened meanwhile is made up for', async () => {
    await using host = await startHost();
    const { world, routing, zookeeper } = host;
    const seen = routing.history.length;

    await zookeeper.kill();
    await sleep(10_000);
    await world.signalInstance('web-2', 'SIGKILL');
    await sleep(10_000);
    assert.equal(routing.history.length, seen, 'routing changed while ZooKeeper was away');
    assert.ok(world.isDaemonAlive('register') && world.isDaemonAlive('discover'));
    await zookeeper.start();

    await host.untilRouted(
      (ports) => !ports.has(world.portOf('web-2')) && ports.size === 2,
      'after the outage',
    );
    await world.startInstance('web-2');
    await host.untilRouted((ports) => ports.size === 3, 'after web-2 is back');
    const nodes = await eventually(async () => {
      const found = await host.nodes();
      assert.equal(found.length, NAMES.length);
      return found;
    });
    assert.deepEqual(sorted(nodes.map(({ port }) => port)), sorted(NAMES.map((name) => world.portOf(name))));
    assert.deepEqual(await world.reloadReasons(), []);
    await assertNothingFailed(host);
  });

  test('SIGTERM withdraws everything at once, SIGUSR2 leaves it to a successor', async () => {
    await using host = await startHost();
    const before = await host.nodes();

    await host.world.killDaemon('register', 'SIGUSR2');
    assert.deepEqual(await host.nodes(), before);
    host.world.startDaemon('register');
    await sleep(2_000);
    assert.deepEqual(await host.nodes(), before);
    await host.world.killDaemon('register', 'SIGTERM');

    assert.deepEqual(await host.nodes(), []);
    // Those that were there last are kept in HAProxy: an answer that somebody might still give beats none.
    assert.notEqual(host.routing.current?.ports.size, 0);
    await assertNothingFailed(host);
  });

  test('a second daemon on the same state_dir says that one runs already, and ends', async () => {
    await using host = await startHost();
    const before = await host.nodes();

    host.world.startDaemon('register');
    await eventually(() => assert.equal(host.world.isDaemonAlive('register'), false), { withinMs: LIMIT_MS });

    assert.deepEqual(await host.nodes(), before);
    await assertNothingFailed(host);
  });
});
