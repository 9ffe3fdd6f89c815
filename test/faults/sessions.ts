import assert from 'node:assert/strict';
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { isTandemError } from '@tandem/core';
import { create, exists } from '@tandem/registry/testing';

import { eventually } from '../support/eventually.ts';
import { type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts';
import {
  endLater,
  follow,
  instanceOf,
  label,
  limit,
  openTestRegistry,
  spawnRegistry,
} from '../support/registries.ts';
import {
  announce,
  CONNECTED,
  enter,
  EXPIRED,
  type FaultServer,
  listenToTrouble,
  openTestSession,
  temporaryDirectory,
} from './scene.ts';

/** Sessions that end, are resumed, shared or cannot be saved. */
export function sessionFaults(server: FaultServer): void {
  describe(`${server.kind}: a session that ends`, { concurrency: true }, () => {
    test('cut off for longer than the timeout: announced again within a second of the new session', async () => {
      await using scene = await enter(server, { sessionTimeoutMs: 2000 });
      const neighbour = await openTestRegistry(server.port());
      const watcher = follow(neighbour, scene.path);
      const own = follow(scene.registry, scene.path);
      const announcer = await announce(scene.registry, scene.path, 'i-1', 1);
      await Promise.all([watcher.shows('i-1:1'), own.shows('i-1:1')]);
      scene.proxy.blackhole();
      await watcher.shows();
      announcer.set(instanceOf('i-1', 2));
      scene.proxy.pass();
      await eventually(() => assert.equal(scene.sessions().length, 2));
      const since = scene.said(CONNECTED).at(-1)?.at ?? 0;
      await watcher.shows('i-1:2');
      assert.ok(performance.now() - since < 1000, `${Math.round(performance.now() - since)} ms`);
      assert.equal(new Set(scene.sessions()).size, 2, 'another session');
      assert.equal((await scene.nodes.children(scene.path)).length, 1);
      await own.shows('i-1:2');
      // Nothing was taken back while the registry was away.
      assert.ok(
        own.snapshots.slice(1).every(({ instances }) => instances.length > 0) || own.snapshots.length <= 4,
      );
      await Promise.all([watcher.stop(), own.stop()]);
      await neighbour.close();
    });

    test('a saved session with a wrong password or of nobody gives way to a new one', async () => {
      await using directory = await temporaryDirectory();
      const resumeFile = path.join(directory.name, 'session.json');
      await using scene = await enter(server, { resumeFile });
      await announce(scene.registry, scene.path, 'i-1');
      const saved = JSON.parse(await readFile(resumeFile, 'utf8')) as Record<string, unknown>;
      for (const change of [{ password: 'AAAA' }, { session_id: '-5' }]) {
        await writeFile(resumeFile, JSON.stringify({ ...saved, ...change }));
        const { registry, sessions } = await scene.open();
        await announce(registry, scene.path, 'i-2');
        assert.equal(sessions().length, 1);
        await registry.close();
      }
      assert.equal((await scene.nodes.children(scene.path)).length, 1);
    });
  });

  describe(`${server.kind}: what waits when a session ends`, { concurrency: true }, () => {
    test('is told so, whether it was sent or waited for its turn, and never runs on another session', async () => {
      await using scene = await enter(server);
      const { proxy } = scene;
      const session = openTestSession(proxy.port, 1000);
      endLater(() => session.close({ keepSession: false }));
      const states: string[] = [];
      session.subscribe(({ state }) => states.push(state));
      const first = await session.connected(limit());
      await session.run(create(scene.path, '', 'persistent'));
      proxy.blackhole();
      // More than are sent at a time; the last ones have not left this process when the session ends.
      const paths = Array.from({ length: 260 }, (_, index) => `${scene.path}/late-${index}`);
      const asked = paths.map((at) => session.run(create(at, '', 'persistent')));
      for (const outcome of await Promise.allSettled(asked))
        assert.ok(outcome.status === 'rejected' && isTandemError(outcome.reason, 'REGISTRY_CONNECTION_LOST'));
      await sleep(2000);
      proxy.kill();
      proxy.pass();
      await eventually(() => assert.ok(states.includes('lost')));
      assert.notEqual(await session.connected(limit()), first);
      await session.run(create(`${scene.path}/now`, '', 'persistent'));
      assert.deepEqual(await scene.nodes.children(scene.path), ['now']);
      await session.close({ keepSession: false });
    });

    test('a session that is closed by a listener is closed for all of them, whatever they were to be told', async () => {
      for (const [fatal, hurt] of [
        ['connected', () => {}],
        ['suspended', (proxy) => proxy.kill()],
        [
          'lost',
          async (proxy) => {
            proxy.acceptThenClose();
            proxy.kill();
            await sleep(2500);
            proxy.pass();
          },
        ],
      ] as const satisfies [string, (proxy: FaultProxy) => unknown][]) {
        await using proxy = await startFaultProxy(server.port());
        const session = openTestSession(proxy.port, 1000);
        endLater(() => session.close({ keepSession: false }));
        const heard: string[] = [];
        let closing: Promise<unknown> | undefined;
        session.subscribe(({ state }) => {
          if (state === fatal) closing = session.close({ keepSession: false });
        });
        session.subscribe(({ state }) => heard.push(state));
        if (fatal !== 'connected') await session.connected(limit());
        await hurt(proxy);
        await eventually(() => assert.ok(closing !== undefined));
        await closing;
        assert.equal(session.state.state, 'closed');
        assert.equal(heard.at(-1), 'closed');
        assert.ok(!heard.includes(fatal), heard.join());
        const { accepted } = proxy;
        await sleep(300);
        assert.equal(proxy.accepted, accepted, 'nobody connects any more');
        await assert.rejects(session.run(exists('/')), { code: 'REGISTRY_CLOSED' });
      }
    });
  });

  describe(`${server.kind}: a session that two processes have`, () => {
    test('goes from one to the other, more and more rarely, and is whole when one of them leaves', async () => {
      await using directory = await temporaryDirectory();
      const resumeFile = path.join(directory.name, 'session.json');
      await using scene = await enter(server, { resumeFile, sessionTimeoutMs: 10_000 });
      await announce(scene.registry, scene.path, 'i-1');
      // The lock on the state directory prevents it, unless somebody has copied the directory.
      const copy = path.join(directory.name, 'copy.json');
      await copyFile(resumeFile, copy);
      const other = await scene.open({ resumeFile: copy });
      await eventually(() => assert.ok(other.sessions().length > 0));
      const before = scene.proxy.accepted;
      await sleep(4000);
      const attempts = scene.proxy.accepted - before;
      assert.ok(attempts > 0 && attempts <= 40, `${attempts} connections in four seconds`);
      await other.registry.close({ keep: true });
      await announce(scene.registry, scene.path, 'i-2');
      assert.deepEqual(
        (await scene.nodes.children(scene.path)).map((child) => child.replace(/_\d+$/, '')),
        ['i-1', 'i-2'],
      );
      assert.equal(new Set([...scene.sessions(), ...other.sessions()]).size, 1, 'the same session');
      assert.deepEqual([...scene.said(EXPIRED), ...other.said(EXPIRED)], []);
    });
  });

  describe(`${server.kind}: a process that stands still`, { concurrency: true }, () => {
    async function freeze(names: readonly string[], sessionTimeoutMs: number) {
      const scene = await enter(server);
      const directory = await temporaryDirectory();
      const resumeFile = path.join(directory.name, 'session.json');
      const options = { path: scene.path, names, resumeFile, sessionTimeoutMs };
      const child = spawnRegistry(server.port(), options);
      const watcher = follow(scene.registry, scene.path);
      await watcher.shows(...names);
      const nodes = await scene.nodes.children(scene.path);
      child.kill('SIGSTOP');
      return {
        scene,
        watcher,
        nodes,
        thaw: () => child.kill('SIGCONT'),
        async [Symbol.asyncDispose]() {
          child.kill('SIGKILL');
          await watcher.stop();
          await scene[Symbol.asyncDispose]();
          await directory[Symbol.asyncDispose]();
        },
      };
    }

    test('for longer than its session: as soon as it goes on, everything is announced again, once', async () => {
      await using frozen = await freeze(['i-1', 'i-2'], 2000);
      await frozen.watcher.shows();
      frozen.thaw();
      await frozen.watcher.shows('i-1', 'i-2');
      const after = await frozen.scene.nodes.children(frozen.scene.path);
      assert.equal(after.length, 2);
      assert.ok(after.every((child) => !frozen.nodes.includes(child)));
    });

    test('for less than its session: nobody notices', async () => {
      await using frozen = await freeze(['i-1'], 8000);
      await sleep(3000);
      frozen.thaw();
      await sleep(1500);
      assert.deepEqual(await frozen.scene.nodes.children(frozen.scene.path), frozen.nodes);
      assert.deepEqual(frozen.watcher.snapshots.slice(-1).map(label), [['i-1']]);
    });
  });

  describe(`${server.kind}: a session that cannot be saved`, () => {
    test('it is told of once and tried until it works, while the instance is announced', async () => {
      await using directory = await temporaryDirectory();
      const resumeFile = path.join(directory.name, 'missing', 'session.json');
      const trouble = listenToTrouble();
      await using scene = await enter(server);
      const { registry } = await scene.open({ resumeFile, log: trouble.log });
      await announce(registry, scene.path, 'i-1');
      await sleep(1000);
      assert.equal(trouble.said('cannot save the session').length, 1);
      await mkdir(path.dirname(resumeFile));
      const saved = await eventually(
        async () => JSON.parse(await readFile(resumeFile, 'utf8')) as { paths: string[] },
      );
      assert.deepEqual(saved.paths, [scene.path]);
      await registry.close();
    });
  });
}
