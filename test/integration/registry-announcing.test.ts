// How announcements of every node type survive what happens to them, on the embedded server and on a real one.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { type Instance, type Snapshot } from '@tandem/core';
import { startEmbeddedZooKeeper } from '@tandem/embedded-zookeeper';
import { type AnnounceOptions, type Announcer, NODE_TYPES, type Registry } from '@tandem/registry';

import { eventually } from '../support/eventually.ts';
import { startFaultProxy } from '../support/fault-proxy.ts';
import { startRealZooKeeper } from '../support/real-zookeeper.ts';
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
} from '../support/registries.ts';
import { connectWire, FLAGS, type WireClient, zk } from '../support/zookeeper-wire.ts';

const CONNECTED = 'connected to ZooKeeper';
const FOREIGN = 'a foreign node has our name';
const SEQUENTIAL = ['ephemeral_sequential', 'persistent_sequential'] as const;
const FIXED = ['ephemeral', 'persistent'] as const;
const PERSISTENT = ['persistent_sequential', 'persistent'] as const;
type NodeType = (typeof NODE_TYPES)[number];

noSurprises();

/** A child as it really stands. */
interface Standing {
  readonly name: string;
  readonly data: string;
  readonly czxid: bigint;
  readonly version: number;
  readonly mtime: bigint;
  readonly owner: bigint;
}

interface Server {
  readonly port: number;
  stop(): Promise<void>;
}

announcing('on the embedded server', async () => {
  const server = await startEmbeddedZooKeeper();
  return { port: server.port, stop: () => server.close() };
});
announcing('on a real server', () => startRealZooKeeper());

