// What can go wrong between the registry and a real ZooKeeper, each fault by a proxy in between or by the server itself.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { type Log, silentLog } from '@tandem/core';
import { startEmbeddedZooKeeper } from '@tandem/embedded-zookeeper';
import type { Registry } from '@tandem/registry';
import {
  type ConnectionEvent,
  create,
  createDialer,
  exists,
  getData,
  openConnection,
} from '@tandem/registry/testing';

import { eventually } from '../support/eventually.ts';
import { startFaultProxy } from '../support/fault-proxy.ts';
import { type RealZooKeeper, startRealZooKeeper } from '../support/real-zookeeper.ts';
import {
  endLater,
  follow,
  instanceOf,
  limit,
  listen,
  nodesOf,
  noSurprises,
  type OpenOptions,
  openTestRegistry,
  spawnRegistry,
} from '../support/registries.ts';
import { connectWire, zk } from '../support/zookeeper-wire.ts';

const TICK_MS = 500;
const PING_BYTES = 12;
const CONNECTED = 'connected to ZooKeeper';
const DISCONNECTED = 'lost the connection';
const EXPIRED = 'session has expired';

let server: RealZooKeeper;
let count = 0;

before(async () => {
  server = await startRealZooKeeper({ tickTimeMs: TICK_MS });
});
after(() => server.stop());
noSurprises();

/** A registry behind a proxy of its own, with a path that no other test uses. */
async function enter(options: OpenOptions = {}) {
  count += 1;
  const path = `/faults/${count}`;
  const proxy = await startFaultProxy(server.port);
  const registries: Registry[] = [];
  const open = async (more: OpenOptions = {}, ports: readonly number[] = [proxy.port]) => {
    const { log, lines, said } = listen();
    const registry = await openTestRegistry(ports, { log, ...options, ...more });
    registries.push(registry);
    const sessions = () => said(CONNECTED).map(({ facts }) => facts['session']);
    return { registry, lines, said, sessions };
  };
  return {
    path,
    proxy,
    nodes: nodesOf(server.port),
    open,
    ...(await open()),
    async [Symbol.asyncDispose]() {
      proxy.pass();
      proxy.kill();
      await Promise.all(registries.map((registry) => registry.close()));
      await proxy.close();
    },
  };
}

/** A log that remembers warnings and errors only. */
function listenToTrouble() {
  const { log, said } = listen();
  const loud: Log = { ...silentLog, warn: log.warn, error: log.error, child: () => loud };
  return { log: loud, said };
}

async function announce(registry: Registry, path: string, ...instance: Parameters<typeof instanceOf>) {
  const announcer = registry.announce(path, instanceOf(...instance));
  announcer.set(instanceOf(...instance));
  await announcer.agreed(limit());
  return announcer;
}

