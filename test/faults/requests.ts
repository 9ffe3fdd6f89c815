import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, test } from 'node:test';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';

import { create, exists, getData } from '@tandem/registry/testing';

import { eventually } from '../support/eventually.ts';
import { startFaultProxy } from '../support/fault-proxy.ts';
import { limit, nodesOf } from '../support/registries.ts';
import { catchManager, type FaultServer, openTestConnection } from './scene.ts';

/** Sessions with much to say and much to hear. */
export function requestFaults(server: FaultServer): void {
  describe(`${server.kind}: a busy session`, { concurrency: true }, () => {
    test('steady events without a request keep the session', async () => {
      const { connection, connected, events } = openTestConnection(server.port(), 2000);
      await connected();
      const nodes = nodesOf(server.port());
      const names = Array.from({ length: 16 }, (_, index) => `/steady-${index}`);
      let heard = 0;
      for (const name of names)
        await connection.run(exists(name, true), { signal: limit(), onWatch: () => (heard += 1) });
      for (const name of names) {
        await nodes.create(name);
        await sleep(250);
      }
      assert.equal(heard, names.length);
      assert.deepEqual(events(), ['connected']);
      await connection.close({ keepSession: false });
    });

    test('more than a megabyte of watches is re-armed in parts, and what was missed is heard', async () => {
      await using proxy = await startFaultProxy(server.port());
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
      const nodes = nodesOf(server.port());
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
      assert.deepEqual(events(), ['connected', 'disconnected', 'connected']);
      await connection.close({ keepSession: false });
      await nodes.remove(`/rearmed-${long}`);
    });

    test('the numbers of requests begin anew before they are too large, with the window full and all in order', async () => {
      const { opened, manager } = catchManager(() => openTestConnection(server.port(), 10_000));
      const { connection, connected, events } = opened;
      await connected();
      const base = `/numbered-${randomUUID()}`;
      await connection.run(create(base, '', 'persistent'), { signal: limit() });
      manager.xid = 0x7fff_fff0 - 100;
      const outcomes = await Promise.all(
        Array.from({ length: 600 }, (_, index) =>
          connection.run(create(`${base}/${index}`, '', 'ephemeral'), { signal: limit() }),
        ),
      );
      assert.deepEqual(
        outcomes.map((outcome) => (outcome.kind === 'created' ? outcome.path : outcome.kind)),
        outcomes.map((_, index) => `${base}/${index}`),
      );
      assert.ok(manager.xid > 0 && manager.xid < 1000, `${manager.xid}`);
      assert.equal(manager.pendingQueue.length, 0);
      assert.deepEqual(events(), ['connected']);
      await connection.close({ keepSession: false });
    });

    test('a request that the server would hang up on is refused here, and harms no other', async () => {
      const { connection, connected, events } = openTestConnection(server.port(), 10_000);
      await connected();
      const beside = connection.run(exists('/'), { signal: limit() });
      const large = create('/too-large', 'x'.repeat(1_000_000), 'ephemeral');
      await assert.rejects(connection.run(large, { signal: limit() }), {
        code: 'REGISTRY_REFUSED',
        message: /\/too-large is larger than 1 MB/,
      });
      await beside;
      const path = `/large-${randomUUID()}`;
      await connection.run(create(path, 'x'.repeat(999_000), 'ephemeral'), { signal: limit() });
      const node = await connection.run(getData(path), { signal: limit() });
      assert.equal(node?.data.length, 999_000);
      assert.deepEqual(events(), ['connected']);
      await connection.close({ keepSession: false });
    });

    test('whoever asks again in the answer to a failure blocks nobody: the connection comes back by itself', async () => {
      await using proxy = await startFaultProxy(server.port());
      const { connection, connected } = openTestConnection(proxy.port, 10_000);
      await connected();
      proxy.holdRequests();
      let attempts = 0;
      const stubborn = async (): Promise<void> => {
        for (;;) {
          attempts += 1;
          try {
            await connection.run(exists('/'), { signal: limit() });
            return;
          } catch {
            await nextTurn();
          }
        }
      };
      // More than the window holds: what waits must not move up into a queue that is being failed.
      const asked = Array.from({ length: 600 }, stubborn);
      proxy.kill();
      await Promise.all(asked);
      assert.ok(attempts > 600, `${attempts}`);
      await connection.close({ keepSession: false });
    });

    test('an outage with many attempts sends the watches once, before everything that waits', async () => {
      await using proxy = await startFaultProxy(server.port());
      const { connection, connected } = openTestConnection(proxy.port, 2000);
      await connected();
      const names = Array.from({ length: 300 }, (_, index) => `/outage-${randomUUID()}-${index}`);
      let heard = 0;
      const onWatch = () => (heard += 1);
      await Promise.all(
        names.map((name) => connection.run(exists(name, true), { signal: limit(), onWatch })),
      );
      const { accepted } = proxy;
      proxy.acceptThenClose();
      proxy.kill();
      await eventually(() => assert.ok(proxy.accepted - accepted >= 5));
      const before = proxy.bytesToServer;
      proxy.pass();
      await connected(2);
      await nodesOf(server.port()).create(names[0] ?? '');
      await eventually(() => assert.equal(heard, 1));
      const sent = proxy.bytesToServer - before;
      const size = names.reduce((sum, name) => sum + name.length + 4, 0);
      assert.ok(sent > size && sent < size * 1.2, `${sent} bytes for ${size} bytes of watches`);
      await connection.close({ keepSession: false });
    });
  });
}
