import assert from 'node:assert/strict';
import { access } from 'node:fs/promises';
import { describe, test } from 'node:test';

import type { Registry } from '@tandem/registry';

import { eventually } from '../support/eventually.ts';
import {
  instanceOf,
  labelOf,
  limit,
  type Nodes,
  nodesOf,
  type OpenOptions,
  openTestRegistry,
} from '../support/registries.ts';
import { announce, enter, type RegistrySubject } from './scene.ts';

/** A registry in ZooKeeper, and its nodes. */
export interface ZooKeeperSubject extends RegistrySubject {
  open(options?: { resumeFile?: string; pathEncoding?: boolean }): Promise<Registry>;
  /** Seen and changed by another way, which shares no code with the clients. */
  readonly nodes: Nodes;
}

/**
 * A subject on a server that listens on loopback, below a path that no other test uses. The clients may go another way
 * than the tests' own look at the nodes.
 */
export function zookeeperSubject(
  port: number,
  chroot: string,
  { clientPort = port, ...settings }: OpenOptions & { clientPort?: number } = {},
): ZooKeeperSubject {
  const nodes = nodesOf(port, chroot);
  return {
    nodes,
    open: (options) => openTestRegistry(clientPort, { ...settings, ...options, chroot }),
    async standing(path) {
      const [children, records] = [await nodes.children(path), await nodes.records(path)];
      return children.map((mark, index) => ({ mark, label: labelOf(records[index] ?? '') }));
    },
  };
}