describe('registry faults: a peer that falls silent', { concurrency: true }, () => {
  test('a blackhole is left in two thirds of the session timeout; session and nodes live on', async () => {
    await using scene = await enter({ sessionTimeoutMs: 4000 });
    await announce(scene.registry, scene.path, 'i-1');
    const before = await scene.nodes.children(scene.path);
    const since = performance.now();
    scene.proxy.blackhole();
    const [left] = await eventually(() => {
      const said = scene.said(DISCONNECTED);
      assert.equal(said.length, 1);
      return said;
    });
    const took = (left?.at ?? Infinity) - since;
    assert.ok(took < (4000 * 2) / 3 + 200 + 800, `left after ${Math.round(took)} ms`);
    assert.match(String(left?.facts['reason']), /no answer for \d+ ms/);
    assert.equal(scene.registry.status.state, 'suspended');
    scene.proxy.pass();
    await eventually(() => assert.equal(scene.sessions().length, 2));
    assert.equal(new Set(scene.sessions()).size, 1, 'the same session');
    assert.deepEqual(await scene.nodes.children(scene.path), before);
  });

  test('a peer that accepts and says nothing is left within the handshake limit, for another server', async () => {
    await using scene = await enter({ sessionTimeoutMs: 3000 });
    await using mute = await startFaultProxy(server.port);
    mute.acceptOnly();
    const since = performance.now();
    const [alone, choosing] = await Promise.all([
      scene.open({}, [mute.port]),
      scene.open({}, [mute.port, scene.proxy.port]),
    ]);
    await eventually(() => assert.equal(choosing.sessions().length, 1));
    assert.ok(performance.now() - since < 1000 + 2000, `${Math.round(performance.now() - since)} ms`);
    await eventually(() => assert.ok(mute.accepted >= 4, `${mute.accepted} attempts`));
    assert.equal(alone.registry.status.state, 'connecting');
    mute.pass();
    await eventually(() => assert.equal(alone.registry.status.state, 'connected'));
    await Promise.all([alone.registry.close(), choosing.registry.close()]);
  });

  test('close under a blackhole ends within about two seconds', async () => {
    await using scene = await enter();
    await announce(scene.registry, scene.path, 'i-1');
    scene.proxy.blackhole();
    const since = performance.now();
    await scene.registry.close();
    const took = performance.now() - since;
    assert.ok(took < 3500, `${Math.round(took)} ms`);
    assert.equal(scene.registry.status.state, 'closed');
  });

  test('what close could not withdraw is found by a successor that comes in time', async () => {
    await using directory = await temporaryDirectory();
    await using scene = await enter({
      resumeFile: path.join(directory.name, 'session.json'),
      sessionTimeoutMs: 8000,
    });
    await announce(scene.registry, scene.path, 'i-1');
    await announce(scene.registry, scene.path, 'i-2');
    const before = await scene.nodes.children(scene.path);
    scene.proxy.blackhole();
    await scene.registry.close();
    scene.proxy.kill();
    scene.proxy.pass();
    const { registry } = await scene.open();
    await announce(registry, scene.path, 'i-2');
    registry.withdrawUnclaimed();
    await eventually(async () =>
      assert.deepEqual(
        await scene.nodes.children(scene.path),
        before.filter((child) => child.startsWith('i-2_')),
      ),
    );
  });

  test('close while connecting, to a mute peer or to nobody, ends at once', async () => {
    await using scene = await enter();
    scene.proxy.acceptOnly();
    const gone = await startFaultProxy(1);
    await gone.close();
    for (const port of [scene.proxy.port, gone.port]) {
      const { registry } = await scene.open({}, [port]);
      registry.announce(scene.path, instanceOf('i-1')).set(instanceOf('i-1'));
      await sleep(300);
      const since = performance.now();
      await registry.close();
      assert.ok(performance.now() - since < 1000);
    }
  });

  test('what was given up is not sent any more, and sets no watch when its answer comes late', async () => {
    await using proxy = await startFaultProxy(server.port);
    const { connection, connected } = openTestConnection(proxy.port, 10_000);
    await connected();
    let calls = 0;
    proxy.blackhole();
    const asked = connection.run(exists('/deadline', true), {
      signal: AbortSignal.timeout(300),
      onWatch: () => (calls += 1),
    });
    // As many as may wait for an answer at a time, and one that has to wait for its turn.
    for (let index = 1; index < 250; index += 1) void connection.run(exists('/'), { signal: limit() });
    const late = connection.run(create('/given-up', '', 'persistent'), { signal: AbortSignal.timeout(300) });
    const refused = assert.rejects(late, { name: 'TimeoutError' });
    await sleep(600);
    proxy.pass();
    // Its caller is gone, so the answer does no harm.
    await Promise.all([asked, refused]);
    assert.equal(await connection.run(exists('/given-up'), { signal: limit() }), undefined);
    await nodesOf(server.port).create('/deadline');
    await connection.run(getData('/deadline'), { signal: limit() });
    assert.equal(calls, 0);
    await connection.close({ keepSession: false });
  });
});

