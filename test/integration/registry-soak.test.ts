// The same over and over: what is left behind each time shows here long before it shows on a host.
// TANDEM_SOAK_CYCLES makes it long, such as 10000.
import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { after, before, describe, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import { type EmbeddedZooKeeper, startEmbeddedZooKeeper } from '@tandem/embedded-zookeeper';

import { announce, openTestSession } from '../faults/scene.ts';
import { eventually } from '../support/eventually.ts';
import { startFaultProxy } from '../support/fault-proxy.ts';
import { follow, instanceOf, limit, nodesOf, noSurprises, openTestRegistry } from '../support/registries.ts';

const CYCLES = Number(process.env['TANDEM_SOAK_CYCLES'] ?? 200);
/** What the engine itself keeps for a while, such as code that it has just compiled. */
const NOISE_BYTES = 750_000;

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

let server: EmbeddedZooKeeper;

before(async () => {
  server = await startEmbeddedZooKeeper({ tickTimeMs: 100 });
});
after(() => server.close());
noSurprises();

async function heapBytes(): Promise<number> {
  for (let round = 0; round < 3; round += 1) {
    await nextTurn();
    collectGarbage();
  }
  return process.memoryUsage().heapUsed;
}

/** Fails when every cycle leaves more than so many bytes behind. The first half is for whatever is made once. */
async function soak(
  cycle: (index: number) => Promise<void>,
  { cycles = CYCLES, mostBytes }: { cycles?: number; mostBytes: number },
): Promise<void> {
  for (let index = 0; index < cycles / 2; index += 1) await cycle(index);
  const before = await heapBytes();
  for (let index = 0; index < cycles; index += 1) await cycle(index);
  const grown = (await heapBytes()) - before;
  assert.ok(grown < NOISE_BYTES + mostBytes * cycles, `${grown} bytes more after ${cycles} cycles`);
}

/** How many of each kind keep this process alive. */
function resources(): Map<string, number> {
  const counts = new Map<string, number>();
  for (const name of process.getActiveResourcesInfo()) counts.set(name, (counts.get(name) ?? 0) + 1);
  return counts;
}

describe('registry soak', () => {
  test('sessions that come and go leave no socket, no timer, no session and no memory', async () => {
    const before = resources();
    await soak(
      async () => {
        const session = openTestSession(server.port, 2000);
        await session.connected(limit());
        await session.close({ keepSession: false });
      },
      { mostBytes: 1_000 },
    );
    await eventually(() => assert.deepEqual(server.sessions(), []));
    await eventually(() => {
      const more = [...resources()].filter(([name, number]) => number > (before.get(name) ?? 0));
      assert.deepEqual(more, []);
    });
  });

  test('a registry that is cut off again and again keeps its session, its node and its size', async () => {
    await using proxy = await startFaultProxy(server.port);
    // The longest wait before the next attempt is a quarter of it.
    const registry = await openTestRegistry(proxy.port, { sessionTimeoutMs: 400 });
    await announce(registry, '/cut', 'i-1');
    const watcher = follow(registry, '/cut');
    await watcher.shows('i-1');
    const nodes = nodesOf(server.port);
    await soak(
      async () => {
        proxy.kill();
        await eventually(() => assert.equal(registry.status.state, 'suspended'), { everyMs: 1 });
        await eventually(() => assert.equal(registry.status.state, 'connected'), { everyMs: 1 });
      },
      { cycles: CYCLES / 4, mostBytes: 1_000 },
    );
    await watcher.shows('i-1');
    await eventually(async () => assert.equal((await nodes.children('/cut')).length, 1));
    await watcher.stop();
    await registry.close();
  });

  for (const mirror of ['auto', 'classic'] as const) {
    test(`watches that are broken off leave nothing on the signal and in memory (mirror: ${mirror})`, async () => {
      const registry = await openTestRegistry(server.port, { mirror });
      const forever = new AbortController().signal;
      await announce(registry, '/watched', 'i-1');
      await soak(
        async (index) => {
          const path = index % 2 === 0 ? '/watched' : `/missing-${mirror}-${index}`;
          for await (const { instances } of registry.watch(path, forever)) {
            assert.equal(instances.length, index % 2 === 0 ? 1 : 0);
            break;
          }
        },
        { cycles: CYCLES * 5, mostBytes: 100 },
      );
      assert.deepEqual(getEventListeners(forever, 'abort'), []);
      await registry.close();
    });
  }

  test('places that are announced, withdrawn and released leave nothing on the signal, in memory and below their path', async () => {
    const registry = await openTestRegistry(server.port);
    const forever = new AbortController().signal;
    await soak(
      async (index) => {
        const announcer = registry.announce('/places', instanceOf(`i-${index}`));
        announcer.set(instanceOf(`i-${index}`));
        await announcer.agreed(forever);
        announcer.set(undefined);
        await announcer.agreed(forever);
        announcer.release();
      },
      { mostBytes: 500 },
    );
    assert.deepEqual(getEventListeners(forever, 'abort'), []);
    assert.deepEqual(await nodesOf(server.port).children('/places'), []);
    await registry.close();
  });
});
