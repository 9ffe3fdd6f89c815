import assert from 'node:assert/strict';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { eventually } from '../support/eventually.ts';
import { follow, instanceOf, openTestRegistry } from '../support/registries.ts';
import {
  announce,
  CONNECTED,
  enter,
  type FaultServer,
  listenToTrouble,
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