describe('registry faults: a busy session', { concurrency: true }, () => {
  test('steady events without a request keep the session', async () => {
    const { connection, connected, events } = openTestConnection(server.port, 2000);
    await connected();
    const nodes = nodesOf(server.port);
    const names = Array.from({ length: 16 }, (_, index) => `/steady-${index}`);
    let heard = 0;
    for (const name of names)
      await connection.run(exists(name, true), { signal: limit(), onWatch: () => (heard += 1) });
    for (const name of names) {
      await nodes.create(name);
      await sleep(250);
    }
    assert.equal(heard, names.length);
    assert.deepEqual(events, ['connected']);
    await connection.close({ keepSession: false });
  });

  test('more than a megabyte of watches is re-armed in parts, and what was missed is heard', async () => {
    await using proxy = await startFaultProxy(server.port);
    const { connection, connected, events } = openTestConnection(proxy.port, 10_000);
    await connected();
    const long = 'a-rather-long-name-that-is-typical-of-large-organisations';
    const names = Array.from({ length: 12_500 }, (_, index) => `/rearmed-${long}/${long}-${index}`);
    let heard: string[] = [];
    await Promise.all(
      names.map((name) =>
        connection.run(exists(name, true), { signal: limit(60_000), onWatch: () => heard.push(name) }),
      ),
    );
    const [first = '', last = ''] = [names[0], names.at(-1)];
    const nodes = nodesOf(server.port);
    const before = proxy.bytesToServer;
    proxy.acceptThenClose();
    proxy.kill();
    await nodes.create(last);
    await sleep(500);
    proxy.pass();
    await connected(2);
    await eventually(() => assert.deepEqual(heard, [last]));
    const sent = proxy.bytesToServer - before;
    const size = names.reduce((sum, name) => sum + name.length + 4, 0);
    assert.ok(size > 1_100_000 && sent < size * 1.1, `${sent} bytes for ${size} bytes of watches`);
    heard = [];
    await nodes.create(first);
    await eventually(() => assert.deepEqual(heard, [first]));
    assert.deepEqual(events, ['connected', 'disconnected', 'connected']);
    await connection.close({ keepSession: false });
    await nodes.remove(`/rearmed-${long}`);
  });
});

