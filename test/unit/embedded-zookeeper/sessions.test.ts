import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { startEmbeddedZooKeeper } from '@tandem/embedded-zookeeper';
import { connectWire, FLAGS, zk } from '../../support/zookeeper-wire.ts';

describe('embedded ZooKeeper: sessions', { timeout: 30_000 }, () => {
  /** A server whose time stands still until it is told to go on; it looks at the clock every few real milliseconds. */
  async function startWithClock() {
    const clock = { time: 1_700_000_000_000, now: () => clock.time };
    const server = await startEmbeddedZooKeeper({
      clock,
      tickTimeMs: 5,
      minSessionTimeoutMs: 1000,
      maxSessionTimeoutMs: 20_000,
    });
    return { server, clock };
  }

  const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

  async function until(isTrue: () => boolean): Promise<void> {
    const deadline = Date.now() + 5000;
    while (!isTrue()) {
      assert.ok(Date.now() < deadline, `never true: ${isTrue.toString()}`);
      await pause(2);
    }
  }

  test('the session timeout is kept within the limits, two to twenty ticks by default', async () => {
    await using server = await startEmbeddedZooKeeper({ tickTimeMs: 100 });
    for (const [asked, given] of [
      [1, 200],
      [1234, 1234],
      [60_000, 2000],
    ] as const) {
      const client = await connectWire(server.port, { timeoutMs: asked });
      assert.equal(client.timeoutMs, given);
      client.destroy();
    }
  });

  test('the answer to a handshake has the read-only byte exactly if the request had it', async () => {
    await using server = await startEmbeddedZooKeeper();
    for (const readOnly of [undefined, false, true]) {
      const client = await connectWire(server.port, { readOnly });
      assert.equal(client.hasReadOnlyByte, readOnly !== undefined);
      client.destroy();
    }
  });

  test('a resumed session moves to the new connection and keeps its ephemeral nodes', async () => {
    await using server = await startEmbeddedZooKeeper();
    const first = await connectWire(server.port);
    await zk.create(first, { path: '/mine', flags: FLAGS.ephemeral });
    const second = await connectWire(server.port, {
      sessionId: first.sessionId,
      password: first.password,
      lastZxidSeen: first.lastZxid,
      timeoutMs: 3000,
    });
    await first.closed;
    assert.equal(second.sessionId, first.sessionId);
    assert.equal(second.timeoutMs, 3000);
    assert.equal((await zk.exists(second, '/mine')).stat?.ephemeralOwner, first.sessionId);
    assert.deepEqual(server.sessions(), [
      { id: first.sessionId, timeoutMs: 3000, connected: true, ephemerals: ['/mine'] },
    ]);
    second.destroy();
  });

  test('a session is refused to a wrong password and stays with its owner', async () => {
    await using server = await startEmbeddedZooKeeper();
    const owner = await connectWire(server.port);
    const thief = await connectWire(server.port, {
      sessionId: owner.sessionId,
      password: Buffer.alloc(16, 1),
    });
    assert.equal(thief.timeoutMs, 0);
    await thief.closed;
    assert.equal((await owner.ping()).code, 0);
    owner.destroy();
  });

  test('a session that is not known is answered with timeout 0', async () => {
    await using server = await startEmbeddedZooKeeper();
    const client = await connectWire(server.port, { sessionId: 99n });
    assert.equal(client.timeoutMs, 0);
    assert.equal(client.sessionId, 0n);
    await client.closed;
  });

  test('a client that has seen a later state than the server has is dropped without a word', async () => {
    await using server = await startEmbeddedZooKeeper();
    await assert.rejects(connectWire(server.port, { lastZxidSeen: 1000n }), /hung up/);
  });

  test('a silent session expires: its connection ends, its nodes go, watchers are told', async () => {
    const { server, clock } = await startWithClock();
    await using _ = server;
    const silent = await connectWire(server.port, { timeoutMs: 1000 });
    const watcher = await connectWire(server.port, { timeoutMs: 20_000 });
    await zk.create(silent, { path: '/node', flags: FLAGS.ephemeral });
    await zk.exists(watcher, '/node', true);

    clock.time += 1000;
    await pause(25);
    assert.equal(silent.isClosed, false, 'not before its timeout is over');
    clock.time += 1;
    await silent.closed;
    await watcher.ping();
    assert.deepEqual(watcher.events, [{ type: 2, path: '/node' }]);
    assert.equal((await zk.exists(watcher, '/node')).code, -101);
    const again = await connectWire(server.port, { sessionId: silent.sessionId, password: silent.password });
    assert.equal(again.timeoutMs, 0);
    watcher.destroy();
  });

  test('a session without a connection expires too', async () => {
    const { server, clock } = await startWithClock();
    await using _ = server;
    const client = await connectWire(server.port, { timeoutMs: 1000 });
    client.destroy();
    await client.closed;
    await until(() => server.sessions()[0]?.connected === false);
    clock.time += 1001;
    await until(() => server.sessions().length === 0);
  });

  test('every request, and a ping is one, keeps a session alive', async () => {
    const { server, clock } = await startWithClock();
    await using _ = server;
    const client = await connectWire(server.port, { timeoutMs: 1000 });
    for (let count = 0; count < 3; count++) {
      clock.time += 900;
      await client.ping();
    }
    await pause(25);
    assert.equal(client.isClosed, false);
    client.destroy();
  });

  test('expireSession ends a session at once', async () => {
    await using server = await startEmbeddedZooKeeper();
    const client = await connectWire(server.port);
    await zk.create(client, { path: '/node', flags: FLAGS.ephemeral });
    assert.equal(server.expireSession(client.sessionId), true);
    await client.closed;
    assert.equal(server.expireSession(client.sessionId), false);
    assert.deepEqual(server.sessions(), []);
  });

  test('closing a session takes its ephemeral nodes, is answered, and ends the connection', async () => {
    await using server = await startEmbeddedZooKeeper();
    const client = await connectWire(server.port);
    const watcher = await connectWire(server.port);
    await zk.create(client, { path: '/node', flags: FLAGS.ephemeral });
    await zk.getChildren(watcher, '/', true);
    assert.equal((await zk.closeSession(client)).code, 0);
    await client.closed;
    await watcher.ping();
    assert.deepEqual(watcher.events, [{ type: 4, path: '/' }]);
    watcher.destroy();
  });
});
