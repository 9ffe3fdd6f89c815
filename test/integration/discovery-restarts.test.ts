// The daemon is killed and started again at random moments while instances of several services come and go:
// nobody notices.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { codecFor } from '@tandem/core';
import { startEmbeddedZooKeeper } from '@tandem/embedded-zookeeper';

import { createDiscoveryHost } from '../support/discovery-host.ts';
import { type Load, startLoad } from '../support/load.ts';
import { createParents } from '../support/members.ts';
import { type Origin, startHttpOrigin } from '../support/origin.ts';
import { createRandom } from '../support/random.ts';
import { freePorts } from '../support/real-zookeeper.ts';
import { connectWire, FLAGS, type WireClient, zk } from '../support/zookeeper-wire.ts';

const RUN_MS = Number(process.env['TANDEM_FUZZ_SECONDS'] ?? 20) * 1_000;
const SEED = Number(process.env['TANDEM_FUZZ_SEED'] ?? 1);
const SERVICES = ['web', 'api', 'search'];
/** Of each service. */
const PER_SECOND = 40;
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
    const host = await createDiscoveryHost('', `127.0.0.1:${zookeeper.port}`);
    const origins = await Promise.all(Array.from({ length: 6 }, () => startHttpOrigin()));
    const wire = await connectWire(zookeeper.port, { timeoutMs: 60_000 });
    const loads: Load[] = [];
    try {
      const listens = await freePorts(SERVICES.length);
      const fleets = SERVICES.map((name) => createFleet({ wire, path: `/services/${name}`, origins }));
      for (const [index, name] of SERVICES.entries()) {
        await createParents(wire, `/services/${name}`);
        for (const origin of origins) await fleets[index]?.toggle(origin);
        // Instances go faster here than is plausible; what is held must be over soon, so that the end can be compared.
        const discover = `{ listen: ${listens[index]}, guard: { hold: 2s } }`;
        await host.write(name, `service: ${name}\ndiscover: ${discover}\n`);
      }
      let daemon = host.start();
      const untilRight = async () => {
        for (const [index, name] of SERVICES.entries())
          await host.becomes(name, fleets[index]?.ports() ?? []);
      };
      await untilRight();
      const before = { worker: await host.worker(), master: await host.masterPid() };
      for (const port of listens) loads.push(startLoad({ port, perSecond: PER_SECOND }));

      const endAt = performance.now() + RUN_MS;
      let kills = 0;
      const killing = (async () => {
        while (performance.now() < endAt) {
          // From the first moments of a start to the middle of an update.
          await sleep(50 + random.below(1_500));
          await host.end(daemon, 'SIGKILL');
          if (random.chance(0.3)) await sleep(random.below(400));
          daemon = host.start();
          kills += 1;
        }
      })();
      while (performance.now() < endAt) {
        await random.pick(fleets).toggle(random.pick(origins));
        await sleep(random.below(120));
      }
      await killing;
      await untilRight();

      for (const load of loads) {
        const answers = await load.stop();
        assert.deepEqual(load.failures, []);
        assert.ok(load.sent() > (RUN_MS / 1_000) * PER_SECOND * 0.8, `only ${load.sent()} requests`);
        assert.equal(answers.size, origins.length);
      }
      assert.deepEqual({ worker: await host.worker(), master: await host.masterPid() }, before);
      assert.deepEqual(host.reloads(), []);
      assert.ok(kills > 10, `only ${kills} kills`);
    } finally {
      for (const load of loads) await load.stop();
      wire.destroy();
      await host[Symbol.asyncDispose]();
      await zookeeper.close();
      await Promise.all(origins.map((origin) => origin.close()));
    }
  },
);
