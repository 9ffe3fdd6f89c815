import assert from 'node:assert/strict';
import { access, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';

import type { Instance } from '@tandem/core';
import type { Registry } from '@tandem/registry';

import { eventually } from '../support/eventually.ts';
import { type Follower, follow, instanceOf, label, limit, type Nodes } from '../support/registries.ts';

/** One empty registry, reached through as many clients as a test wants. */
export interface RegistrySubject {
  open(options?: { resumeFile?: string; pathEncoding?: boolean }): Promise<Registry>;
  /** The same nodes by another way, which shares no code with the clients. */
  readonly nodes: Nodes;
}

/** What every registry must keep, wherever it keeps it. Each test gets a subject of its own. */
export function registryConformance(
  kind: string,
  start: () => Promise<RegistrySubject> | RegistrySubject,
): void {
  const WEB = '/services/web';

  describe(`${kind}: announcing`, () => {
    test('an announced instance stands in the layout and the format of Nerve, and a watcher sees it', async () => {
      await using scene = await enter(start);
      const { nodes, registry } = scene;
      const instance: Instance = {
        name: 'i-1234',
        host: '10.0.0.5',
        port: 8080,
        weight: 10,
        haproxyServerOptions: 'backup',
        labels: { zone: 'eu-1' },
      };
      const watcher = scene.follow(WEB);
      await announce(registry, WEB, instance);
      const [child = '', ...others] = await nodes.children(WEB);
      assert.deepEqual(others, []);
      assert.match(child, /^i-1234_\d{10}$/);
      assert.deepEqual(await nodes.records(WEB), [
        '{"host":"10.0.0.5","port":8080,"name":"i-1234","weight":10,"haproxy_server_options":"backup","labels":{"zone":"eu-1"}}',
      ]);
      await watcher.shows('i-1234:10');
      assert.deepEqual(watcher.latest, { instances: [instance], rejected: [] });
    });

    test('with path encoding the record stands in the name too, and readers of either setting see it', async () => {
      await using scene = await enter(start);
      const encoding = await scene.open({ pathEncoding: true });
      const instance = { ...instanceOf('i-1', 3), labels: { 'ä>?': '😀/+' } };
      await announce(encoding, WEB, instance);
      const [child = ''] = await scene.nodes.children(WEB);
      const [record = ''] = await scene.nodes.records(WEB);
      const encoded = Buffer.from(record).toString('base64').replaceAll('+', '-').replaceAll('/', '_');
      assert.equal(child.replace(/\d{10}$/, ''), `base64_${encoded.length}_${encoded}_`);
      for (const registry of [scene.registry, encoding]) {
        const watcher = scene.follow(WEB, registry);
        await watcher.shows('i-1:3');
        assert.deepEqual(watcher.latest?.instances, [instance]);
      }
    });

    test('a change is a new node, which stands before the old one goes: no watcher ever sees a gap', async () => {
      await using scene = await enter(start);
      const watcher = scene.follow(WEB);
      const announcer = await announce(scene.registry, WEB, instanceOf('i-1', 1));
      await watcher.shows('i-1:1');
      const [before] = await scene.nodes.children(WEB);
      for (let weight = 2; weight <= 6; weight += 1) {
        announcer.set(instanceOf('i-1', weight));
        await announcer.agreed(limit());
        assert.equal((await scene.nodes.children(WEB)).length, 1);
      }
      await watcher.shows('i-1:6');
      assert.notEqual((await scene.nodes.children(WEB))[0], before);
      const firstSeen = watcher.snapshots.findIndex(({ instances }) => instances.length === 1);
      for (const snapshot of watcher.snapshots.slice(firstSeen)) assert.equal(snapshot.instances.length, 1);
    });

    test('the same instance again changes nothing', async () => {
      await using scene = await enter(start);
      const announcer = await announce(scene.registry, WEB, instanceOf('i-1', 1));
      const before = await scene.nodes.children(WEB);
      announcer.set(instanceOf('i-1', 1));
      await announcer.agreed(limit());
      assert.deepEqual(await scene.nodes.children(WEB), before);
    });

    test('the newest of many wishes is what stands at the end, and only it', async () => {
      await using scene = await enter(start);
      const announcer = scene.registry.announce(WEB, instanceOf('i-1'));
      for (let weight = 0; weight < 50; weight += 1) {
        announcer.set(weight % 3 === 0 ? undefined : instanceOf('i-1', weight));
        if (weight % 7 === 0) await new Promise((resolve) => setImmediate(resolve));
      }
      announcer.set(instanceOf('i-1', 99));
      await announcer.agreed(limit());
      const records = await scene.nodes.records(WEB);
      assert.deepEqual(
        records.map((record) => (JSON.parse(record) as Instance).weight),
        [99],
      );
    });

    test('set(undefined) withdraws, and announcing again brings it back', async () => {
      await using scene = await enter(start);
      const watcher = scene.follow(WEB);
      const announcer = await announce(scene.registry, WEB, instanceOf('i-1'));
      await watcher.shows('i-1');
      announcer.set(undefined);
      await announcer.agreed(limit());
      assert.deepEqual(await scene.nodes.children(WEB), []);
      await watcher.shows();
      announcer.set(instanceOf('i-1'));
      await announcer.agreed(limit());
      await watcher.shows('i-1');
    });

    test('several places share a path, and each goes by itself', async () => {
      await using scene = await enter(start);
      const watcher = scene.follow(WEB);
      const first = await announce(scene.registry, WEB, instanceOf('i-1', 1, 8080));
      await announce(scene.registry, WEB, instanceOf('i-1', 2, 8081));
      await announce(scene.registry, WEB, instanceOf('i-2', 3));
      await announce(await scene.open(), WEB, instanceOf('i-3', 4));
      await watcher.shows('i-1:1', 'i-1:2', 'i-2:3', 'i-3:4');
      first.set(undefined);
      await watcher.shows('i-1:2', 'i-2:3', 'i-3:4');
    });

    test('a place is claimed once, until it is released; the same place below another path is another', async () => {
      await using scene = await enter(start);
      const { registry } = scene;
      const first = registry.announce(WEB, instanceOf('i-1'));
      assert.throws(() => registry.announce(WEB, instanceOf('i-1', 5)), /already/);
      registry.announce('/services/other', instanceOf('i-1'));
      first.release();
      const second = registry.announce(WEB, instanceOf('i-1'));
      // Of no effect: it has been released before.
      first.release();
      assert.throws(() => registry.announce(WEB, instanceOf('i-1')), /already/);
      second.release();
    });

    test('an announcer refuses the instance of another place', async () => {
      await using scene = await enter(start);
      const announcer = scene.registry.announce(WEB, instanceOf('i-1', 1, 8080));
      for (const other of [instanceOf('i-2'), instanceOf('i-1', 1, 8081)])
        assert.throws(() => announcer.set(other), TypeError);
    });

    test('what is released stays as it is, and whoever claims the place again finds it', async () => {
      await using scene = await enter(start);
      const first = await announce(scene.registry, WEB, instanceOf('i-1', 1));
      const before = await scene.nodes.children(WEB);
      first.release();
      first.set(undefined);
      const second = await announce(scene.registry, WEB, instanceOf('i-1', 1));
      assert.deepEqual(await scene.nodes.children(WEB), before);
      second.set(undefined);
      await second.agreed(limit());
      assert.deepEqual(await scene.nodes.children(WEB), []);
    });

    test('a place that is released in the middle of an announcement and claimed again ends with one node', async () => {
      await using scene = await enter(start);
      for (let round = 0; round < 20; round += 1) {
        const early = scene.registry.announce(WEB, instanceOf('i-1'));
        early.set(instanceOf('i-1', round));
        for (let turn = 0; turn < round % 5; turn += 1)
          await new Promise((resolve) => setTimeout(resolve, 1));
        early.release();
        const late = await announce(scene.registry, WEB, instanceOf('i-1', 100));
        assert.equal((await scene.nodes.children(WEB)).length, 1, `round ${round}`);
        late.release();
      }
    });

    test('a node that somebody deletes is back, whether or not the path went with it', async () => {
      await using scene = await enter(start);
      await announce(scene.registry, WEB, instanceOf('i-1'));
      const [before] = await scene.nodes.children(WEB);
      await scene.nodes.remove(`${WEB}/${before}`);
      await eventually(async () => {
        const after = await scene.nodes.children(WEB);
        assert.equal(after.length, 1);
        assert.notEqual(after[0], before);
      });
      await scene.nodes.remove('/services');
      await eventually(async () => assert.equal((await scene.nodes.children(WEB)).length, 1));
    });

    test('a node that somebody writes to is replaced by what was meant', async () => {
      await using scene = await enter(start);
      const watcher = scene.follow(WEB);
      await announce(scene.registry, WEB, instanceOf('i-1', 7));
      const records = await scene.nodes.records(WEB);
      const [before] = await scene.nodes.children(WEB);
      await scene.nodes.write(`${WEB}/${before}`, '{"host":"6.6.6.6","port":1,"name":"i-1"}');
      await eventually(async () => {
        assert.deepEqual(await scene.nodes.records(WEB), records);
        assert.notEqual((await scene.nodes.children(WEB))[0], before);
      });
      await watcher.shows('i-1:7');
    });

    test('a foreign node of the same name is neither adopted nor deleted', async () => {
      await using scene = await enter(start);
      const foreign = `${WEB}/i-1_0000000042`;
      const record = JSON.stringify({ host: '10.0.0.1', port: 8080, name: 'i-1' });
      await scene.nodes.create(foreign, record);
      const announcer = await announce(scene.registry, WEB, instanceOf('i-1'));
      assert.deepEqual(await scene.nodes.records(WEB), [record, record]);
      announcer.set(undefined);
      await announcer.agreed(limit());
      assert.deepEqual(await scene.nodes.children(WEB), ['i-1_0000000042']);
    });

    test('agreed ends with the reason of its signal, and before the first wish there is nothing to wait for', async () => {
      await using scene = await enter(start);
      const announcer = scene.registry.announce(WEB, instanceOf('i-1'));
      await announcer.agreed(limit());
      announcer.set(instanceOf('i-1'));
      const reason = new Error('waited long enough');
      await assert.rejects(announcer.agreed(AbortSignal.abort(reason)), (error) => error === reason);
      const controller = new AbortController();
      const waiting = announcer.agreed(controller.signal);
      controller.abort(reason);
      await assert.rejects(waiting, (error) => error === reason);
      await announcer.agreed(limit());
    });
  });

  describe(`${kind}: watching`, () => {
    test('a path that does not exist has no instances and is waited for', async () => {
      await using scene = await enter(start);
      const watcher = scene.follow('/not/there/yet');
      await watcher.shows();
      assert.equal(watcher.snapshots.length, 1);
      await announce(scene.registry, '/not/there/yet', instanceOf('i-1'));
      await watcher.shows('i-1');
      await scene.nodes.remove('/not');
      await eventually(async () => assert.equal((await scene.nodes.children('/not/there/yet')).length, 1));
      await watcher.shows('i-1');
    });

    test('a child that cannot be read as an instance costs itself only, and is named with its reason', async () => {
      await using scene = await enter(start);
      const bad = { a_0000000001: '', b_0000000002: 'not json', c_0000000003: '[]', plain: '{"host":"x"}' };
      for (const [name, data] of Object.entries(bad)) await scene.nodes.create(`${WEB}/${name}`, data);
      await scene.nodes.create(`${WEB}/ok_0000000004`, '{"host":"10.0.0.9","port":"80","name":"ok","x":1}');
      const watcher = scene.follow(WEB);
      await watcher.shows('ok');
      const rejected = watcher.latest?.rejected ?? [];
      assert.deepEqual(rejected.map(({ place }) => place).toSorted(), Object.keys(bad).toSorted());
      for (const { reason } of rejected) assert.match(reason, /\w/);
    });

    test('of two nodes of one instance the newer counts', async () => {
      await using scene = await enter(start);
      await scene.nodes.create(
        `${WEB}/i-1_0000000009`,
        '{"host":"10.0.0.1","port":8080,"name":"i-1","weight":9}',
      );
      await scene.nodes.create(
        `${WEB}/i-1_0000000010`,
        '{"host":"10.0.0.1","port":8080,"name":"i-1","weight":10}',
      );
      await scene.nodes.create(
        `${WEB}/i-1_0000000002`,
        '{"host":"10.0.0.1","port":8080,"name":"i-1","weight":2}',
      );
      await scene.follow(WEB).shows('i-1:10');
    });

    test('names that are used again below a path that was deleted and made anew are read again', async () => {
      await using scene = await enter(start);
      const record = (port: number) => `{"host":"10.0.0.1","port":${port},"name":"i-1","weight":${port}}`;
      await scene.nodes.create(`${WEB}/i-1_0000000000`, record(1));
      const watcher = scene.follow(WEB);
      await watcher.shows('i-1:1');
      for (let round = 2; round < 6; round += 1) {
        await scene.nodes.remove(WEB);
        await scene.nodes.create(`${WEB}/i-1_0000000000`, record(round));
        await watcher.shows(`i-1:${round}`);
      }
    });

    test('two watches of one path both see everything, and one that ends leaves the other', async () => {
      await using scene = await enter(start);
      const [first, second] = [scene.follow(WEB), scene.follow(WEB)];
      await announce(scene.registry, WEB, instanceOf('i-1'));
      await Promise.all([first.shows('i-1'), second.shows('i-1')]);
      await first.stop();
      await announce(scene.registry, WEB, instanceOf('i-2'));
      await second.shows('i-1', 'i-2');
      assert.deepEqual(label(first.latest), ['i-1']);
    });

    test('hundreds of instances are read at once and none is missing', async () => {
      await using scene = await enter(start);
      const names = Array.from({ length: 400 }, (_, index) => `i-${String(index).padStart(3, '0')}`);
      await Promise.all(names.map((name) => announce(scene.registry, WEB, instanceOf(name))));
      const watcher = scene.follow(WEB, await scene.open());
      await watcher.shows(...names);
      assert.deepEqual(label(watcher.snapshots[0]), names, 'the first snapshot is whole');
    });

    test('a watch ends when its signal is aborted: before, at the first snapshot, and while it waits', async () => {
      await using scene = await enter(start);
      for await (const _ of scene.registry.watch(WEB, AbortSignal.abort()))
        assert.fail('it has ended before');
      const controller = new AbortController();
      for await (const _ of scene.registry.watch(WEB, controller.signal)) controller.abort();
      const watcher = scene.follow(WEB);
      await watcher.shows();
      await watcher.stop();
    });

    test('a reader that breaks off ends its watch', async () => {
      await using scene = await enter(start);
      for (let round = 0; round < 30; round += 1)
        for await (const snapshot of scene.registry.watch(WEB, limit())) {
          assert.deepEqual(snapshot.instances, []);
          break;
        }
      await scene.follow(WEB).shows();
    });
  });

  describe(`${kind}: ending`, () => {
    test('close takes what was announced with it, ends every watch, and is told by the status', async () => {
      await using scene = await enter(start);
      const watcher = scene.follow(WEB);
      const announcer = await announce(scene.registry, WEB, instanceOf('i-1'));
      await watcher.shows('i-1');
      assert.equal(scene.registry.status.state, 'connected');
      await Promise.all([scene.registry.close(), scene.registry.close()]);
      assert.equal(scene.registry.status.state, 'closed');
      assert.deepEqual(await scene.nodes.children(WEB), []);
      await watcher.stop();
      for await (const _ of scene.registry.watch(WEB, limit())) assert.fail('it is closed');
      announcer.set(instanceOf('i-1', 5));
      announcer.release();
      assert.deepEqual(await scene.nodes.children(WEB), []);
    });

    test('close in the same turn as opening ends at once', async () => {
      await using scene = await enter(start);
      const registry = await scene.open();
      registry.announce(WEB, instanceOf('i-1')).set(instanceOf('i-1'));
      await registry.close();
      assert.equal(registry.status.state, 'closed');
    });

    test('a successor adopts what was left to it: the same nodes, nothing new, and no watcher sees a change', async () => {
      await using scene = await enter(start);
      const { resumeFile } = scene;
      const first = await scene.open({ resumeFile });
      await announce(first, WEB, instanceOf('i-1', 1));
      await announce(first, WEB, instanceOf('i-2', 2));
      const before = await scene.nodes.children(WEB);
      const watcher = scene.follow(WEB);
      await watcher.shows('i-1:1', 'i-2:2');
      const seen = watcher.snapshots.length;
      await first.close({ keep: true });
      assert.deepEqual(await scene.nodes.children(WEB), before);

      const second = await scene.open({ resumeFile });
      await announce(second, WEB, instanceOf('i-1', 1));
      await announce(second, WEB, instanceOf('i-2', 2));
      second.withdrawUnclaimed();
      assert.deepEqual(await scene.nodes.children(WEB), before);
      // The next change that the watcher sees is another one.
      await announce(scene.registry, WEB, instanceOf('i-3'));
      await watcher.shows('i-1:1', 'i-2:2', 'i-3');
      assert.deepEqual(watcher.snapshots.slice(seen).map(label), [['i-1:1', 'i-2:2', 'i-3']]);
      await second.close();
      assert.equal((await scene.nodes.children(WEB)).length, 1);
    });

    test('before its first wish a successor touches nothing; what changed meanwhile is then replaced', async () => {
      await using scene = await enter(start);
      const { resumeFile } = scene;
      const first = await scene.open({ resumeFile });
      await announce(first, WEB, instanceOf('i-1', 1));
      const before = await scene.nodes.children(WEB);
      await first.close({ keep: true });

      const second = await scene.open({ resumeFile });
      const announcer = second.announce(WEB, instanceOf('i-1'));
      second.withdrawUnclaimed();
      await announce(second, '/services/other', instanceOf('i-9'));
      assert.deepEqual(await scene.nodes.children(WEB), before);
      announcer.set(instanceOf('i-1', 2));
      await announcer.agreed(limit());
      const after = await scene.nodes.children(WEB);
      assert.equal(after.length, 1);
      assert.notDeepEqual(after, before);
    });

    test('withdrawUnclaimed removes what nobody claims any more, below every path, and nothing else', async () => {
      await using scene = await enter(start);
      const { resumeFile } = scene;
      const first = await scene.open({ resumeFile });
      for (const [path, name] of [
        [WEB, 'kept'],
        [WEB, 'gone'],
        ['/services/gone', 'gone'],
      ] as const)
        await announce(first, path, instanceOf(name));
      await scene.nodes.create('/services/gone/foreign_0000000001', '{"host":"10.0.0.9","port":1}');
      const neighbour = await scene.open();
      await announce(neighbour, WEB, instanceOf('neighbour'));
      await first.close({ keep: true });

      const second = await scene.open({ resumeFile });
      second.announce(WEB, instanceOf('kept'));
      second.withdrawUnclaimed();
      await eventually(async () => {
        const names = (await scene.nodes.children(WEB)).map((child) => child.replace(/_\d+$/, ''));
        assert.deepEqual(names.toSorted(), ['kept', 'neighbour']);
        assert.deepEqual(await scene.nodes.children('/services/gone'), ['foreign_0000000001']);
      });
    });

    test('a successor with another setting of path encoding writes names of its own setting', async () => {
      await using scene = await enter(start);
      const { resumeFile } = scene;
      const first = await scene.open({ resumeFile });
      await announce(first, WEB, instanceOf('i-1'));
      await first.close({ keep: true });
      const second = await scene.open({ resumeFile, pathEncoding: true });
      await announce(second, WEB, instanceOf('i-1'));
      const children = await scene.nodes.children(WEB);
      assert.equal(children.length, 1);
      assert.match(children[0] ?? '', /^base64_/);
    });

    test('after a close that kept nothing a successor starts anew', async () => {
      await using scene = await enter(start);
      const { resumeFile } = scene;
      const first = await scene.open({ resumeFile });
      await announce(first, WEB, instanceOf('i-1'));
      await first.close();
      await assert.rejects(access(resumeFile), { code: 'ENOENT' });
      const second = await scene.open({ resumeFile });
      second.withdrawUnclaimed();
      await announce(second, WEB, instanceOf('i-1'));
      assert.equal((await scene.nodes.children(WEB)).length, 1);
    });
  });
}

async function announce(registry: Registry, path: string, instance: Instance) {
  const announcer = registry.announce(path, instance);
  announcer.set(instance);
  await announcer.agreed(limit());
  return announcer;
}

/** A subject with a client, and an end for everything that a test opens. */
async function enter(start: () => Promise<RegistrySubject> | RegistrySubject) {
  const subject = await start();
  const directory = await mkdtemp(path.join(tmpdir(), 'tandem-conformance-'));
  const registries: Registry[] = [];
  const followers: Follower[] = [];
  const open: RegistrySubject['open'] = async (options) => {
    const registry = await subject.open(options);
    registries.push(registry);
    return registry;
  };
  const registry = await open();
  return {
    nodes: subject.nodes,
    registry,
    open,
    resumeFile: path.join(directory, 'session.json'),
    follow(path: string, of: Registry = registry): Follower {
      const follower = follow(of, path);
      followers.push(follower);
      return follower;
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(followers.map((follower) => follower.stop()));
      await Promise.all(registries.map((each) => each.close()));
      await rm(directory, { recursive: true, force: true });
    },
  };
}