describe('registry faults: a connection that is cut', { concurrency: true }, () => {
  test('anywhere in a packet: the client connects again, and nothing is lost', async () => {
    await using scene = await enter();
    const watcher = follow(scene.registry, scene.path);
    await watcher.shows();
    const padding = 'x'.repeat(200_000);
    const seen: string[] = [];
    for (const [index, bytes] of [2, 3, 100, 130, 1000, 65_536].entries()) {
      const connects = scene.sessions().length;
      scene.proxy.cutAfter(bytes);
      const record = JSON.stringify({ host: '10.0.0.1', port: 80, name: `n-${index}`, labels: { padding } });
      await scene.nodes.create(`${scene.path}/n-${index}_000000000${index}`, record);
      seen.push(`n-${index}`);
      await watcher.shows(...seen);
      assert.ok(scene.sessions().length > connects, `the cut after ${bytes} bytes was felt`);
    }
    assert.equal(new Set(scene.sessions()).size, 1, 'the same session');
    assert.deepEqual(watcher.latest?.rejected, []);
    await watcher.stop();
  });

  test('in the middle of an announcement: it is there once', async () => {
    await using scene = await enter();
    const announcer = await announce(scene.registry, scene.path, 'i-1', 0);
    for (let weight = 1; weight <= 12; weight += 1) {
      // From the answer to the create on: its head, its body, the read that follows, the delete of the old one.
      scene.proxy.cutAfter([1, 4, 21, 40, 60, 90, 130, 150, 170, 200, 230, 260][weight - 1] ?? 1);
      announcer.set(instanceOf('i-1', weight));
      await announcer.agreed(limit());
      const records = await scene.nodes.records(scene.path);
      assert.deepEqual(
        records.map((record) => (JSON.parse(record) as { weight: number }).weight),
        [weight],
      );
      scene.proxy.cutAfter(Infinity);
    }
    assert.ok(scene.sessions().length > 3, 'cuts were felt');
  });

  test('a create that reaches the server after the next connection stands makes no second node', async () => {
    await using scene = await enter();
    const announcer = await announce(scene.registry, scene.path, 'i-1', 1);
    await sleep(100);
    const held = scene.proxy.holdRequests();
    announcer.set(instanceOf('i-1', 2));
    await eventually(() => assert.ok(held.bytes() > 60, 'the create is on its way'));
    held.dropClients();
    await announcer.agreed(limit());
    held.release();
    await sleep(500);
    assert.equal((await scene.nodes.children(scene.path)).length, 1);
  });

  test('again and again, while the wish changes: at the end the last one stands, once', async () => {
    await using scene = await enter();
    const announcers = ['a', 'b', 'c', 'd'].map((name) =>
      scene.registry.announce(scene.path, instanceOf(name)),
    );
    const names = ['a', 'b', 'c', 'd'] as const;
    const watcher = follow(scene.registry, scene.path);
    for (let round = 1; round <= 60; round += 1) {
      for (const [index, announcer] of announcers.entries())
        announcer.set((round + index) % 3 === 0 ? undefined : instanceOf(names[index] ?? '', round));
      if (round % 4 === 0) scene.proxy.cutAfter((round * 37) % 400);
      if (round % 10 === 0) scene.proxy.reset();
      await sleep(15);
    }
    scene.proxy.cutAfter(Infinity);
    for (const [index, announcer] of announcers.entries())
      announcer.set(index === 0 ? undefined : instanceOf(names[index] ?? '', 1000 + index));
    await Promise.all(announcers.map((announcer) => announcer.agreed(limit())));
    const children = (await scene.nodes.children(scene.path)).map((child) => child.replace(/_\d+$/, ''));
    assert.deepEqual(children.toSorted(), ['b', 'c', 'd']);
    await watcher.shows('b:1001', 'c:1002', 'd:1003');
    assert.equal(new Set(scene.sessions()).size, 1, 'the same session');
    await watcher.stop();
  });

  test('a wish that is withdrawn during the outage is withdrawn after it', async () => {
    await using scene = await enter();
    const announcer = await announce(scene.registry, scene.path, 'i-1');
    await announce(scene.registry, scene.path, 'i-2');
    scene.proxy.acceptThenClose();
    scene.proxy.kill();
    await eventually(() => assert.equal(scene.registry.status.state, 'suspended'));
    announcer.set(undefined);
    await sleep(1000);
    assert.equal((await scene.nodes.children(scene.path)).length, 2);
    scene.proxy.pass();
    await announcer.agreed(limit());
    const [child, ...others] = await scene.nodes.children(scene.path);
    assert.match(child ?? '', /^i-2_/);
    assert.deepEqual(others, []);
  });

  test('a path that was deleted and made anew meanwhile is read anew, though its names are the same', async () => {
    await using scene = await enter();
    const record = (weight: number) => JSON.stringify({ host: '10.0.0.1', port: 80, name: 'i-1', weight });
    const node = `${scene.path}/i-1_0000000000`;
    await scene.nodes.create(node, record(1));
    const watcher = follow(scene.registry, scene.path);
    await watcher.shows('i-1:1');
    scene.proxy.acceptThenClose();
    scene.proxy.kill();
    await eventually(() => assert.equal(scene.registry.status.state, 'suspended'));
    await scene.nodes.remove(scene.path);
    await scene.nodes.create(node, record(2));
    scene.proxy.pass();
    await watcher.shows('i-1:2');
    assert.equal(watcher.snapshots.length, 2);
    await watcher.stop();
  });

  test('what was wished and taken back during the outage was never there', async () => {
    await using scene = await enter();
    const neighbour = await openTestRegistry(server.port);
    const watcher = follow(neighbour, scene.path);
    const doomed = scene.registry.announce(scene.path, instanceOf('doomed'));
    const changing = await announce(scene.registry, scene.path, 'changing', 1);
    await watcher.shows('changing:1');
    scene.proxy.acceptThenClose();
    scene.proxy.kill();
    await eventually(() => assert.equal(scene.registry.status.state, 'suspended'));
    for (let weight = 2; weight <= 5; weight += 1) {
      doomed.set(instanceOf('doomed'));
      changing.set(instanceOf('changing', weight));
      await sleep(20);
    }
    doomed.set(undefined);
    scene.proxy.pass();
    await Promise.all([doomed, changing].map((announcer) => announcer.agreed(limit())));
    await watcher.shows('changing:5');
    // The one before has number 0: nothing else was made in between.
    assert.deepEqual(await scene.nodes.children(scene.path), ['changing_0000000001']);
    await watcher.stop();
    await neighbour.close();
  });

  test('attempts to connect become rare: no storm while the server turns everybody away', async () => {
    await using scene = await enter({ sessionTimeoutMs: 10_000 });
    await announce(scene.registry, scene.path, 'i-1');
    const before = scene.proxy.accepted;
    scene.proxy.acceptThenClose();
    scene.proxy.kill();
    await sleep(4000);
    const attempts = scene.proxy.accepted - before;
    assert.ok(attempts >= 3 && attempts <= 15, `${attempts} attempts in four seconds`);
  });
});

