import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { eventually } from '../support/eventually.ts';
import { follow, instanceOf, limit, openTestRegistry } from '../support/registries.ts';
import { announce, enter, type FaultServer } from './scene.ts';

/** Connections that end at any byte, for a moment or for long. */
export function cutFaults(server: FaultServer): void {
  describe(`${server.kind}: a connection that is cut`, { concurrency: true }, () => {
    test('anywhere in a packet: the client connects again, and nothing is lost', async () => {
      await using scene = await enter(server);
      const watcher = follow(scene.registry, scene.path);
      await watcher.shows();
      const padding = 'x'.repeat(200_000);
      const seen: string[] = [];
      for (const [index, bytes] of [2, 3, 100, 130, 1000, 65_536].entries()) {
        const connects = scene.sessions().length;
        scene.proxy.cutAfter(bytes);
        const record = JSON.stringify({
          host: '10.0.0.1',
          port: 80,
          name: `n-${index}`,
          labels: { padding },
        });
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
      await using scene = await enter(server);
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
      await using scene = await enter(server);
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
      await using scene = await enter(server);
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
      await using scene = await enter(server);
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
      await using scene = await enter(server);
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
      await using scene = await enter(server);
      const neighbour = await openTestRegistry(server.port());
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
      await using scene = await enter(server, { sessionTimeoutMs: 10_000 });
      await announce(scene.registry, scene.path, 'i-1');
      const before = scene.proxy.accepted;
      scene.proxy.acceptThenClose();
      scene.proxy.kill();
      await sleep(4000);
      const attempts = scene.proxy.accepted - before;
      assert.ok(attempts >= 3 && attempts <= 15, `${attempts} attempts in four seconds`);
    });
  });
}
