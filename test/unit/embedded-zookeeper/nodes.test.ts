import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import * as fc from 'fast-check';
import { startEmbeddedZooKeeper, type EmbeddedZooKeeper } from '@tandem/embedded-zookeeper';
import { connectWire, FLAGS, zk, type MultiStep, type WireClient } from '../../support/zookeeper-wire.ts';

// A suite of its own: all unit test files share one process, and hooks outside of a suite would be everybody's.
describe('embedded ZooKeeper: nodes', { timeout: 30_000 }, () => {
  let server: EmbeddedZooKeeper;
  let client: WireClient;

  before(async () => {
    server = await startEmbeddedZooKeeper();
    client = await connectWire(server.port);
  });

  after(async () => {
    await server.close();
  });

  test('a new server has the nodes of a new ZooKeeper', async () => {
    await using fresh = await startEmbeddedZooKeeper();
    const client = await connectWire(fresh.port);
    const root = await zk.getChildren2(client, '/');
    assert.deepEqual(root.children, ['zookeeper']);
    assert.equal(root.stat?.cversion, -1);
    assert.deepEqual((await zk.getChildren(client, '/zookeeper')).children?.toSorted(), ['config', 'quota']);
    assert.equal((await zk.create(client, { path: '/s-', flags: FLAGS.sequential })).path, '/s-0000000000');
    client.destroy();
  });

  test('a node keeps its content and counts its changes', async () => {
    assert.equal((await zk.create(client, { path: '/counted', data: 'one' })).path, '/counted');
    assert.equal((await zk.setData(client, '/counted', 'three')).stat?.version, 1);
    const { data, stat } = await zk.getData(client, '/counted');
    assert.equal(data, 'three');
    assert.ok(stat);
    assert.equal(stat.dataLength, 5);
    assert.ok(stat.mzxid > stat.czxid);
  });

  test('absent content and empty content are told apart', async () => {
    await zk.create(client, { path: '/absent', data: null });
    assert.equal((await zk.getData(client, '/absent')).data, null);
    await zk.setData(client, '/absent', '');
    assert.equal((await zk.getData(client, '/absent')).data, '');
  });

  test('a write with the wrong version is refused', async () => {
    await zk.create(client, { path: '/versioned' });
    assert.equal((await zk.setData(client, '/versioned', 'x', 1)).code, -103);
    assert.equal((await zk.delete(client, '/versioned', 1)).code, -103);
    assert.equal((await zk.delete(client, '/versioned', 0)).code, 0);
  });

  test('nodes that exist, parents that do not, parents with children are refused', async () => {
    await zk.create(client, { path: '/parent' });
    await zk.create(client, { path: '/parent/child' });
    assert.equal((await zk.create(client, { path: '/parent' })).code, -110);
    assert.equal((await zk.create(client, { path: '/nobody/child' })).code, -101);
    assert.equal((await zk.delete(client, '/parent')).code, -111);
    assert.equal((await zk.delete(client, '/')).code, -8);
  });

  test('sequential names count all creations under the parent, deleted ones included', async () => {
    await zk.create(client, { path: '/queue' });
    const create = async (flags: number) => (await zk.create(client, { path: '/queue/n-', flags })).path;
    assert.equal(await create(FLAGS.sequential), '/queue/n-0000000000');
    await zk.delete(client, '/queue/n-0000000000');
    await zk.create(client, { path: '/queue/plain' });
    assert.equal(await create(FLAGS.ephemeralSequential), '/queue/n-0000000002');
  });

  test('an ephemeral node belongs to its session and has no children', async () => {
    const created = await zk.create2(client, { path: '/short-lived', flags: FLAGS.ephemeral });
    assert.equal(created.stat?.ephemeralOwner, client.sessionId);
    assert.equal((await zk.create(client, { path: '/short-lived/child' })).code, -108);
  });

  test('getEphemerals lists the own ephemeral nodes below a prefix', async () => {
    const other = await connectWire(server.port);
    await zk.create(client, { path: '/eph' });
    for (const name of ['a', 'b']) await zk.create(client, { path: `/eph/${name}`, flags: FLAGS.ephemeral });
    await zk.create(other, { path: '/eph/c', flags: FLAGS.ephemeral });
    assert.deepEqual((await zk.getEphemerals(client, '/eph')).children, ['/eph/a', '/eph/b']);
    assert.deepEqual((await zk.getEphemerals(other, '/')).children, ['/eph/c']);
    assert.equal((await zk.getAllChildrenNumber(client, '/eph')).count, 3);
    other.destroy();
  });

  test('ACLs are stored and counted', async () => {
    const acl = [{ permissions: 31, scheme: 'digest', id: 'user:hash' }];
    await zk.create(client, { path: '/acl' });
    assert.equal((await zk.setAcl(client, '/acl', acl)).stat?.aversion, 1);
    assert.deepEqual((await zk.getAcl(client, '/acl')).acl, acl);
    assert.equal((await zk.setAcl(client, '/acl', [])).code, -114);
  });

  test('a container goes some time after its last child, not before its first', async () => {
    await using server = await startEmbeddedZooKeeper({ containerCheckIntervalMs: 5 });
    const client = await connectWire(server.port);
    await zk.create2(client, { path: '/container', flags: FLAGS.container }, 'createContainer');
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal((await zk.create(client, { path: '/container/child' })).code, 0);
    await zk.delete(client, '/container/child');
    const deadline = Date.now() + 1000;
    while ((await zk.exists(client, '/container')).code === 0) assert.ok(Date.now() < deadline);
    client.destroy();
  });

  test('a multi does all its steps, each seeing those before it', async () => {
    const { results = [] } = await zk.multi(client, [
      { op: 'create', path: '/multi', data: 'one' },
      { op: 'create', path: '/multi/s-', flags: FLAGS.sequential },
      { op: 'setData', path: '/multi', data: 'two', version: 0 },
      { op: 'check', path: '/multi', version: 1 },
      { op: 'delete', path: '/multi/s-0000000000' },
    ]);
    assert.deepEqual(
      results.map(({ type, code }) => [type, code]),
      [
        [1, 0],
        [1, 0],
        [5, 0],
        [13, 0],
        [2, 0],
      ],
    );
    assert.equal(results[1]?.path, '/multi/s-0000000000');
    // The stat of the moment of the step: its child was still there.
    assert.equal(results[2]?.stat?.numChildren, 1);
    assert.equal((await zk.getData(client, '/multi')).data, 'two');
  });

  test('a multi that fails says which step failed', async () => {
    const { code, results } = await zk.multi(client, [
      { op: 'create', path: '/never' },
      { op: 'delete', path: '/missing' },
      { op: 'create', path: '/never/child' },
    ]);
    assert.equal(code, 0);
    assert.deepEqual(results, [
      { type: -1, code: 0 },
      { type: -1, code: -101 },
      { type: -1, code: -2 },
    ]);
    assert.equal((await zk.exists(client, '/never')).code, -101);
  });

  test('the reads of a multiRead succeed and fail each by itself', async () => {
    await zk.create(client, { path: '/read', data: 'x' });
    const { results = [] } = await zk.multiRead(client, [
      { type: 4, path: '/read' },
      { type: 4, path: '/missing' },
      { type: 8, path: '/read' },
    ]);
    assert.deepEqual(
      results.map(({ code, data, children }) => ({ code, data, children })),
      [
        { code: 0, data: 'x', children: undefined },
        { code: -101, data: undefined, children: undefined },
        { code: 0, data: undefined, children: [] },
      ],
    );
  });

  /** Everything below a path. The order of children is no part of the state. */
  async function dump(client: WireClient, path: string): Promise<unknown> {
    const { data, stat } = await zk.getData(client, path);
    const names = ((await zk.getChildren(client, path)).children ?? []).map(String).toSorted();
    const children: unknown[] = [];
    for (const name of names) children.push([name, await dump(client, `${path}/${name}`)]);
    return { data, stat, children };
  }

  test('a multi that fails changes nothing and tells nobody', async () => {
    const root = '/rollback';
    await zk.create(client, { path: root });
    for (const name of ['a', 'b', 'a/x']) await zk.create(client, { path: `${root}/${name}`, data: name });
    await zk.create(client, { path: `${root}/e`, flags: FLAGS.ephemeral });
    await zk.addWatch(client, root, 1);

    const path = fc.constantFrom('a', 'b', 'c', 'e', 'a/x', 'a/y', 'c/z').map((name) => `${root}/${name}`);
    const steps = fc.array<MultiStep>(
      fc.oneof(
        fc.record({ op: fc.constant('create' as const), path, flags: fc.nat({ max: 4 }) }),
        fc.record({ op: fc.constant('delete' as const), path }),
        fc.record({ op: fc.constant('setData' as const), path, data: fc.string() }),
      ),
      { maxLength: 6 },
    );
    const before = await dump(client, root);
    const ephemerals = (await zk.getEphemerals(client, root)).children;
    await fc.assert(
      fc.asyncProperty(steps, async (steps) => {
        const { results = [] } = await zk.multi(client, [...steps, { op: 'check', path: '/missing' }]);
        assert.ok(results.some(({ code }) => code !== 0));
        assert.deepEqual(await dump(client, root), before);
        assert.deepEqual((await zk.getEphemerals(client, root)).children, ephemerals);
        assert.deepEqual(client.events, []);
      }),
      { numRuns: 60 },
    );
  });
});