describe('registry faults: what changes while it is read', { concurrency: true }, () => {
  /** Waits until more than a ping is held up. */
  const isAsked = (held: { bytes(): number }) =>
    eventually(() => assert.ok(held.bytes() > PING_BYTES, `${held.bytes()} bytes are held up`));

  test('an instance that is replaced between the reading of the list and of its data is in every snapshot', async () => {
    await using scene = await enter();
    const neighbour = await openTestRegistry(server.port);
    const announcer = await announce(neighbour, scene.path, 'i-1', 1);
    const watcher = follow(scene.registry, scene.path);
    await watcher.shows('i-1:1');
    const list = scene.proxy.holdRequests();
    announcer.set(instanceOf('i-1', 2));
    await announcer.agreed(limit());
    await isAsked(list);
    list.release();
    const data = scene.proxy.holdRequests();
    await isAsked(data);
    announcer.set(instanceOf('i-1', 3));
    await announcer.agreed(limit());
    data.release();
    await watcher.shows('i-1:3');
    assert.ok(watcher.snapshots.every(({ instances }) => instances.length === 1));
    await watcher.stop();
    await neighbour.close();
  });

  test('children that come and go faster than they can be read hold up no other', async () => {
    await using scene = await enter({ sessionTimeoutMs: 10_000 });
    const neighbour = await openTestRegistry(server.port);
    const watcher = follow(scene.registry, scene.path);
    await watcher.shows();
    let held = scene.proxy.holdRequests();
    await announce(neighbour, scene.path, 'i-1');
    for (let round = 0; round < 8; round += 1) {
      const child = `${scene.path}/flapping_000000000${round}`;
      await scene.nodes.create(child);
      await isAsked(held);
      held.release();
      held = scene.proxy.holdRequests();
      await isAsked(held);
      await scene.nodes.remove(child);
      held.release();
      held = scene.proxy.holdRequests();
    }
    await watcher.shows('i-1');
    assert.equal(scene.sessions().length, 1, 'on the same connection');
    held.release();
    await watcher.stop();
    await neighbour.close();
  });
});

