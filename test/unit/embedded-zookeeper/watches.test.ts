import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { startEmbeddedZooKeeper, type EmbeddedZooKeeper } from '@tandem/embedded-zookeeper';
import { connectWire, zk, type WireClient } from '../../support/zookeeper-wire.ts';

const CREATED = 1;
const DELETED = 2;
const CHANGED = 3;
const CHILDREN = 4;

// A suite of its own: all unit test files share one process, and hooks outside of a suite would be everybody's.
describe('embedded ZooKeeper: watches', { timeout: 30_000 }, () => {
  let server: EmbeddedZooKeeper;
  let watcher: WireClient;
  let writer: WireClient;

  beforeEach(async () => {
    server = await startEmbeddedZooKeeper();
    watcher = await connectWire(server.port);
    writer = await connectWire(server.port);
  });

  afterEach(async () => {
    await server.close();
  });

  /** Events since the last call. The ping comes back behind all that were sent before it. */
  async function events(client: WireClient = watcher): Promise<[number, string | null][]> {
    await client.ping();
    return client.events.splice(0).map(({ type, path }) => [type, path]);
  }

  async function createAll(...paths: string[]): Promise<void> {
    for (const path of paths) assert.equal((await zk.create(writer, { path })).code, 0);
  }

  test('a watch of a read is told once', async () => {
    await createAll('/a');
    await zk.getData(watcher, '/a', true);
    await zk.setData(writer, '/a', 'x');
    await zk.setData(writer, '/a', 'y');
    assert.deepEqual(await events(), [[CHANGED, '/a']]);
  });

  test('a watch on a node that is not there is told of its creation', async () => {
    assert.equal((await zk.exists(watcher, '/a', true)).code, -101);
    await createAll('/a');
    assert.deepEqual(await events(), [[CREATED, '/a']]);
  });

  test('a read that fails leaves no watch', async () => {
    await zk.getData(watcher, '/a', true);
    await zk.getChildren(watcher, '/a', true);
    await createAll('/a', '/a/b');
    assert.deepEqual(await events(), []);
  });

  test('a child watch is told of children and of the end of the node, not of content', async () => {
    await createAll('/a');
    await zk.getChildren(watcher, '/a', true);
    await zk.setData(writer, '/a', 'x');
    await createAll('/a/b');
    assert.deepEqual(await events(), [[CHILDREN, '/a']]);
    await zk.delete(writer, '/a/b');
    await zk.getChildren2(watcher, '/a', true);
    await zk.exists(watcher, '/a', true);
    await zk.delete(writer, '/a');
    assert.deepEqual(await events(), [[DELETED, '/a']], 'two watches of one client, one event');
  });

  test('a persistent watch stays; a recursive one is told of the whole subtree, without child events', async () => {
    await createAll('/a', '/b');
    await zk.addWatch(watcher, '/a', 0);
    await zk.addWatch(watcher, '/b', 1);
    await createAll('/a/x', '/a/x/y', '/b/x', '/b/x/y');
    await zk.setData(writer, '/a', '1');
    await zk.setData(writer, '/b/x/y', '1');
    await zk.delete(writer, '/b/x/y');
    assert.deepEqual(await events(), [
      [CHILDREN, '/a'],
      [CREATED, '/b/x'],
      [CREATED, '/b/x/y'],
      [CHANGED, '/a'],
      [CHANGED, '/b/x/y'],
      [DELETED, '/b/x/y'],
    ]);
  });

  test('a one-shot watch leaves a recursive one on the same path alone', async () => {
    await createAll('/a');
    await zk.addWatch(watcher, '/a', 1);
    await zk.getData(watcher, '/a', true);
    await zk.setData(writer, '/a', '1');
    await zk.setData(writer, '/a', '2');
    await createAll('/a/b');
    assert.deepEqual(await events(), [
      [CHANGED, '/a'],
      [CHANGED, '/a'],
      [CREATED, '/a/b'],
    ]);
  });

  test('removed watches are told nothing; watches that are not there cannot be removed', async () => {
    await createAll('/a');
    await zk.addWatch(watcher, '/a', 1);
    await zk.getChildren(watcher, '/a', true);
    assert.equal((await zk.checkWatches(watcher, '/a', 1)).code, 0);
    assert.equal((await zk.removeWatches(watcher, '/a', 1)).code, 0);
    assert.equal((await zk.removeWatches(watcher, '/a', 3)).code, 0);
    assert.equal((await zk.removeWatches(watcher, '/a', 3)).code, -121);
    await createAll('/a/b');
    assert.deepEqual(await events(), []);
  });

  test('watches belong to the connection; setWatches brings them back and tells what was missed', async () => {
    await createAll('/changed', '/deleted', '/children', '/same');
    await zk.getData(watcher, '/changed', true);
    await watcher.ping();
    const { sessionId, password, lastZxid } = watcher;
    const resumed = await connectWire(server.port, { sessionId, password, lastZxidSeen: lastZxid });
    await watcher.closed;
    await zk.setData(writer, '/changed', 'x');
    await zk.delete(writer, '/deleted');
    await createAll('/children/x', '/created');
    assert.deepEqual(await events(resumed), []);

    await zk.setWatches(resumed, lastZxid, [
      ['/changed', '/deleted', '/same'],
      ['/created', '/nothing'],
      ['/children', '/same'],
    ]);
    assert.deepEqual(await events(resumed), [
      [CHANGED, '/changed'],
      [DELETED, '/deleted'],
      [CREATED, '/created'],
      [CHILDREN, '/children'],
    ]);
    await zk.setData(writer, '/same', 'x');
    await createAll('/same/x', '/nothing');
    assert.deepEqual(await events(resumed), [
      [CHANGED, '/same'],
      [CHILDREN, '/same'],
      [CREATED, '/nothing'],
    ]);
  });

  test('setWatches2 brings back persistent watches, without what was missed', async () => {
    await createAll('/a', '/b');
    await zk.setWatches(watcher, 0n, [[], [], [], ['/a'], ['/b']]);
    await createAll('/a/x', '/b/x');
    assert.deepEqual(await events(), [
      [CHILDREN, '/a'],
      [CREATED, '/b/x'],
    ]);
  });

  test('the event of an own change comes before the answer', async () => {
    await createAll('/a');
    await zk.getData(writer, '/a', true);
    await zk.setData(writer, '/a', 'x');
    assert.deepEqual(
      writer.events.map(({ type }) => type),
      [CHANGED],
    );
  });
});
