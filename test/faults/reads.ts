import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { eventually } from '../support/eventually.ts';
import { follow, instanceOf, limit, openTestRegistry } from '../support/registries.ts';
import { connectWire, zk } from '../support/zookeeper-wire.ts';
import { announce, DISCONNECTED, enter, type FaultServer, listenToTrouble } from './scene.ts';

const PING_BYTES = 12;

/** What changes under the hands of a reader. */
export function readFaults(server: FaultServer): void {
  describe(`${server.kind}: what changes while it is read`, { concurrency: true }, () => {
    /** Waits until more than a ping is held up. */
    const isAsked = (held: { bytes(): number }) =>
      eventually(() => assert.ok(held.bytes() > PING_BYTES, `${held.bytes()} bytes are held up`));
    /** The same, where there may be nothing left to ask. */
    const mayBeAsked = (held: { bytes(): number }) =>
      eventually(() => assert.ok(held.bytes() > PING_BYTES), { withinMs: 200 }).catch(() => {});

    test('an instance that is replaced between the reading of the list and of its data is in every snapshot', async () => {
      await using scene = await enter(server);
      const neighbour = await openTestRegistry(server.port());
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
      await using scene = await enter(server, { sessionTimeoutMs: 10_000 });
      const neighbour = await openTestRegistry(server.port());
      const watcher = follow(scene.registry, scene.path);
      await watcher.shows();
      let held = scene.proxy.holdRequests();
      await announce(neighbour, scene.path, 'i-1');
      for (let round = 0; round < 8; round += 1) {
        const child = `${scene.path}/flapping_000000000${round}`;
        await scene.nodes.create(child);
        await mayBeAsked(held);
        held.release();
        held = scene.proxy.holdRequests();
        await mayBeAsked(held);
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
}

/** For servers that enforce what an ACL says. */
export function refusalFaults(server: FaultServer): void {
  describe(`${server.kind}: what is refused`, { concurrency: true }, () => {
    for (const mirror of ['auto', 'classic'] as const) {
      test(`a node that may not be read costs itself only, and is read as soon as it may be (mirror: ${mirror})`, async () => {
        await using scene = await enter(server);
        await scene.nodes.create(scene.path);
        const { registry } = await scene.open({ mirror });
        const watcher = follow(registry, scene.path);
        await watcher.shows();
        const wire = await connectWire(server.port());
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
      await using scene = await enter(server);
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
}
