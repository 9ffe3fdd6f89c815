// The same faults on the embedded server, and those for which the server itself must be told what to do.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { silentLog } from '@tandem/core';
import { type EmbeddedZooKeeper, startEmbeddedZooKeeper } from '@tandem/embedded-zookeeper';
import { openSession } from '@tandem/registry/testing';

import { announce, EXPIRED, temporaryDirectory } from '../faults/scene.ts';
import { faultSuites } from '../faults/suites.ts';
import { eventually } from '../support/eventually.ts';
import {
  endLater,
  follow,
  instanceOf,
  limit,
  listen,
  nodesOf,
  noSurprises,
  openTestRegistry,
} from '../support/registries.ts';

const KIND = 'registry faults on the embedded server';

let server: EmbeddedZooKeeper;

before(async () => {
  server = await startEmbeddedZooKeeper();
});
after(() => server.close());
noSurprises();

faultSuites({ kind: KIND, port: () => server.port });

describe(`${KIND}: a session that the server ends`, { concurrency: true }, () => {
  test('ended by the server in the middle of everything, many times: every instance stands once', async () => {
    await using embedded = await startEmbeddedZooKeeper();
    const { log, said } = listen();
    const registry = await openTestRegistry(embedded.port, { log });
    const nodes = nodesOf(embedded.port);
    const watcher = follow(registry, '/web');
    const announcers = await Promise.all(
      Array.from({ length: 5 }, (_, index) => announce(registry, '/web', `i-${index}`, 0)),
    );
    for (let round = 1; round <= 8; round += 1) {
      const since = performance.now();
      for (const [index, announcer] of announcers.entries()) announcer.set(instanceOf(`i-${index}`, round));
      if (round % 2 === 0) await sleep(round);
      const [session] = embedded.sessions().filter(({ ephemerals }) => ephemerals.length > 0);
      assert.ok(session !== undefined && embedded.expireSession(session.id));
      await eventually(() => assert.equal(said(EXPIRED).length, round));
      await Promise.all(announcers.map((announcer) => announcer.agreed(limit())));
      await eventually(async () => {
        const owners = embedded.sessions().filter(({ ephemerals }) => ephemerals.length > 0);
        assert.deepEqual(
          owners.map(({ id, ephemerals }) => [id === session.id, ephemerals.length]),
          [[false, announcers.length]],
        );
        assert.equal((await nodes.children('/web')).length, announcers.length);
      });
      await watcher.shows(...announcers.map((_, index) => `i-${index}:${round}`));
      assert.ok(
        performance.now() - since < 3000,
        `round ${round}: ${Math.round(performance.now() - since)} ms`,
      );
    }
    await watcher.stop();
    await registry.close();
    assert.deepEqual(await nodes.children('/web'), []);
  });

  test('a resumed session that the server has ended gives way to a new one', async () => {
    await using embedded = await startEmbeddedZooKeeper();
    await using directory = await temporaryDirectory();
    const resumeFile = path.join(directory.name, 'session.json');
    const first = await openTestRegistry(embedded.port, { resumeFile });
    await announce(first, '/web', 'i-1');
    await first.close({ keep: true });
    const [session] = embedded.sessions().filter(({ ephemerals }) => ephemerals.length > 0);
    assert.ok(session !== undefined && embedded.expireSession(session.id));

    const { log, said } = listen();
    const second = await openTestRegistry(embedded.port, { resumeFile, log });
    second.withdrawUnclaimed();
    await announce(second, '/web', 'i-1');
    assert.equal(said(EXPIRED).length, 1);
    const saved = JSON.parse(await readFile(resumeFile, 'utf8')) as { session_id: string };
    const owners = embedded.sessions().filter(({ ephemerals }) => ephemerals.length > 0);
    assert.deepEqual(
      owners.map(({ id, ephemerals }) => [String(id), ephemerals.length]),
      [[saved.session_id, 1]],
    );
    await second.close();
  });

  test('whose server lost its data and is back at once: announced again within one session timeout', async () => {
    const SESSION_MS = 4000;
    const tookMs = await Promise.all(
      Array.from({ length: 4 }, async () => {
        const first = await startEmbeddedZooKeeper();
        const { log, said } = listen();
        const registry = await openTestRegistry(first.port, { log, sessionTimeoutMs: SESSION_MS });
        for (let index = 0; index < 5; index += 1) await nodesOf(first.port).create(`/history-${index}`);
        await announce(registry, '/web', 'i-1');
        const watcher = follow(registry, '/web');
        await watcher.shows('i-1');
        await first.close();
        await using second = await startEmbeddedZooKeeper({ port: first.port });
        const since = performance.now();
        // Not by another client, whose session would be one more transaction.
        await eventually(() => assert.equal(second.sessions()[0]?.ephemerals.length, 1));
        const took = performance.now() - since;
        assert.equal(said(EXPIRED).length, 1);
        await watcher.shows('i-1');
        assert.ok(watcher.snapshots.every(({ instances }) => instances.length <= 1));
        await watcher.stop();
        await registry.close();
        return took;
      }),
    );
    assert.ok(Math.max(...tookMs) < SESSION_MS, String(tookMs));
  });

  test('together with others: each begins anew at a moment of its own', async () => {
    await using embedded = await startEmbeddedZooKeeper();
    const servers = [{ host: '127.0.0.1', port: embedded.port }];
    const begun: string[] = [];
    const sessions = await Promise.all(
      [0.99, 0.5, 0].map(async (chance) => {
        const session = openSession({
          servers,
          sessionTimeoutMs: 5000,
          log: silentLog,
          random: () => chance,
        });
        endLater(() => session.close({ keepSession: false }));
        await session.connected(limit());
        session.subscribe(({ state }) => {
          if (state === 'connecting') begun.push(`chance ${chance}`);
        });
        return session;
      }),
    );
    for (const { id } of embedded.sessions()) embedded.expireSession(id);
    await eventually(() => assert.equal(begun.length, sessions.length));
    assert.deepEqual(begun, ['chance 0', 'chance 0.5', 'chance 0.99']);
    await Promise.all(sessions.map((session) => session.connected(limit())));
    await Promise.all(sessions.map((session) => session.close({ keepSession: false })));
  });
});