function announcing(where: string, start: () => Promise<Server>): void {
  describe(`announcing ${where}`, () => {
    let server: Server;
    let wire: WireClient;
    let count = 0;

    before(async () => {
      server = await start();
      wire = await connectWire(server.port);
      // Its session would end after ten silent seconds.
      const beat = setInterval(() => void wire.ping().catch(() => {}), 1000);
      after(() => clearInterval(beat));
    });
    after(async () => {
      wire.destroy();
      await server.stop();
    });

    /** A registry behind a proxy of its own, with a path that no other test uses. */
    async function enter(options: OpenOptions = {}) {
      count += 1;
      const below = `/announcing/${count}`;
      const directory = await mkdtemp(path.join(tmpdir(), 'tandem-announcing-'));
      const resumeFile = path.join(directory, 'session.json');
      const proxy = await startFaultProxy(server.port);
      const registries: Registry[] = [];
      const open = async (more: OpenOptions = {}) => {
        const { log, said } = listen();
        const registry = await openTestRegistry(proxy.port, { log, resumeFile, ...options, ...more });
        registries.push(registry);
        return { registry, said };
      };
      return {
        below,
        proxy,
        nodes: nodesOf(server.port),
        resumeFile,
        open,
        standing: () => standing(below),
        /** Ends the session as if the client had been silent for too long. */
        async endSession() {
          const saved = JSON.parse(await readFile(resumeFile, 'utf8')) as Record<string, string>;
          const other = await connectWire(server.port, {
            sessionId: BigInt(saved['session_id'] ?? ''),
            password: Buffer.from(saved['password'] ?? '', 'base64'),
          });
          assert.ok(other.timeoutMs > 0, 'the session lives');
          await zk.closeSession(other);
          other.destroy();
        },
        ...(await open()),
        async [Symbol.asyncDispose]() {
          proxy.pass();
          proxy.kill();
          await Promise.all(registries.map((registry) => registry.close()));
          await proxy.close();
          await rm(directory, { recursive: true, force: true });
        },
      };
    }

    async function standing(below: string): Promise<Standing[]> {
      const names = await nodesOf(server.port).children(below);
      const nodes = await Promise.all(
        names.map(async (name) => {
          const { code, data, stat } = await zk.getData(wire, `${below}/${name}`);
          if (code !== 0 || stat === undefined) return undefined;
          const { czxid, version, mtime, ephemeralOwner } = stat;
          return { name, data: data ?? '', czxid, version, mtime, owner: ephemeralOwner };
        }),
      );
      return nodes.filter((node) => node !== undefined);
    }

    /** The only node below the path, of the kind that the type says. */
    async function only(below: string, nodeType: NodeType): Promise<Standing> {
      const [node, ...others] = await standing(below);
      assert.deepEqual(others, [], 'exactly one');
      assert.ok(node !== undefined, 'exactly one');
      assert.equal(node.owner !== 0n, nodeType.startsWith('ephemeral'), `${node.name} is ${nodeType}`);
      assert.equal(
        /_\d{10}$/.test(node.name),
        nodeType.endsWith('sequential'),
        `${node.name} is ${nodeType}`,
      );
      return node;
    }

    describe('every node type', { concurrency: true }, () => {
      for (const nodeType of NODE_TYPES) {
        test(`${nodeType}: stands under the name of its kind, in the format of Nerve, and goes when withdrawn`, async () => {
          await using scene = await enter();
          const announcer = await announce(scene.registry, scene.below, instanceOf('i-1', 3), { nodeType });
          const node = await only(scene.below, nodeType);
          assert.match(node.name, /^i-1_(\d{10})?$/);
          assert.equal(node.data, '{"host":"10.0.0.1","port":8080,"name":"i-1","weight":3}');
          announcer.set(undefined);
          await announcer.agreed(limit());
          assert.deepEqual(await scene.standing(), []);
        });

        test(`${nodeType}: what changed stands alone, and there was never nothing`, async () => {
          await using scene = await enter();
          for (const pathEncoding of [false, true]) {
            const options = { nodeType, pathEncoding };
            const announcer = await announce(scene.registry, scene.below, instanceOf('i-1', 1), options);
            const before = await only(scene.below, nodeType);
            const watcher = follow(scene.registry, scene.below);
            await watcher.shows('i-1:1');
            for (let weight = 2; weight <= 4; weight += 1) {
              announcer.set(instanceOf('i-1', weight));
              await announcer.agreed(limit());
            }
            await watcher.shows('i-1:4');
            for (const { instances } of watcher.snapshots) assert.equal(instances.length, 1);
            await watcher.stop();
            const node = await only(scene.below, nodeType);
            assert.equal((JSON.parse(node.data) as Instance).weight, 4);
            const isInPlace = !pathEncoding && !nodeType.endsWith('sequential');
            assert.equal(node.czxid === before.czxid, isInPlace, 'written in place only under a fixed name');
            announcer.set(undefined);
            await announcer.agreed(limit());
            announcer.release();
          }
        });

        test(`${nodeType}: a successor that resumes finds its node and changes nothing`, async () => {
          await using scene = await enter();
          await announce(scene.registry, scene.below, instanceOf('i-1', 1), { nodeType });
          const before = await scene.standing();
          await scene.registry.close({ keep: true });
          const { registry } = await scene.open();
          await announce(registry, scene.below, instanceOf('i-1', 1), { nodeType });
          registry.withdrawUnclaimed();
          await settle();
          assert.deepEqual(await scene.standing(), before);
        });

        test(`${nodeType}: what a successor does not want any more goes, and it alone`, async () => {
          await using scene = await enter();
          await announce(scene.registry, scene.below, instanceOf('kept', 1), { nodeType });
          await announce(scene.registry, scene.below, instanceOf('gone', 1), { nodeType });
          await scene.nodes.create(
            `${scene.below}/foreign_`,
            '{"host":"10.0.0.9","port":1,"name":"foreign"}',
          );
          await scene.nodes.create(`${scene.below}/gone_x`, '{"host":"10.0.0.9","port":8080,"name":"gone"}');
          await scene.registry.close({ keep: true });
          const { registry } = await scene.open();
          await announce(registry, scene.below, instanceOf('kept', 1), { nodeType });
          registry.withdrawUnclaimed();
          await eventually(async () => {
            const names = (await scene.nodes.children(scene.below)).map((name) => name.replace(/\d+$/, ''));
            assert.deepEqual(names.toSorted(), ['foreign_', 'gone_x', 'kept_']);
          });
        });

        test(`${nodeType}: a successor of a session that is gone ends with one node`, async () => {
          await using scene = await enter();
          await announce(scene.registry, scene.below, instanceOf('i-1', 1), { nodeType });
          const before = await only(scene.below, nodeType);
          await scene.registry.close({ keep: true });
          await scene.endSession();
          const { registry } = await scene.open();
          registry.withdrawUnclaimed();
          await announce(registry, scene.below, instanceOf('i-1', 1), { nodeType });
          const node = await only(scene.below, nodeType);
          assert.equal(node.czxid === before.czxid, nodeType.startsWith('persistent'));
        });

        test(`${nodeType}: deleted by somebody, it is back, also when the path went with it`, async () => {
          await using scene = await enter();
          await announce(scene.registry, scene.below, instanceOf('i-1', 1), { nodeType });
          for (const doomed of [undefined, undefined, scene.below]) {
            const before = await only(scene.below, nodeType);
            const since = performance.now();
            await scene.nodes.remove(doomed ?? `${scene.below}/${before.name}`);
            await eventually(async () => {
              const after = await only(scene.below, nodeType);
              assert.notEqual(after.czxid, before.czxid);
              assert.equal(after.data, before.data);
            });
            assertSoon(since);
          }
        });

        test(`${nodeType}: overwritten by somebody, it says again what was meant`, async () => {
          await using scene = await enter();
          await announce(scene.registry, scene.below, instanceOf('i-1', 1), { nodeType });
          const before = await only(scene.below, nodeType);
          for (const data of ['{"host":"6.6.6.6","port":1,"name":"i-1"}', 'nonsense', '']) {
            const { name } = await only(scene.below, nodeType);
            await scene.nodes.write(`${scene.below}/${name}`, data);
            await eventually(async () => assert.equal((await only(scene.below, nodeType)).data, before.data));
          }
          const node = await only(scene.below, nodeType);
          assert.equal(node.czxid === before.czxid, !nodeType.endsWith('sequential'));
        });

        test(`${nodeType}: overwritten while nobody looks, it is still known by whom it belongs to`, async () => {
          await using scene = await enter();
          await announce(scene.registry, scene.below, instanceOf('i-1', 1), { nodeType });
          const { name, data } = await only(scene.below, nodeType);
          scene.proxy.acceptThenClose();
          scene.proxy.kill();
          await eventually(() => assert.equal(scene.registry.status.state, 'suspended'));
          await scene.nodes.write(`${scene.below}/${name}`, '{"host":"6.6.6.6","port":1,"name":"i-1"}');
          scene.proxy.pass();
          await eventually(async () => assert.equal((await only(scene.below, nodeType)).data, data));
        });

        test(`${nodeType}: after its session has ended it is there once, at once`, async () => {
          await using scene = await enter();
          await announce(scene.registry, scene.below, instanceOf('i-1', 1), { nodeType });
          const before = await only(scene.below, nodeType);
          await scene.endSession();
          await eventually(() => assert.equal(scene.said(CONNECTED).length, 2));
          const since = scene.said(CONNECTED).at(-1)?.at ?? 0;
          await eventually(async () => {
            const node = await only(scene.below, nodeType);
            assert.equal(node.czxid === before.czxid, nodeType.startsWith('persistent'));
          });
          assertSoon(since);
        });

        test(`${nodeType}: cut anywhere in an announcement, it is there once`, async () => {
          await using scene = await enter();
          for (const bytes of [1, 22, 60, 90, 131, 230]) {
            const announcer = scene.registry.announce(scene.below, instanceOf('i-1'), { nodeType });
            scene.proxy.cutAfter(bytes);
            announcer.set(instanceOf('i-1', bytes));
            await announcer.agreed(limit());
            scene.proxy.cutAfter(Infinity);
            const node = await only(scene.below, nodeType);
            assert.equal((JSON.parse(node.data) as Instance).weight, bytes);
            if (bytes % 2 === 0) {
              scene.proxy.cutAfter(1 + (bytes % 30));
              announcer.set(undefined);
              await announcer.agreed(limit());
              scene.proxy.cutAfter(Infinity);
              assert.deepEqual(await scene.standing(), []);
            }
            announcer.release();
          }
          assert.ok(scene.said(CONNECTED).length > 3, 'cuts were felt');
        });

        test(`${nodeType}: a create that arrives when the next connection stands makes no second node`, async () => {
          await using scene = await enter();
          // So that the connection stands, and the path.
          await announce(scene.registry, scene.below, instanceOf('other'), { nodeType });
          const announcer = scene.registry.announce(scene.below, instanceOf('i-1'), { nodeType });
          const held = scene.proxy.holdRequests();
          announcer.set(instanceOf('i-1', 2));
          await eventually(() => assert.ok(held.bytes() > 0));
          held.dropClients();
          await announcer.agreed(limit());
          held.release();
          await settle();
          assert.equal((await scene.standing()).length, 2);
        });

        test(`${nodeType}: a delete that failed is done as soon as the registry is back`, async () => {
          await using scene = await enter();
          const announcer = await announce(scene.registry, scene.below, instanceOf('i-1'), { nodeType });
          await settle();
          const held = scene.proxy.holdRequests();
          announcer.set(undefined);
          await eventually(() => assert.ok(held.bytes() > 0, 'the delete is on its way'));
          scene.proxy.acceptThenClose();
          held.dropClients();
          await eventually(() => assert.equal(scene.registry.status.state, 'suspended'));
          await sleep(1000);
          assert.equal((await scene.standing()).length, 1);
          scene.proxy.pass();
          await eventually(() => assert.equal(scene.said(CONNECTED).length, 2));
          const since = scene.said(CONNECTED).at(-1)?.at ?? 0;
          await announcer.agreed(limit());
          assertSoon(since);
          assert.deepEqual(await scene.standing(), []);
        });
      }

      test('one that comes back as another kind or in another format stands once, and the old one has gone', async () => {
        await using scene = await enter();
        const ways: AnnounceOptions[] = [
          ...NODE_TYPES.map((nodeType) => ({ nodeType })),
          { nodeType: 'ephemeral', pathEncoding: true },
          { nodeType: 'persistent', pathEncoding: true },
          { nodeType: 'ephemeral_sequential', format: { kind: 'serverset' } },
          { nodeType: 'persistent_sequential', format: { kind: 'serverset', endpoint: 'http' } },
        ];
        const { resumeFile } = scene;
        let { registry } = scene;
        for (const [index, from] of ways.entries()) {
          for (const to of ways) {
            const isRestart = index % 2 === 0;
            const first = await announce(registry, scene.below, instanceOf('i-1'), from);
            if (isRestart) {
              await registry.close({ keep: true });
              ({ registry } = await scene.open({ resumeFile }));
            } else first.release();
            const second = await announce(registry, scene.below, instanceOf('i-1'), to);
            if (isRestart) registry.withdrawUnclaimed();
            const node = await only(scene.below, to.nodeType ?? 'ephemeral_sequential');
            assert.equal(node.name.startsWith('base64_'), to.pathEncoding === true);
            assert.equal(node.name.startsWith('member_'), to.format !== undefined);
            second.set(undefined);
            await second.agreed(limit());
            assert.deepEqual(await scene.standing(), [], JSON.stringify([from, to]));
            second.release();
          }
        }
      });
    });

    describe('foreign nodes', { concurrency: true }, () => {
      for (const nodeType of FIXED) {
        test(`${nodeType}: one of its name is told of once, never touched, and waited for`, async () => {
          await using scene = await enter();
          const name = `${scene.below}/i-1_`;
          const foreign = '{"host":"10.0.0.9","port":9,"name":"i-1"}';
          await scene.nodes.create(name, foreign);
          const announcer = scene.registry.announce(scene.below, instanceOf('i-1'), { nodeType });
          announcer.set(instanceOf('i-1', 1));
          await eventually(() => assert.equal(scene.said(FOREIGN).length, 1));
          assert.deepEqual(scene.said(FOREIGN)[0]?.facts, { node: name, owner: 'nobody' });
          announcer.set(instanceOf('i-1', 2));
          scene.proxy.kill();
          await eventually(() => assert.equal(scene.said(CONNECTED).length, 2));
          await settle();
          assert.equal(scene.said(FOREIGN).length, 1, 'once');
          await assert.rejects(announcer.agreed(AbortSignal.timeout(1)));
          assert.deepEqual(await scene.nodes.records(scene.below), [foreign]);
          const since = performance.now();
          await scene.nodes.remove(name);
          await announcer.agreed(limit());
          assertSoon(since);
          const node = await only(scene.below, nodeType);
          assert.equal((JSON.parse(node.data) as Instance).weight, 2);
        });

        test(`${nodeType}: a wish that is taken back leaves the foreign node alone`, async () => {
          await using scene = await enter();
          await scene.nodes.create(`${scene.below}/i-1_`, 'not ours');
          const announcer = scene.registry.announce(scene.below, instanceOf('i-1'), { nodeType });
          announcer.set(instanceOf('i-1'));
          await eventually(() => assert.equal(scene.said(FOREIGN).length, 1));
          announcer.set(undefined);
          await announcer.agreed(limit());
          assert.deepEqual(await scene.nodes.records(scene.below), ['not ours']);
        });

        test(`${nodeType}: two places that would have one name are not both taken`, async () => {
          await using scene = await enter();
          const { registry, below } = scene;
          const first = registry.announce(below, instanceOf('i-1', 1, 1), { nodeType });
          for (const other of FIXED)
            assert.throws(
              () => registry.announce(below, instanceOf('i-1', 1, 2), { nodeType: other }),
              /i-1_ is/,
            );
          registry.announce(below, instanceOf('i-1', 1, 2), { nodeType, pathEncoding: true });
          registry.announce(below, instanceOf('i-1', 1, 3));
          first.release();
          registry.announce(below, instanceOf('i-1', 1, 4), { nodeType });
        });
      }

      test('an ephemeral node with our own record belongs to its session: it is told of, and followed at once', async () => {
        await using scene = await enter();
        const record = '{"host":"10.0.0.1","port":8080,"name":"i-1"}';
        await scene.nodes.create(scene.below);
        const other = await connectWire(server.port, { timeoutMs: 10_000 });
        await zk.create(other, { path: `${scene.below}/i-1_`, data: record, flags: FLAGS.ephemeral });
        const announcer = scene.registry.announce(scene.below, instanceOf('i-1'), { nodeType: 'ephemeral' });
        announcer.set(instanceOf('i-1'));
        await eventually(() => assert.equal(scene.said(FOREIGN).length, 1));
        assert.equal(scene.said(FOREIGN)[0]?.facts['owner'], `0x${other.sessionId.toString(16)}`);
        const before = await only(scene.below, 'ephemeral');
        await zk.closeSession(other);
        await announcer.agreed(limit());
        const after = await only(scene.below, 'ephemeral');
        assert.notEqual(after.owner, before.owner);
        assert.equal(after.data, record);
        other.destroy();
      });

      for (const nodeType of SEQUENTIAL) {
        test(`${nodeType}: nodes that only look like ours stay beside it`, async () => {
          await using scene = await enter();
          const strangers = {
            'i-1_0000000042': '{"host":"10.0.0.2","port":8080,"name":"i-1"}',
            'i-1_0000000043': '{"host":"10.0.0.1","port":8081,"name":"i-1"}',
            'i-1_0000000044': 'nonsense',
            'i-1_0000000045': '{"host":"10.0.0.1","port":8080,"name":"i-2"}',
            'i-1_': '{}',
          };
          for (const [name, data] of Object.entries(strangers))
            await scene.nodes.create(`${scene.below}/${name}`, data);
          const announcer = await announce(scene.registry, scene.below, instanceOf('i-1'), { nodeType });
          assert.equal((await scene.standing()).length, 6);
          announcer.set(undefined);
          await announcer.agreed(limit());
          const left = await scene.standing();
          assert.deepEqual(Object.fromEntries(left.map(({ name, data }) => [name, data])), strangers);
        });
      }

      test('persistent nodes of our place, as a killed Nerve leaves them, are taken over: one stays, the others go', async () => {
        for (const nodeType of PERSISTENT) {
          await using scene = await enter();
          const record = '{"host":"10.0.0.1","port":8080,"name":"i-1","weight":2}';
          for (const name of ['i-1_0000000001', 'i-1_0000000002', 'i-1_'])
            await scene.nodes.create(`${scene.below}/${name}`, record);
          const before = await scene.standing();
          await announce(scene.registry, scene.below, instanceOf('i-1', 2), { nodeType });
          const node = await only(scene.below, nodeType);
          assert.ok(before.some(({ czxid }) => czxid === node.czxid));
        }
      });
    });

    describe('persistent nodes', { concurrency: true }, () => {
      for (const nodeType of PERSISTENT) {
        test(`${nodeType}: it outlives its session and its client, and nothing is left once it is withdrawn`, async () => {
          await using scene = await enter();
          const announcer = await announce(scene.registry, scene.below, instanceOf('i-1'), { nodeType });
          const node = await only(scene.below, nodeType);
          await scene.registry.close();
          assert.deepEqual(await scene.standing(), [node]);
          const saved = await readSaved(scene.resumeFile);
          assert.deepEqual(saved.persistent, [
            { path: scene.below, name: 'i-1', host: '10.0.0.1', port: 8080 },
          ]);
          announcer.release();

          const second = await scene.open();
          const again = await announce(second.registry, scene.below, instanceOf('i-1'), { nodeType });
          assert.deepEqual(await scene.standing(), [node]);
          again.set(undefined);
          await again.agreed(limit());
          assert.deepEqual(await scene.standing(), []);
          await second.registry.close();
          await assert.rejects(readFile(scene.resumeFile), { code: 'ENOENT' });
        });

        test(`${nodeType}: left by a session that is gone and wanted by nobody, it is withdrawn`, async () => {
          await using scene = await enter();
          await announce(scene.registry, scene.below, instanceOf('i-1'), { nodeType });
          await scene.registry.close({ keep: true });
          await scene.endSession();
          const { registry } = await scene.open();
          registry.withdrawUnclaimed();
          await eventually(async () => assert.deepEqual(await scene.standing(), []));
          await eventually(async () => {
            const saved = await readSaved(scene.resumeFile);
            assert.deepEqual([saved.persistent, saved.paths], [undefined, []]);
          });
        });

        test(`${nodeType}: its ttl renews it again and again with the same bytes, and makes nobody else of it`, async () => {
          await using scene = await enter();
          const ttlMs = 300;
          const announcer = await announce(scene.registry, scene.below, instanceOf('i-1'), {
            nodeType,
            ttlMs,
          });
          const since = performance.now();
          const before = await only(scene.below, nodeType);
          await eventually(async () => assert.ok((await only(scene.below, nodeType)).version >= 4));
          const node = await only(scene.below, nodeType);
          const most = (performance.now() - since) / ttlMs + 1;
          assert.ok(node.version <= most, `${node.version} renewals where ${most} have time`);
          assert.deepEqual([node.czxid, node.data], [before.czxid, before.data]);
          assert.ok(node.mtime > before.mtime);
          assert.equal(scene.said('announced').length, 1);

          await scene.nodes.remove(`${scene.below}/${node.name}`);
          await eventually(async () => assert.ok((await only(scene.below, nodeType)).version >= 1));

          scene.proxy.acceptThenClose();
          scene.proxy.kill();
          await eventually(() => assert.equal(scene.registry.status.state, 'suspended'));
          const { version } = await only(scene.below, nodeType);
          await sleep(ttlMs * 6);
          scene.proxy.pass();
          await eventually(() => assert.equal(scene.registry.status.state, 'connected'));
          const back = performance.now();
          await eventually(async () => assert.ok((await only(scene.below, nodeType)).version > version));
          const made = (await only(scene.below, nodeType)).version - version;
          assert.ok(made <= (performance.now() - back) / ttlMs + 2, `${made} renewals at once`);

          announcer.set(undefined);
          await announcer.agreed(limit());
          await sleep(ttlMs * 2);
          assert.deepEqual(await scene.standing(), [], 'what is withdrawn is not renewed');
        });
      }
    });

    describe('what a successor is told', { concurrency: true }, () => {
      test('paths are forgotten when the last place is withdrawn, and those of an earlier life once they are swept', async () => {
        await using scene = await enter();
        const paths = async () => (await readSaved(scene.resumeFile)).paths.toSorted();
        const at = (name: string) => `${scene.below}/${name}`;
        const [first, second] = [
          await announce(scene.registry, at('a'), instanceOf('i-1')),
          await announce(scene.registry, at('a'), instanceOf('i-2')),
        ];
        await announce(scene.registry, at('b'), instanceOf('i-1'));
        await announce(scene.registry, at('c'), instanceOf('i-1'));
        await eventually(async () => assert.deepEqual(await paths(), [at('a'), at('b'), at('c')]));
        for (const announcer of [first, second]) {
          assert.ok((await paths()).includes(at('a')));
          announcer.set(undefined);
          await announcer.agreed(limit());
          announcer.release();
        }
        await eventually(async () => assert.deepEqual(await paths(), [at('b'), at('c')]));
        await scene.registry.close({ keep: true });
        assert.deepEqual(await paths(), [at('b'), at('c')]);

        const { registry } = await scene.open();
        await announce(registry, at('c'), instanceOf('i-1'));
        await announce(registry, at('d'), instanceOf('i-1'));
        await eventually(async () => assert.deepEqual(await paths(), [at('b'), at('c'), at('d')]));
        registry.withdrawUnclaimed();
        await eventually(async () => assert.deepEqual(await paths(), [at('c'), at('d')]));
        assert.deepEqual(await scene.nodes.children(at('b')), []);
      });

      test('serversets are announced and read, in both formats side by side', async () => {
        await using scene = await enter();
        const { registry, below } = scene;
        const http = { kind: 'serverset', endpoint: 'http' } as const;
        await announce(registry, below, instanceOf('7', 5, 1), { format: http });
        await announce(registry, below, instanceOf('i-1', 5, 2), { format: { kind: 'serverset' } });
        await announce(registry, below, instanceOf('i-2', 5, 3), { pathEncoding: true });
        const names = (await scene.nodes.children(below)).map((name) => name.replace(/_.*/, ''));
        assert.deepEqual(names, ['member', 'member', 'base64']);
        const read = async (options: Parameters<Registry['watch']>[2]): Promise<Snapshot | undefined> => {
          for await (const snapshot of registry.watch(below, limit(), options)) return snapshot;
          return undefined;
        };
        const found = await read({ format: { kind: 'serverset' } });
        assert.deepEqual(
          found?.instances.map(({ name, port, weight }) => [name, port, weight]),
          [
            ['', 2, undefined],
            ['7', 1, undefined],
            ['i-2', 3, 5],
          ],
        );
        const atEndpoint = await read({ format: http });
        assert.deepEqual(
          atEndpoint?.instances.map(({ port }) => port),
          [1, 3],
        );
        assert.equal(atEndpoint.rejected[0]?.reason, 'the endpoint http is missing');
        // Nothing in the record would tell the second from the first.
        assert.throws(
          () => registry.announce(below, instanceOf('i-9', 5, 2), { format: { kind: 'serverset' } }),
          /already/,
        );
      });
    });
  });
}

