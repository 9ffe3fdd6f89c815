// Twenty changes of membership a second over five services, while others meddle with HAProxy: no request fails, and in
// the end both HAProxy and its file are as they should be. Runs 30 s; TANDEM_FUZZ_SECONDS makes it longer,
// TANDEM_FUZZ_SEED gives the choices another start.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import type { Instance } from '@tandem/core';

import { createHaproxyWorld, freePort, type HaproxyWorld, service } from '../support/haproxy.ts';
import { type Load, startLoad } from '../support/load.ts';
import { type Origin, startHttpOrigin } from '../support/origin.ts';
import { createRandom } from '../support/random.ts';

const SECONDS = Number(process.env['TANDEM_FUZZ_SECONDS'] ?? 30);
const SEED = Number(process.env['TANDEM_FUZZ_SEED'] ?? 1);
const SERVICES = ['one', 'two', 'three', 'four', 'five'];
const ORIGINS = 6;
const CHANGES_PER_SECOND = 20;
/** Of each service. */
const REQUESTS_PER_SECOND = 30;

test(
  `no request fails during ${SECONDS} s of 20 changes a second and meddling`,
  {
    timeout: (SECONDS + 90) * 1_000,
  },
  async (t) => {
    t.diagnostic(`TANDEM_FUZZ_SEED=${SEED} TANDEM_FUZZ_SECONDS=${SECONDS}`);
    const random = createRandom(SEED);
    const world = await createHaproxyWorld();
    const origins = await Promise.all(Array.from({ length: ORIGINS }, () => startHttpOrigin()));
    const loads: Load[] = [];
    try {
      const ports = await Promise.all(SERVICES.map(() => freePort()));
      // Two at least of every service stay while one is taken by hand.
      const members = new Map<string, readonly Origin[]>(SERVICES.map((name) => [name, origins.slice(0, 3)]));
      const say = (name: string) => world.registry.say(`/services/${name}`, instancesOf(members.get(name)));
      for (const name of SERVICES) say(name);
      const daemon = world.start(SERVICES.map((name, index) => service(name, `127.0.0.1:${ports[index]}`)));
      for (const name of SERVICES) await world.becomes(name, namesOf(members.get(name)));
      const booted = await world.workerPid();
      for (const port of ports) loads.push(startLoad({ port, perSecond: REQUESTS_PER_SECOND }));

      const steps = SECONDS * CHANGES_PER_SECOND;
      const startedAt = performance.now();
      let meddled = 0;
      for (let step = 0; step < steps; step += 1) {
        await sleep(Math.max(0, startedAt + (step * 1_000) / CHANGES_PER_SECOND - performance.now()));
        const name = random.pick(SERVICES);
        members.set(name, changed(members.get(name) ?? [], origins, random.below(1_000)));
        say(name);
        if (step % CHANGES_PER_SECOND !== CHANGES_PER_SECOND - 1) continue;
        meddled += 1;
        await meddle(world, random.below(4), random.pick(SERVICES), meddled);
      }
      for (const name of SERVICES) await world.becomes(name, namesOf(members.get(name)));
      await sleep(500);
      for (const load of loads) await load.stop();

      assert.deepEqual(
        loads.flatMap((load) => load.failures),
        [],
      );
      const sent = loads.reduce((sum, load) => sum + load.sent(), 0);
      assert.ok(sent > SECONDS * REQUESTS_PER_SECOND, `only ${sent} requests were sent`);
      assert.equal(world.reloads(), 0, `Tandem itself reloaded: ${world.reloadReasons()}`);
      assert.notEqual(await world.workerPid(), booted, 'somebody else has reloaded');
      for (const name of SERVICES) {
        await world.becomes(name, namesOf(members.get(name)));
        assert.doesNotMatch((await world.servers(name)).join(' '), /rogue/);
      }
      t.diagnostic(`${sent} requests, ${steps} changes, ${meddled} times somebody meddled`);
      await daemon.stop();
    } finally {
      for (const load of loads) await load.stop();
      await world.end();
      await Promise.all(origins.map((origin) => origin.close()));
    }
  },
);

function instancesOf(members: readonly Origin[] = []): Instance[] {
  return members.map((origin) => origin.instance(`i${origin.port}`));
}

function namesOf(members: readonly Origin[] = []): string[] {
  return instancesOf(members).map(({ name }) => name);
}

/** One comes or one goes; three to five are there at any time. */
function changed(members: readonly Origin[], all: readonly Origin[], choice: number): readonly Origin[] {
  const others = all.filter((origin) => !members.includes(origin));
  const isGain = members.length <= 3 || (members.length < 5 && choice % 2 === 0);
  const added = others[choice % Math.max(1, others.length)];
  if (isGain && added !== undefined) return [...members, added];
  return members.filter((_, index) => index !== choice % members.length);
}

/** What other people do to a HAProxy: by turns a reload, a server of theirs, one in maintenance, one in drain. */
async function meddle(world: HaproxyWorld, how: number, backend: string, serial: number): Promise<void> {
  const [first = ''] = await world.servers(backend);
  const server = first.split(' ')[0];
  switch (how) {
    case 0:
      process.kill(await world.masterPid(), 'SIGUSR2');
      return;
    case 1:
      // Nobody listens there.
      await operate(world, `add server ${backend}/rogue${serial} 127.0.0.9:1`);
      await operate(world, `set server ${backend}/rogue${serial} state ready`);
      return;
    case 2:
      await operate(world, `disable server ${backend}/${server}`);
      return;
    default:
      await operate(world, `set server ${backend}/${server} state drain`);
  }
}

/** A worker that is just being replaced may refuse: then nothing has been done. */
async function operate(world: HaproxyWorld, command: string): Promise<void> {
  await world.operate(command).catch(() => {});
}