describe('registry faults: a session that ends', { concurrency: true }, () => {
  test('cut off for longer than the timeout: announced again within a second of the new session', async () => {
    await using scene = await enter({ sessionTimeoutMs: 2000 });
    const neighbour = await openTestRegistry(server.port);
    const watcher = follow(neighbour, scene.path);
    const own = follow(scene.registry, scene.path);
    const announcer = await announce(scene.registry, scene.path, 'i-1', 1);
    await Promise.all([watcher.shows('i-1:1'), own.shows('i-1:1')]);
    scene.proxy.blackhole();
    await watcher.shows();
    announcer.set(instanceOf('i-1', 2));
    scene.proxy.pass();
    await eventually(() => assert.equal(scene.sessions().length, 2));
    const since = scene.said(CONNECTED).at(-1)?.at ?? 0;
    await watcher.shows('i-1:2');
    assert.ok(performance.now() - since < 1000, `${Math.round(performance.now() - since)} ms`);
    assert.equal(new Set(scene.sessions()).size, 2, 'another session');
    assert.equal((await scene.nodes.children(scene.path)).length, 1);
    await own.shows('i-1:2');
    // Nothing was taken back while the registry was away.
    assert.ok(
      own.snapshots.slice(1).every(({ instances }) => instances.length > 0) || own.snapshots.length <= 4,
    );
    await Promise.all([watcher.stop(), own.stop()]);
    await neighbour.close();
  });

  test('ended by the server in the middle of everything, many times: every instance stands once', async () => {
    await using embedded = await startEmbeddedZooKeeper();
    const { log, said } = listen();
    const registry = await openTestRegistry(embedded.port, { log });
    const nodes = nodesOf(embedded.port);
    const watcher = follow(registry, '/web');
    const announcers = await Promise.all(
      Array.from({ length: 5 }, (_, index) => announce(registry, '/web', `i-${index}`, 0)),
    );
    for (let round = 1; round <= 8; round += 1) {
      const since = performance.now();
      for (const [index, announcer] of announcers.entries()) announcer.set(instanceOf(`i-${index}`, round));
      if (round % 2 === 0) await sleep(round);
      const [session] = embedded.sessions().filter(({ ephemerals }) => ephemerals.length > 0);
      assert.ok(session !== undefined && embedded.expireSession(session.id));
      await eventually(() => assert.equal(said(EXPIRED).length, round));
      await Promise.all(announcers.map((announcer) => announcer.agreed(limit())));
      await eventually(async () => {
        const owners = embedded.sessions().filter(({ ephemerals }) => ephemerals.length > 0);
        assert.deepEqual(
          owners.map(({ id, ephemerals }) => [id === session.id, ephemerals.length]),
          [[false, announcers.length]],
        );
        assert.equal((await nodes.children('/web')).length, announcers.length);
      });
      await watcher.shows(...announcers.map((_, index) => `i-${index}:${round}`));
      assert.ok(
        performance.now() - since < 3000,
        `round ${round}: ${Math.round(performance.now() - since)} ms`,
      );
    }
    await watcher.stop();
    await registry.close();
    assert.deepEqual(await nodes.children('/web'), []);
  });

  test('a resumed session that the server has ended gives way to a new one', async () => {
    await using embedded = await startEmbeddedZooKeeper();
    await using directory = await temporaryDirectory();
    const resumeFile = path.join(directory.name, 'session.json');
    const first = await openTestRegistry(embedded.port, { resumeFile });
    await announce(first, '/web', 'i-1');
    await first.close({ keep: true });
    const [session] = embedded.sessions().filter(({ ephemerals }) => ephemerals.length > 0);
    assert.ok(session !== undefined && embedded.expireSession(session.id));

    const { log, said } = listen();
    const second = await openTestRegistry(embedded.port, { resumeFile, log });
    second.withdrawUnclaimed();
    await announce(second, '/web', 'i-1');
    assert.equal(said(EXPIRED).length, 1);
    const saved = JSON.parse(await readFile(resumeFile, 'utf8')) as { session_id: string };
    const owners = embedded.sessions().filter(({ ephemerals }) => ephemerals.length > 0);
    assert.deepEqual(
      owners.map(({ id, ephemerals }) => [String(id), ephemerals.length]),
      [[saved.session_id, 1]],
    );
    await second.close();
  });

  test('a saved session with a wrong password or of nobody gives way to a new one', async () => {
    await using directory = await temporaryDirectory();
    const resumeFile = path.join(directory.name, 'session.json');
    await using scene = await enter({ resumeFile });
    await announce(scene.registry, scene.path, 'i-1');
    const saved = JSON.parse(await readFile(resumeFile, 'utf8')) as Record<string, unknown>;
    for (const change of [{ password: 'AAAA' }, { session_id: '-5' }]) {
      await writeFile(resumeFile, JSON.stringify({ ...saved, ...change }));
      const { registry, sessions } = await scene.open();
      await announce(registry, scene.path, 'i-2');
      assert.equal(sessions().length, 1);
      await registry.close();
    }
    assert.equal((await scene.nodes.children(scene.path)).length, 1);
  });
});

