import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { isTandemError, withDeadline } from '@tandem/core';
import { exists, JuteWriter } from '@tandem/registry/testing';

import { eventually } from '../support/eventually.ts';
import { startFaultProxy } from '../support/fault-proxy.ts';
import { follow, limit } from '../support/registries.ts';
import { enter, type FaultServer, openTestConnection } from './scene.ts';

const NOTIFICATION_XID = -1;
/** The first request of a connection, if nothing had to be said in the handshake. */
const FIRST_XID = 1;

/** ReplyHeader { xid, zxid, err } and what follows it, with the length in front. */
function answer(xid: number, code: number, zxid = 0n): Buffer {
  return new JuteWriter().int(xid).long(zxid).int(code).toFrame();
}

/** WatcherEvent { type, state, path } */
function notification(type: number, path: string): Buffer {
  return new JuteWriter().int(NOTIFICATION_XID).long(-1n).int(0).int(type).int(3).text(path).toFrame();
}

function bytes(...lengths: number[]): Buffer {
  return Buffer.concat(
    lengths.map((length) => {
      const word = Buffer.alloc(4);
      word.writeInt32BE(length | 0);
      return word;
    }),
  );
}

/** A server that says what no client expects: bugs of its own, newer than we are, or no ZooKeeper at all. */
export function garbageFaults(server: FaultServer): void {
  describe(`${server.kind}: a server that says what nobody expects`, { concurrency: true }, () => {
    test('events of types that nobody knows are passed over, on the same connection', async () => {
      await using proxy = await startFaultProxy(server.port());
      const { connection, connected, events } = openTestConnection(proxy.port, 10_000);
      await connected();
      let calls = 0;
      const onWatch = () => (calls += 1);
      await connection.run(exists('/', true), { signal: limit(), onWatch });
      for (const type of [0, -1, -2, 5, 6, 7, 99, 0x7fff_ffff]) proxy.inject(notification(type, '/'));
      await connection.run(exists('/'), { signal: limit() });
      assert.equal(calls, 0);
      proxy.inject(notification(3, '/'));
      await eventually(() => assert.equal(calls, 1));
      assert.deepEqual(events(), ['connected']);
      await connection.close({ keepSession: false });
    });

    test('error codes that nobody knows refuse their own request, on the same connection', async () => {
      await using proxy = await startFaultProxy(server.port());
      const { connection, connected, events } = openTestConnection(proxy.port, 10_000);
      await connected();
      const held = proxy.holdRequests();
      const codes = [-118, -119, -120, -121, -122, -123, -124, -125, -127, -999, 7, -0x8000_0000];
      const asked = codes.map((_, index) => connection.run(exists(`/${index}`), { signal: limit() }));
      for (const [index, code] of codes.entries()) proxy.inject(answer(FIRST_XID + index, code));
      for (const [index, outcome] of (await Promise.allSettled(asked)).entries()) {
        assert.ok(outcome.status === 'rejected' && isTandemError(outcome.reason, 'REGISTRY_REFUSED'));
        assert.equal(outcome.reason.details['zookeeperCode'], codes[index]);
      }
      assert.deepEqual(events(), ['connected']);
      held.dropClients();
      await connected(2);
      await connection.close({ keepSession: false });
    });

    test('an answer to another request costs the connection: whoever waits is told, and the session goes on', async () => {
      await using proxy = await startFaultProxy(server.port());
      const { connection, connected, sessions, reasons } = openTestConnection(proxy.port, 10_000);
      await connected();
      for (const [index, wrong] of [
        (xid: number) => answer(xid + 1, 0),
        (xid: number) => answer(xid - 1, -101),
        () => answer(0, 0),
        () => answer(-8, 0),
      ].entries()) {
        proxy.holdRequests();
        // More than fit into the window: those that wait for their turn are told, too.
        const asked = Array.from({ length: 300 }, () => connection.run(exists('/'), { signal: limit() }));
        const outcomes = withDeadline(undefined, 15_000, () => Promise.allSettled(asked));
        proxy.inject(wrong(FIRST_XID + index * 250));
        for (const outcome of await outcomes)
          assert.ok(
            outcome.status === 'rejected' && isTandemError(outcome.reason, 'REGISTRY_CONNECTION_LOST'),
          );
        await connected(index + 2);
        await connection.run(exists('/'), { signal: limit() });
      }
      assert.ok(
        reasons().every((reason) => /answered request -?\d+/.test(reason)),
        String(reasons()),
      );
      assert.equal(sessions().size, 1);
      await connection.close({ keepSession: false });
    });

    test('an answer that nobody has asked for costs the connection, and no more', async () => {
      await using scene = await enter(server);
      const watcher = follow(scene.registry, scene.path);
      await watcher.shows();
      scene.proxy.inject(answer(4711, 0));
      await eventually(() => assert.equal(scene.sessions().length, 2));
      assert.equal(new Set(scene.sessions()).size, 1, 'the same session');
      const record = JSON.stringify({ host: '10.0.0.1', port: 80, name: 'i-1' });
      await scene.nodes.create(`${scene.path}/i-1_0000000000`, record);
      await watcher.shows('i-1');
      await watcher.stop();
    });

    for (const [what, noise] of [
      ['a frame of negative length', bytes(-1)],
      ['a frame of the lowest length there is', bytes(-0x8000_0000, 0, 0)],
      ['a frame of two gigabytes', bytes(0x7fff_ffff, 1, 2, 3)],
      ['an empty frame', bytes(0)],
      ['a frame without a whole header', bytes(8, -1, 0)],
      ['an event that ends too early', bytes(20, NOTIFICATION_XID, 0, 0, 0, 1)],
      [
        'an event whose path is longer than its frame',
        bytes(28, NOTIFICATION_XID, -1, -1, 0, 1, 3, 9_999_999),
      ],
      ['another protocol', Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n')],
    ] as const) {
      test(`${what} costs the connection, and the session goes on`, async () => {
        await using proxy = await startFaultProxy(server.port());
        const { connection, connected, sessions } = openTestConnection(proxy.port, 10_000);
        await connected();
        proxy.inject(noise);
        await connected(2);
        await connection.run(exists('/'), { signal: limit() });
        assert.equal(sessions().size, 1);
        await connection.close({ keepSession: false });
      });
    }
  });
}
