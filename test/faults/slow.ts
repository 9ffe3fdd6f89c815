import assert from 'node:assert/strict';
import path from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { eventually } from '../support/eventually.ts';
import { follow, instanceOf, limit } from '../support/registries.ts';
import { announce, DISCONNECTED, enter, type FaultServer, temporaryDirectory } from './scene.ts';

/** A network that is slow, and not equally slow all the time. */
export function slowFaults(server: FaultServer): void {
  describe(`${server.kind}: a slow network`, { concurrency: true }, () => {
    test('with 300 ms each way, then more, then less: announced, seen and resumed on one session', async () => {
      await using directory = await temporaryDirectory();
      const resumeFile = path.join(directory.name, 'session.json');
      await using scene = await enter(server, { resumeFile, sessionTimeoutMs: 6000 });
      await eventually(() => assert.equal(scene.registry.status.state, 'connected'));
      scene.proxy.delay(300);
      const watcher = follow(scene.registry, scene.path);
      const announcer = scene.registry.announce(scene.path, instanceOf('i-1'));
      for (const [index, ms] of [300, 500, 20, 400, 0, 300].entries()) {
        scene.proxy.delay(ms);
        announcer.set(instanceOf('i-1', index));
        await sleep(150);
      }
      await announcer.agreed(limit());
      await watcher.shows('i-1:5');
      assert.ok(watcher.snapshots.every(({ instances }) => instances.length <= 1));
      const before = await scene.nodes.children(scene.path);
      assert.equal(before.length, 1);
      await scene.registry.close({ keep: true });
      await watcher.stop();

      const successor = await scene.open();
      const adopted = successor.registry.announce(scene.path, instanceOf('i-1'));
      adopted.set(instanceOf('i-1', 5));
      await adopted.agreed(limit());
      assert.deepEqual(await scene.nodes.children(scene.path), before);
      assert.deepEqual(successor.sessions(), scene.sessions());
    });

    test('answers that take nearly as long as a handshake may cost neither connection nor session', async () => {
      await using scene = await enter(server, { sessionTimeoutMs: 3000 });
      await announce(scene.registry, scene.path, 'i-1');
      const before = await scene.nodes.children(scene.path);
      // There and back: 200 ms less than a third of the session timeout.
      scene.proxy.delay(400);
      await sleep(4500);
      scene.proxy.kill();
      await eventually(() => assert.equal(scene.sessions().length, 2));
      assert.equal(scene.said(DISCONNECTED).length, 1);
      assert.equal(new Set(scene.sessions()).size, 1, 'the same session');
      assert.deepEqual(await scene.nodes.children(scene.path), before);
    });
  });
}