/** What a registry in ZooKeeper owes to those who share the nodes with it: Nerve, Synapse, and people with a shell. */
export function zookeeperConformance(
  kind: string,
  start: () => Promise<ZooKeeperSubject> | ZooKeeperSubject,
): void {
  const WEB = '/services/web';

  describe(`${kind}: its own nodes`, () => {
    test('an announced instance stands in the layout and the format of Nerve', async () => {
      await using scene = await enter(start);
      await announce(scene.registry, WEB, {
        name: 'i-1234',
        host: '10.0.0.5',
        port: 8080,
        weight: 10,
        haproxyServerOptions: 'backup',
        labels: { zone: 'eu-1' },
      });
      const [child = '', ...others] = await scene.subject.nodes.children(WEB);
      assert.deepEqual(others, []);
      assert.match(child, /^i-1234_\d{10}$/);
      assert.deepEqual(await scene.subject.nodes.records(WEB), [
        '{"host":"10.0.0.5","port":8080,"name":"i-1234","weight":10,"haproxy_server_options":"backup","labels":{"zone":"eu-1"}}',
      ]);
    });

    test('with path encoding the record stands in the name too, and readers of either setting see it', async () => {
      await using scene = await enter(start);
      const encoding = await scene.open({ pathEncoding: true });
      const instance = { ...instanceOf('i-1', 3), labels: { 'ä>?': '😀/+' } };
      await announce(encoding, WEB, instance);
      const [child = ''] = await scene.subject.nodes.children(WEB);
      const [record = ''] = await scene.subject.nodes.records(WEB);
      const encoded = Buffer.from(record).toString('base64').replaceAll('+', '-').replaceAll('/', '_');
      assert.equal(child.replace(/\d{10}$/, ''), `base64_${encoded.length}_${encoded}_`);
      for (const registry of [scene.registry, encoding]) {
        const watcher = scene.follow(WEB, registry);
        await watcher.shows('i-1:3');
        assert.deepEqual(watcher.latest?.instances, [instance]);
      }
    });

    test('a node that somebody deletes is back, whether or not the path went with it', async () => {
      await using scene = await enter(start);
      const { nodes } = scene.subject;
      await announce(scene.registry, WEB, instanceOf('i-1'));
      const [before] = await nodes.children(WEB);
      await nodes.remove(`${WEB}/${before}`);
      await eventually(async () => {
        const after = await nodes.children(WEB);
        assert.equal(after.length, 1);
        assert.notEqual(after[0], before);
      });
      await nodes.remove('/services');
      await eventually(async () => assert.equal((await nodes.children(WEB)).length, 1));
    });

    test('a node that somebody writes to is replaced by what was meant', async () => {
      await using scene = await enter(start);
      const { nodes } = scene.subject;
      const watcher = scene.follow(WEB);
      await announce(scene.registry, WEB, instanceOf('i-1', 7));
      const records = await nodes.records(WEB);
      const [before] = await nodes.children(WEB);
      await nodes.write(`${WEB}/${before}`, '{"host":"6.6.6.6","port":1,"name":"i-1"}');
      await eventually(async () => {
        assert.deepEqual(await nodes.records(WEB), records);
        assert.notEqual((await nodes.children(WEB))[0], before);
      });
      await watcher.shows('i-1:7');
    });

    test('a successor with another setting of path encoding writes names of its own setting', async () => {
      await using scene = await enter(start);
      const { resumeFile } = scene;
      const first = await scene.open({ resumeFile });
      await announce(first, WEB, instanceOf('i-1'));
      await first.close({ keep: true });
      const second = await scene.open({ resumeFile, pathEncoding: true });
      await announce(second, WEB, instanceOf('i-1'));
      const children = await scene.subject.nodes.children(WEB);
      assert.equal(children.length, 1);
      assert.match(children[0] ?? '', /^base64_/);
    });

    test('a close that kept nothing leaves no session behind to be resumed', async () => {
      await using scene = await enter(start);
      const { resumeFile } = scene;
      const first = await scene.open({ resumeFile });
      await announce(first, WEB, instanceOf('i-1'));
      await access(resumeFile);
      await first.close();
      await assert.rejects(access(resumeFile), { code: 'ENOENT' });
    });
  });

  describe(`${kind}: the nodes of others`, () => {
    test('a foreign node of the same name is neither adopted nor deleted', async () => {
      await using scene = await enter(start);
      const { nodes } = scene.subject;
      const record = JSON.stringify({ host: '10.0.0.1', port: 8080, name: 'i-1' });
      await nodes.create(`${WEB}/i-1_0000000042`, record);
      const announcer = await announce(scene.registry, WEB, instanceOf('i-1'));
      assert.deepEqual(await nodes.records(WEB), [record, record]);
      announcer.set(undefined);
      await announcer.agreed(limit());
      assert.deepEqual(await nodes.children(WEB), ['i-1_0000000042']);
    });

    test('withdrawUnclaimed leaves foreign nodes where they are', async () => {
      await using scene = await enter(start);
      const { nodes } = scene.subject;
      const { resumeFile } = scene;
      const first = await scene.open({ resumeFile });
      await announce(first, WEB, instanceOf('i-1'));
      await nodes.create(`${WEB}/i-1_0000000042`, '{"host":"10.0.0.9","port":1}');
      await first.close({ keep: true });
      const second = await scene.open({ resumeFile });
      second.withdrawUnclaimed();
      await eventually(async () => assert.deepEqual(await nodes.children(WEB), ['i-1_0000000042']));
    });

    test('a path that is deleted with everything below it is announced and watched anew', async () => {
      await using scene = await enter(start);
      const { nodes } = scene.subject;
      const watcher = scene.follow('/not/there/yet');
      await watcher.shows();
      await announce(scene.registry, '/not/there/yet', instanceOf('i-1'));
      await watcher.shows('i-1');
      await nodes.remove('/not');
      await eventually(async () => assert.equal((await nodes.children('/not/there/yet')).length, 1));
      await watcher.shows('i-1');
    });

    test('a child that cannot be read as an instance costs itself only, and is named with its reason', async () => {
      await using scene = await enter(start);
      const { nodes } = scene.subject;
      const bad = { a_0000000001: '', b_0000000002: 'not json', c_0000000003: '[]', plain: '{"host":"x"}' };
      for (const [name, data] of Object.entries(bad)) await nodes.create(`${WEB}/${name}`, data);
      await nodes.create(`${WEB}/ok_0000000004`, '{"host":"10.0.0.9","port":"80","name":"ok","x":1}');
      const watcher = scene.follow(WEB);
      await watcher.shows('ok');
      const rejected = watcher.latest?.rejected ?? [];
      assert.deepEqual(rejected.map(({ place }) => place).toSorted(), Object.keys(bad).toSorted());
      for (const { reason } of rejected) assert.match(reason, /\w/);
    });

    test('of two nodes of one instance the one with the higher number counts', async () => {
      await using scene = await enter(start);
      for (const [number, weight] of [
        ['0000000009', 9],
        ['0000000010', 10],
        ['0000000002', 2],
      ] as const) {
        const record = { host: '10.0.0.1', port: 8080, name: 'i-1', weight };
        await scene.subject.nodes.create(`${WEB}/i-1_${number}`, JSON.stringify(record));
      }
      await scene.follow(WEB).shows('i-1:10');
    });

    test('names that are used again below a path that was deleted and made anew are read again', async () => {
      await using scene = await enter(start);
      const { nodes } = scene.subject;
      const record = (port: number) => `{"host":"10.0.0.1","port":${port},"name":"i-1","weight":${port}}`;
      await nodes.create(`${WEB}/i-1_0000000000`, record(1));
      const watcher = scene.follow(WEB);
      await watcher.shows('i-1:1');
      for (let round = 2; round < 6; round += 1) {
        await nodes.remove(WEB);
        await nodes.create(`${WEB}/i-1_0000000000`, record(round));
        await watcher.shows(`i-1:${round}`);
      }
    });
  });
}
