// The daemon is killed and started again at random moments while instances come and go: nobody notices.
import assert from 'node:assert/strict';
import { appendFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { createWorld, type Routing, watchRouting } from '@tandem/cli/testing';
import { codecFor } from '@tandem/core';
import { startEmbeddedZooKeeper } from '@tandem/embedded-zookeeper';

import { eventually } from '../support/eventually.ts';
import { type Load, startLoad } from '../support/load.ts';
import { createParents } from '../support/members.ts';
import { type Origin, startHttpOrigin } from '../support/origin.ts';
import { createRandom } from '../support/random.ts';
import { connectWire, FLAGS, type WireClient, zk } from '../support/zookeeper-wire.ts';

const RUN_MS = Number(process.env['TANDEM_FUZZ_SECONDS'] ?? 20) * 1_000;
const SEED = Number(process.env['TANDEM_FUZZ_SEED'] ?? 1);
const PER_SECOND = 100;
const CODEC = codecFor();

/** Announces and withdraws instances of one path, never the last two. */
function createFleet(options: { wire: WireClient; path: string; origins: readonly Origin[] }) {
  const { wire, path: below, origins } = options;
  const nodes = new Map<Origin, string>();
  return {
    ports: () => [...nodes.keys()].map(({ port }) => port).toSorted((a, b) => a - b),
    async toggle(origin: Origin): Promise<void> {
      const node = nodes.get(origin);
      if (node === undefined) {
        const instance = origin.instance(`i${origins.indexOf(origin)}`);
        const made = await zk.create(wire, {
          path: `${below}/${CODEC.namePrefix(instance, { pathEncoding: false })}`,
          data: CODEC.encodeRecord(instance),
          flags: FLAGS.sequential,
        });
        assert.equal(made.code, 0);
        nodes.set(origin, String(made.path));
      } else if (nodes.size > 2) {
        nodes.delete(origin);
        await zk.delete(wire, node);
      }
    },
  };
}

test(
  'a daemon that is killed again and again under churn costs no request and no reload',
  { timeout: RUN_MS + 70_000 },
  async () => {
    const random = createRandom(SEED);
    const zookeeper = await startEmbeddedZooKeeper();
    const world = await createWorld(`127.0.0.1:${zookeeper.port}`);
    const origins = await Promise.all(Array.from({ length: 6 }, () => startHttpOrigin()));
    const wire = await connectWire(zookeeper.port, { timeoutMs: 60_000 });
    let load: Load | undefined;
    let routing: Routing | undefined;
    try {
      // Instances go faster here than is plausible; what is held must be over soon, so that the end can be compared.
      const rules = 'discovery: { guard: { hold: 2s } }\n';
      await appendFile(path.join(world.directory, 'tandem.yaml'), rules);
      await createParents(wire, world.registryPath);
      const fleet = createFleet({ wire, path: world.registryPath, origins });
      for (const origin of origins) await fleet.toggle(origin);
      await world.writeServiceFile({ balance: 'roundrobin' });
      world.startDaemon('discover');
      routing = watchRouting({ socket: world.runtimeSocket, backend: 'web' });
      const isRight = () => {
        const ports = [...(routing?.current?.ports ?? [])].toSorted((a, b) => a - b);
        assert.deepEqual(ports, fleet.ports());
      };
      await eventually(isRight);
      load = startLoad({ port: world.port, perSecond: PER_SECOND });

      const endAt = performance.now() + RUN_MS;
      let kills = 0;
      const killing = (async () => {
        while (performance.now() < endAt) {
          // From the first moments of a start to the middle of an update.
          await sleep(50 + random.below(1_500));
          await world.killDaemon('discover');
          if (random.chance(0.3)) await sleep(random.below(400));
          world.startDaemon('discover');
          kills += 1;
        }
      })();
      while (performance.now() < endAt) {
        await fleet.toggle(random.pick(origins));
        await sleep(random.below(120));
      }
      await killing;
      await eventually(isRight);
      const answers = await load.stop();

      assert.deepEqual(load.failures, []);
      assert.deepEqual(await world.reloadReasons(), []);
      assert.ok(kills > 10, `only ${kills} kills`);
      assert.ok(load.sent() > (RUN_MS / 1_000) * PER_SECOND * 0.8, `only ${load.sent()} requests`);
      assert.equal(answers.size, origins.length);
    } finally {
      await load?.stop();
      routing?.stop();
      wire.destroy();
      await world.end({ keepFiles: false });
      await zookeeper.close();
      await Promise.all(origins.map((origin) => origin.close()));
    }
  },
);