describe('announcing through an outage of the server', () => {
  test('with its data kept, every node type stands once again at once, and what died meanwhile is gone', async () => {
    await using server = await startRealZooKeeper();
    const nodes = nodesOf(server.port);
    const { log, said } = listen();
    const registry = await openTestRegistry(server.port, { log });
    const doomed: Announcer[] = [];
    for (const nodeType of NODE_TYPES) {
      await announce(registry, `/${nodeType}`, instanceOf('stays', 1), { nodeType });
      doomed.push(await announce(registry, `/${nodeType}`, instanceOf('dies', 1), { nodeType }));
    }
    const before = await Promise.all(NODE_TYPES.map((nodeType) => nodes.children(`/${nodeType}`)));
    await server.kill();
    for (const announcer of doomed) announcer.set(undefined);
    // Longer than the timeout of the session, which lives on in the data of the server.
    await sleep(5000);
    await server.start();
    await Promise.all(doomed.map((announcer) => announcer.agreed(limit())));
    assertSoon(said(CONNECTED).at(-1)?.at ?? 0);
    const after = await Promise.all(NODE_TYPES.map((nodeType) => nodes.children(`/${nodeType}`)));
    assert.deepEqual(
      after,
      before.map((names) => names.filter((name) => name.startsWith('stays'))),
    );
    await registry.close();
  });
});

