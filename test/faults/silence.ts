import assert from 'node:assert/strict';
import path from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { create, exists, getData } from '@tandem/registry/testing';

import { eventually } from '../support/eventually.ts';
import { startFaultProxy } from '../support/fault-proxy.ts';
import { instanceOf, limit, nodesOf } from '../support/registries.ts';
import {
  announce,
  DISCONNECTED,
  enter,
  type FaultServer,
  openTestConnection,
  temporaryDirectory,
} from './scene.ts';

/** A network or a peer that says nothing any more, and an end that must not wait for it. */
export function silenceFaults(server: FaultServer): void {
  describe(`${server.kind}: a peer that falls silent`, { concurrency: true }, () => {
    test('a blackhole is left in two thirds of the session timeout; session and nodes live on', async () => {
      await using scene = await enter(server, { sessionTimeoutMs: 4000 });
      await announce(scene.registry, scene.path, 'i-1');
      const before = await scene.nodes.children(scene.path);
      const since = performance.now();
      scene.proxy.blackhole();
      const [left] = await eventually(() => {
        const said = scene.said(DISCONNECTED);
        assert.equal(said.length, 1);
        return said;
      });
      const took = (left?.at ?? Infinity) - since;
      assert.ok(took < (4000 * 2) / 3 + 200 + 800, `left after ${Math.round(took)} ms`);
      assert.match(String(left?.facts['reason']), /no answer for \d+ ms/);
      assert.equal(scene.registry.status.state, 'suspended');
      scene.proxy.pass();
      await eventually(() => assert.equal(scene.sessions().length, 2));
      assert.equal(new Set(scene.sessions()).size, 1, 'the same session');
      assert.deepEqual(await scene.nodes.children(scene.path), before);
    });

    test('a peer that accepts and says nothing is left within the handshake limit, for another server', async () => {
      await using scene = await enter(server, { sessionTimeoutMs: 3000 });
      await using mute = await startFaultProxy(server.port());
      mute.acceptOnly();
      const since = performance.now();
      const [alone, choosing] = await Promise.all([
        scene.open({}, [mute.port]),
        scene.open({}, [mute.port, scene.proxy.port]),
      ]);
      await eventually(() => assert.equal(choosing.sessions().length, 1));
      assert.ok(performance.now() - since < 1000 + 2000, `${Math.round(performance.now() - since)} ms`);
      await eventually(() => assert.ok(mute.accepted >= 4, `${mute.accepted} attempts`));
      assert.equal(alone.registry.status.state, 'connecting');
      mute.pass();
      await eventually(() => assert.equal(alone.registry.status.state, 'connected'));
      await Promise.all([alone.registry.close(), choosing.registry.close()]);
    });

    test('close under a blackhole ends within about two seconds', async () => {
      // Long enough that the heartbeat would notice much later.
      await using scene = await enter(server, { sessionTimeoutMs: 10_000 });
      await announce(scene.registry, scene.path, 'i-1');
      scene.proxy.blackhole();
      const since = performance.now();
      await scene.registry.close();
      const took = performance.now() - since;
      assert.ok(took < 3500, `${Math.round(took)} ms`);
      assert.equal(scene.registry.status.state, 'closed');
    });

    test('what close could not withdraw is found by a successor that comes in time', async () => {
      await using directory = await temporaryDirectory();
      await using scene = await enter(server, {
        resumeFile: path.join(directory.name, 'session.json'),
        sessionTimeoutMs: 8000,
      });
      await announce(scene.registry, scene.path, 'i-1');
      await announce(scene.registry, scene.path, 'i-2');
      const before = await scene.nodes.children(scene.path);
      scene.proxy.blackhole();
      await scene.registry.close();
      scene.proxy.kill();
      scene.proxy.pass();
      const { registry } = await scene.open();
      await announce(registry, scene.path, 'i-2');
      registry.withdrawUnclaimed();
      await eventually(async () =>
        assert.deepEqual(
          await scene.nodes.children(scene.path),
          before.filter((child) => child.startsWith('i-2_')),
        ),
      );
    });

    test('close while connecting, to a mute peer or to nobody, ends at once', async () => {
      await using scene = await enter(server);
      scene.proxy.acceptOnly();
      const gone = await startFaultProxy(1);
      await gone.close();
      for (const port of [scene.proxy.port, gone.port]) {
        const { registry } = await scene.open({}, [port]);
        registry.announce(scene.path, instanceOf('i-1')).set(instanceOf('i-1'));
        await sleep(300);
        const since = performance.now();
        await registry.close();
        assert.ok(performance.now() - since < 1000);
      }
    });

    test('what was given up is not sent any more, and sets no watch when its answer comes late', async () => {
      await using proxy = await startFaultProxy(server.port());
      const { connection, connected } = openTestConnection(proxy.port, 10_000);
      await connected();
      let calls = 0;
      proxy.blackhole();
      const asked = connection.run(exists('/deadline', true), {
        signal: AbortSignal.timeout(300),
        onWatch: () => (calls += 1),
      });
      // As many as may wait for an answer at a time, and one that has to wait for its turn.
      for (let index = 1; index < 250; index += 1) void connection.run(exists('/'), { signal: limit() });
      const late = connection.run(create('/given-up', '', 'persistent'), {
        signal: AbortSignal.timeout(300),
      });
      const refused = assert.rejects(late, { name: 'TimeoutError' });
      await sleep(600);
      proxy.pass();
      // Its caller is gone, so the answer does no harm.
      await Promise.all([asked, refused]);
      assert.equal(await connection.run(exists('/given-up'), { signal: limit() }), undefined);
      await nodesOf(server.port()).create('/deadline');
      await connection.run(getData('/deadline'), { signal: limit() });
      assert.equal(calls, 0);
      await connection.close({ keepSession: false });
    });
  });
}
