// ZooKeeper dies, stays away, and comes back having lost everything; then the members announce themselves again, one by
// one. Whoever talks to a service through HAProxy must not notice. Away for a minute; TANDEM_FUZZ_SECONDS makes it longer.
import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { createDiscoveryHost, type DiscoveryHost } from '../support/discovery-host.ts';
import { eventually } from '../support/eventually.ts';
import { freePort } from '../support/haproxy.ts';
import { startLoad } from '../support/load.ts';
import { announceMember } from '../support/members.ts';
import { type Origin, startHttpOrigin } from '../support/origin.ts';
import { type RealZooKeeper, startRealZooKeeper } from '../support/real-zookeeper.ts';

const AWAY_MS = Number(process.env['TANDEM_FUZZ_SECONDS'] ?? 60) * 1_000;
const PER_SECOND = 60;
const HOLD_MS = 4_000;
/** `web` is large enough for the guard, `api` is not. */
const SIZES = { web: 5, api: 2 };

const NAMES = ['web', 'api'] as const;
const REFUSED = 'refused an implausible loss, holding on to what was there';

type Name = (typeof NAMES)[number];

interface Scene extends AsyncDisposable {
  readonly zookeeper: RealZooKeeper;
  readonly host: DiscoveryHost;
  readonly origins: Readonly<Record<Name, readonly Origin[]>>;
  readonly listens: Readonly<Record<Name, number>>;
  readonly announce: (name: Name, origins: readonly Origin[]) => Promise<void>;
  readonly becomes: (name: Name, origins: readonly Origin[]) => Promise<void>;
}

async function startScene(): Promise<Scene> {
  const endings: (() => Promise<unknown>)[] = [];
  const end = async () => {
    for (const ending of endings.toReversed()) await ending();
  };
  const startOrigins = async (count: number) => {
    const started = await Promise.all(Array.from({ length: count }, () => startHttpOrigin()));
    endings.push(() => Promise.all(started.map((origin) => origin.close())));
    return started;
  };
  try {
    const zookeeper = await startRealZooKeeper();
    endings.push(() => zookeeper.stop());
    const origins = { web: await startOrigins(SIZES.web), api: await startOrigins(SIZES.api) };
    const listens = { web: await freePort(), api: await freePort() };
    const host = await createDiscoveryHost('', zookeeper.connectString);
    endings.push(async () => host[Symbol.asyncDispose]());
    for (const name of NAMES) {
      const discover = `{ listen: ${listens[name]}, guard: { hold: ${HOLD_MS}ms } }`;
      await host.write(name, `service: ${name}\ndiscover: ${discover}\n`);
    }
    return {
      zookeeper,
      host,
      origins,
      listens,
      async announce(name, some) {
        for (const origin of some) {
          const instance = origin.instance(`${name}-${origins[name].indexOf(origin)}`);
          const member = await announceMember(zookeeper.port, `/services/${name}`, instance);
          endings.push(() => member.leave());
        }
      },
      becomes: (name, some) =>
        host.becomes(
          name,
          some.map(({ port }) => port),
        ),
      [Symbol.asyncDispose]: end,
    };
  } catch (error) {
    await end();
    throw error;
  }
}

describe('a ZooKeeper that dies and comes back empty', { timeout: AWAY_MS + 200_000 }, () => {
  test('costs no request while members come back one by one; one that died meanwhile is gone in the end', async () => {
    await using scene = await startScene();
    const { zookeeper, host, origins, listens, announce, becomes } = scene;
    const [dying, ...living] = origins.web;
    assert.ok(dying);
    const daemon = host.start();
    for (const name of NAMES) await announce(name, origins[name]);
    for (const name of NAMES) await becomes(name, origins[name]);
    const before = { worker: await host.worker(), master: await host.masterPid() };
    const tally = { sent: 0, failures: [] as string[] };
    const under = async (body: () => Promise<void>) => {
      const loads = NAMES.map((name) => startLoad({ port: listens[name], perSecond: PER_SECOND }));
      try {
        await body();
      } finally {
        for (const load of loads) {
          await load.stop();
          tally.sent += load.sent();
          tally.failures.push(...load.failures);
        }
      }
    };

    await under(async () => {
      await zookeeper.kill();
      await sleep(AWAY_MS / 2);
    });
    // It dies between two requests: one that it had taken already, nobody could have saved.
    await dying.close();
    const startedAt = performance.now();
    await under(async () => {
      await sleep(AWAY_MS / 2);
      await rm(path.join(zookeeper.dir, 'version-2'), { recursive: true });
      await becomes('web', origins.web);
      await zookeeper.start();
      await eventually(() => assert.equal(host.logged(REFUSED).length, 1), { withinMs: 60_000 });

      const [first, ...others] = living;
      assert.ok(first);
      await announce('web', [first]);
      // The hold runs out while one is back of five: from now on, it carries everything.
      await becomes('web', [first]);
      for (const [index] of others.entries()) {
        await announce('web', others.slice(index, index + 1));
        await becomes('web', living.slice(0, index + 2));
      }
      // Too small for the guard, it has kept all that there were for as long as none was back.
      await becomes('api', origins.api);
      await announce('api', origins.api);
      await becomes('api', origins.api);
    });
    const tookMs = performance.now() - startedAt;

    assert.deepEqual(tally.failures, []);
    const intended = ((AWAY_MS / 2 + tookMs) / 1_000) * PER_SECOND * NAMES.length;
    assert.ok(tally.sent > intended * 0.9, `${tally.sent} requests of ${Math.round(intended)}`);
    await becomes('web', living);
    assert.deepEqual([daemon.exitCode, daemon.signalCode], [null, null], 'the daemon has ended');
    assert.deepEqual({ worker: await host.worker(), master: await host.masterPid() }, before);
    assert.deepEqual(host.reloads(), []);
  });
});