describe('announcing where something is refused', () => {
  test('a delete that is refused is tried until it is taken, and nothing else is harmed meanwhile', async () => {
    await using server = await startRealZooKeeper();
    const nodes = nodesOf(server.port);
    const { log, said } = listen();
    const registry = await openTestRegistry(server.port, { log });
    const wire = await connectWire(server.port, { timeoutMs: 10_000 });
    const doomed: Announcer[] = [];
    for (const nodeType of NODE_TYPES) {
      await announce(registry, '/web', instanceOf(`stays-${nodeType}`), { nodeType });
      doomed.push(await announce(registry, '/web', instanceOf(`goes-${nodeType}`), { nodeType }));
    }
    const before = await nodes.children('/web');
    const [everything, allButDelete] = [31, 23];
    const allow = (permissions: number) =>
      zk.setAcl(wire, '/web', [{ permissions, scheme: 'world', id: 'anyone' }]);
    await allow(allButDelete);
    for (const announcer of doomed) announcer.set(undefined);
    await eventually(() => assert.ok(said('did not take it').length >= doomed.length * 2));
    assert.match(String(said('did not take it')[0]?.facts['err']), /NO_AUTH/);
    assert.deepEqual(await nodes.children('/web'), before);
    await allow(everything);
    await Promise.all(doomed.map((announcer) => announcer.agreed(limit())));
    const after = before.filter((name) => name.startsWith('stays'));
    assert.deepEqual(await nodes.children('/web'), after);
    wire.destroy();
    await registry.close();
  });
});

