import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { exists } from '@tandem/registry/testing';

import { eventually } from '../support/eventually.ts';
import { startFaultProxy } from '../support/fault-proxy.ts';
import { limit, nodesOf } from '../support/registries.ts';
import { type FaultServer, openTestConnection } from './scene.ts';

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
  });
}
