// What can go wrong between the registry and a real ZooKeeper, each fault by a proxy in between or by the server itself.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { refusalFaults } from '../faults/reads.ts';
import {
  announce,
  CONNECTED,
  enter,
  EXPIRED,
  type FaultServer,
  temporaryDirectory,
} from '../faults/scene.ts';
import { faultSuites } from '../faults/suites.ts';
import { eventually } from '../support/eventually.ts';
import { startFaultProxy } from '../support/fault-proxy.ts';
import { type RealZooKeeper, startRealZooKeeper } from '../support/real-zookeeper.ts';
import {
  follow,
  instanceOf,
  limit,
  listen,
  nodesOf,
  noSurprises,
  openTestRegistry,
  spawnRegistry,
} from '../support/registries.ts';
import { askWord } from '../support/zookeeper-wire.ts';

const TICK_MS = 500;

let server: RealZooKeeper;
const faultServer: FaultServer = { kind: 'registry faults on a real server', port: () => server.port };

before(async () => {
  server = await startRealZooKeeper({ tickTimeMs: TICK_MS });
});
after(() => server.stop());
noSurprises();

faultSuites(faultServer);
refusalFaults(faultServer);

describe('registry faults on a real server: a server that goes away', () => {
  test('killed and back after seconds with its data: same session, one node each, and watchers see it right', async () => {
    await using own = await startRealZooKeeper({ tickTimeMs: TICK_MS });
    const nodes = nodesOf(own.port);
    const logs = [listen(), listen()];
    const registries = await Promise.all(logs.map(({ log }) => openTestRegistry(own.port, { log })));
    const [first, second] = registries;
    assert.ok(first !== undefined && second !== undefined);
    const changing = await announce(first, '/web', 'changing', 1);
    const leaving = await announce(first, '/web', 'leaving', 1);
    await announce(second, '/web', 'staying', 1);
    const watchers = registries.map((registry) => follow(registry, '/web'));
    const missing = follow(second, '/later');
    for (const watcher of watchers) await watcher.shows('changing:1', 'leaving:1', 'staying:1');
    await missing.shows();
    const staying = (await nodes.children('/web')).filter((child) => child.startsWith('staying'));

    await own.kill();
    const coming = second.announce('/later', instanceOf('coming'));
    changing.set(instanceOf('changing', 2));
    leaving.set(undefined);
    coming.set(instanceOf('coming'));
    // Longer than the timeout of the sessions, which live on in the data of the server.
    await sleep(5000);
    for (const watcher of watchers) await watcher.shows('changing:1', 'leaving:1', 'staying:1');
    await own.start();

    await Promise.all([changing, leaving, coming].map((announcer) => announcer.agreed(limit())));
    for (const watcher of watchers) await watcher.shows('changing:2', 'staying:1');
    await missing.shows('coming');
    assert.deepEqual(
      (await nodes.children('/web')).filter((child) => child.startsWith('staying')),
      staying,
    );
    assert.equal((await nodes.children('/web')).length, 2);
    for (const { said } of logs) {
      assert.equal(new Set(said(CONNECTED).map(({ facts }) => facts['session'])).size, 1, 'the same session');
      assert.equal(said(EXPIRED).length, 0);
    }
    for (const watcher of watchers)
      assert.ok(
        watcher.snapshots.every((snapshot) => snapshot.instances.length >= 2),
        'nobody saw a gap',
      );
    await Promise.all([...watchers, missing].map((watcher) => watcher.stop()));
    await Promise.all(registries.map((registry) => registry.close()));
    assert.deepEqual(await nodes.children('/web'), []);
  });

  test('its data wiped: the client learns that its session is gone, and announces anew', async () => {
    await using own = await startRealZooKeeper({ tickTimeMs: TICK_MS });
    const { log, said } = listen();
    const registry = await openTestRegistry(own.port, { log, sessionTimeoutMs: 2000 });
    const nodes = nodesOf(own.port);
    for (let index = 0; index < 20; index += 1) await nodes.create(`/history-${index}`);
    await announce(registry, '/web', 'i-1', 1);
    const watcher = follow(registry, '/web');
    await watcher.shows('i-1:1');
    await own.kill();
    await rm(path.join(own.dir, 'version-2'), { recursive: true });
    await own.start();
    await eventually(() => assert.equal(said(EXPIRED).length, 1));
    await eventually(async () => assert.equal((await nodes.children('/web')).length, 1));
    // The same name as in the former life of the path, with other data.
    const [name] = await nodes.children('/web');
    assert.equal(name, 'i-1_0000000000');
    await watcher.shows('i-1:1');
    await watcher.stop();
    await registry.close();
  });
});