describe('announcing beside nodes that we may not read', () => {
  test('they are foreign: a numbered node stands beside them, and a name is waited for', async () => {
    await using server = await startRealZooKeeper();
    const nodes = nodesOf(server.port);
    const { log, said } = listen();
    const registry = await openTestRegistry(server.port, { log });
    const wire = await connectWire(server.port, { timeoutMs: 10_000 });
    const acl = [{ permissions: 30, scheme: 'world', id: 'anyone' }];
    await nodes.create('/web');
    const closed = ['i-1_', 'i-1_0000000042', 'member_0000000043'];
    for (const name of closed) await zk.create(wire, { path: `/web/${name}`, data: 'secret', acl });
    for (const nodeType of SEQUENTIAL) {
      const announcer = await announce(registry, '/web', instanceOf('i-1'), { nodeType });
      assert.equal((await nodes.children('/web')).length, 4);
      announcer.set(undefined);
      await announcer.agreed(limit());
      announcer.release();
    }
    for (const nodeType of FIXED) {
      const announcer = registry.announce('/web', instanceOf('i-1'), { nodeType });
      announcer.set(instanceOf('i-1'));
      const times = nodeType === 'ephemeral' ? 1 : 2;
      await eventually(() => assert.equal(said(FOREIGN).length, times));
      if (nodeType === 'persistent') {
        await nodes.remove('/web/i-1_');
        await announcer.agreed(limit());
        assert.equal((await only('/web')).length, 1);
      }
      announcer.set(undefined);
      await announcer.agreed(limit());
      announcer.release();
    }
    assert.deepEqual((await nodes.children('/web')).toSorted(), closed.slice(1));
    assert.equal(said('did not take it').length, 0);
    wire.destroy();
    await registry.close();

    async function only(below: string): Promise<string[]> {
      return (await nodes.children(below)).filter((name) => name === 'i-1_');
    }
  });
});