describe('registry faults: what is refused', { concurrency: true }, () => {
  for (const mirror of ['auto', 'classic'] as const) {
    test(`a node that may not be read costs itself only, and is read as soon as it may be (mirror: ${mirror})`, async () => {
      await using scene = await enter();
      await scene.nodes.create(scene.path);
      const { registry } = await scene.open({ mirror });
      const watcher = follow(registry, scene.path);
      await watcher.shows();
      const wire = await connectWire(server.port);
      const child = `${scene.path}/i-1_0000000000`;
      const record = (name: string) => JSON.stringify({ host: '10.0.0.1', port: 80, name });
      const acl = (permissions: number) => [{ permissions, scheme: 'world', id: 'anyone' }];
      const [everything, allButRead] = [31, 30];
      await zk.create(wire, { path: child, data: record('i-1'), acl: acl(allButRead) });
      // Newer servers say nothing of such a node: it is missed when the next one comes.
      await zk.create(wire, { path: `${scene.path}/i-2_0000000001`, data: record('i-2') });
      await watcher.shows('i-2');
      await eventually(() => {
        const [rejection] = watcher.latest?.rejected ?? [];
        assert.equal(rejection?.place, 'i-1_0000000000');
        assert.match(rejection.reason, /NO_AUTH/);
      });
      await zk.setAcl(wire, child, acl(everything));
      await watcher.shows('i-1', 'i-2');
      assert.deepEqual(watcher.latest?.rejected, []);
      await scene.nodes.remove(child);
      await watcher.shows('i-2');
      await watcher.stop();
      wire.destroy();
    });
  }

  test('a lost connection is told of by the session, not by every path that is watched', async () => {
    await using scene = await enter();
    const { log, said } = listenToTrouble();
    const { registry } = await scene.open({ log });
    const watcher = follow(registry, scene.path);
    await watcher.shows();
    scene.proxy.acceptThenClose();
    scene.proxy.kill();
    await eventually(() => assert.equal(said(DISCONNECTED).length, 1));
    await scene.nodes.create(`${scene.path}/i-1_0000000000`);
    await sleep(500);
    assert.deepEqual(said('could not read the instances'), []);
    await watcher.stop();
  });
});

describe('registry faults: a session that cannot be saved', () => {
  test('it is told of once and tried until it works, while the instance is announced', async () => {
    await using directory = await temporaryDirectory();
    const resumeFile = path.join(directory.name, 'missing', 'session.json');
    const trouble = listenToTrouble();
    await using scene = await enter();
    const { registry } = await scene.open({ resumeFile, log: trouble.log });
    await announce(registry, scene.path, 'i-1');
    await sleep(1000);
    assert.equal(trouble.said('cannot save the session').length, 1);
    await mkdir(path.dirname(resumeFile));
    const saved = await eventually(
      async () => JSON.parse(await readFile(resumeFile, 'utf8')) as { paths: string[] },
    );
    assert.deepEqual(saved.paths, [scene.path]);
    await registry.close();
  });
});

describe('registry faults: a server that goes away', () => {
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

describe('registry faults: a process that is killed', () => {
  test('its successor resumes the session and adopts its nodes, though nobody has closed anything', async () => {
    await using scene = await enter({ sessionTimeoutMs: 10_000 });
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
    await using scene = await enter();
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

describe('registry faults: the end', () => {
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

function openTestConnection(port: number, sessionTimeoutMs: number) {
  const events: ConnectionEvent['kind'][] = [];
  const connection = openConnection({
    dialer: createDialer({ servers: [{ host: '127.0.0.1', port }], log: silentLog }),
    sessionTimeoutMs,
    resume: undefined,
    onEvent: ({ kind }) => void events.push(kind),
  });
  endLater(() => connection.close({ keepSession: false }));
  const connected = (times = 1) =>
    eventually(() => assert.equal(events.filter((kind) => kind === 'connected').length, times));
  return { connection, connected, events };
}

async function temporaryDirectory(): Promise<{ name: string } & AsyncDisposable> {
  const name = await mkdtemp(path.join(tmpdir(), 'tandem-faults-'));
  return { name, [Symbol.asyncDispose]: () => rm(name, { recursive: true, force: true }) };
}