describe('registry faults on a real server: a process that is killed', () => {
  test('its successor resumes the session and adopts its nodes, though nobody has closed anything', async () => {
    await using scene = await enter(faultServer, { sessionTimeoutMs: 10_000 });
    await using directory = await temporaryDirectory();
    const resumeFile = path.join(directory.name, 'session.json');
    const doomed = spawnRegistry(server.port, { path: scene.path, names: ['i-1', 'i-2'], resumeFile });
    const watcher = follow(scene.registry, scene.path);
    await watcher.shows('i-1', 'i-2');
    const before = await scene.nodes.children(scene.path);
    doomed.kill('SIGKILL');
    await once(doomed, 'exit');

    const successor = await scene.open({ resumeFile }, [server.port]);
    await announce(successor.registry, scene.path, 'i-1');
    successor.registry.withdrawUnclaimed();
    await watcher.shows('i-1');
    const kept = before.filter((child) => child.startsWith('i-1_'));
    assert.deepEqual(await scene.nodes.children(scene.path), kept);
    assert.ok(watcher.snapshots.slice(1).every(({ instances }) => instances.length > 0));
    assert.equal(successor.said(EXPIRED).length, 0);
    await watcher.stop();
  });

  test('a process that closes its registry ends by itself', async () => {
    await using scene = await enter(faultServer);
    await using directory = await temporaryDirectory();
    for (const end of ['close', 'keep'] as const) {
      const resumeFile = path.join(directory.name, `${end}.json`);
      const child = spawnRegistry(server.port, { path: scene.path, names: ['i-1'], resumeFile, end });
      const since = performance.now();
      const [code] = (await once(child, 'exit')) as [number | null];
      assert.equal(code, 0);
      assert.ok(performance.now() - since < 10_000);
    }
  });
});

describe('registry faults on a real server: what a watch costs the server', () => {
  test('a watch that nobody needs any more is taken off, one that somebody else needs stays', async () => {
    // Of its own, so that nobody else watches anything.
    await using own = await startRealZooKeeper({ tickTimeMs: TICK_MS });
    const watched = async () => {
      const [, count] = /^zk_watch_count\s+(\d+)$/m.exec(await askWord(own.port, 'mntr')) ?? [];
      return Number(count);
    };
    const registry = await openTestRegistry(own.port);
    const staying = follow(registry, '/watched/0');
    await staying.shows();
    const before = await watched();
    assert.ok(before > 0);
    for (let round = 0; round < 3; round += 1) {
      const paths = Array.from({ length: 20 }, (_, index) => `/watched/${index}`);
      const watchers = paths.map((at) => follow(registry, at));
      await Promise.all(watchers.map((watcher) => watcher.shows()));
      assert.equal(await watched(), 20 * before);
      await Promise.all(watchers.map((watcher) => watcher.stop()));
      await eventually(async () => assert.equal(await watched(), before));
    }
    const record = JSON.stringify({ host: '10.0.0.1', port: 80, name: 'i-1' });
    await nodesOf(own.port).create('/watched/0/i-1_0000000000', record);
    await staying.shows('i-1');
    await staying.stop();
    await registry.close();
  });
});

describe('registry faults on a real server: the end', () => {
  test('nothing is left behind that would keep a process alive', async () => {
    await using directory = await temporaryDirectory();
    const timers = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
    const before = timers();
    for (const [keep, isCutOff] of [
      [false, false],
      [true, false],
      [false, true],
      [true, true],
    ] as const) {
      await using proxy = await startFaultProxy(server.port);
      const resumeFile = path.join(directory.name, 'session.json');
      const registry = await openTestRegistry(proxy.port, { resumeFile });
      await announce(registry, '/leftovers', 'i-1', 1);
      const watcher = follow(registry, '/leftovers');
      await watcher.shows('i-1:1');
      // Waits of every kind are running now: to connect again, to announce again, to read again.
      const refused = registry.announce('/leftovers/i-1_0000000000/x', instanceOf('i-2'));
      refused.set(instanceOf('i-2'));
      registry.withdrawUnclaimed();
      await sleep(300);
      if (isCutOff) {
        proxy.acceptThenClose();
        proxy.kill();
        await sleep(300);
      }
      await registry.close({ keep });
      await watcher.stop();
      await proxy.close();
      assert.ok(timers() <= before, `${timers()} timers, ${before} before`);
    }
  });
});