describe('announcing by a process that is killed', () => {
  test('whenever that happens, its successor knows every persistent node that it has made', async () => {
    await using server = await startRealZooKeeper();
    const nodes = nodesOf(server.port);
    const directory = await mkdtemp(path.join(tmpdir(), 'tandem-announcing-'));
    const resumeFile = path.join(directory, 'session.json');
    for (const killAt of [1, 5, 12]) {
      const doomed = spawnAnnouncer(server.port, resumeFile);
      await eventually(async () => assert.ok((await nodes.children('/web')).length >= killAt));
      doomed.kill('SIGKILL');
      await once(doomed, 'exit');
      assert.ok((await nodes.children('/web')).length >= killAt);
      const registry = await openTestRegistry(server.port, { resumeFile });
      registry.withdrawUnclaimed();
      await eventually(async () => assert.deepEqual(await nodes.children('/web'), []));
      await eventually(async () => assert.equal((await readSaved(resumeFile)).persistent, undefined));
      await registry.close();
    }
    await rm(directory, { recursive: true });
  });
});

/** A process of its own that announces one persistent instance after the other. */
function spawnAnnouncer(port: number, resumeFile: string): ChildProcess {
  const support = new URL('../support/registries.js', import.meta.url).href;
  const program = `
    const { openTestRegistry, instanceOf, limit } = await import(${JSON.stringify(support)});
    const registry = await openTestRegistry(${port}, { resumeFile: ${JSON.stringify(resumeFile)} });
    for (let index = 1; ; index += 1) {
      const nodeType = index % 2 === 0 ? 'persistent' : 'persistent_sequential';
      const announcer = registry.announce('/web', instanceOf('i-' + index), { nodeType });
      announcer.set(instanceOf('i-' + index, 1));
      await announcer.agreed(limit());
    }
  `;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', program], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  endLater(() => child.kill('SIGKILL'));
  return child;
}

async function announce(
  registry: Registry,
  below: string,
  instance: Instance,
  options?: AnnounceOptions,
): Promise<Announcer> {
  const announcer = registry.announce(below, instance, options);
  announcer.set(instance);
  await announcer.agreed(limit());
  return announcer;
}

/** Promised is a second; the machine that tests run on may be busy. */
function assertSoon(since: number): void {
  const took = performance.now() - since;
  assert.ok(took < 1000 + 4000, `${Math.round(took)} ms`);
}

/** Long enough for whatever would go wrong to have begun. */
function settle(): Promise<void> {
  return sleep(300);
}

async function readSaved(file: string): Promise<{ paths: string[]; persistent?: unknown }> {
  return JSON.parse(await readFile(file, 'utf8')) as { paths: string[]; persistent?: unknown };
}
