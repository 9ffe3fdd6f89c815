// Twenty changes of membership a second over five services, while others meddle with HAProxy: no request fails, and in
// the end both HAProxy and its file are as they should be. Runs 30 s; TANDEM_FUZZ_SECONDS makes it longer,
// TANDEM_FUZZ_SEED gives the choices another start.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import type { Instance } from '@tandem/core';

import { createHaproxyWorld, eventually, freePort, type HaproxyWorld, service } from '../support/haproxy.ts';
import { type Load, startLoad } from '../support/load.ts';
import { type Origin, startHttpOrigin } from '../support/origin.ts';
import { createRandom } from '../support/random.ts';

const SECONDS = Number(process.env['TANDEM_FUZZ_SECONDS'] ?? 30);
const SEED = Number(process.env['TANDEM_FUZZ_SEED'] ?? 1);
const SERVICES = ['one', 'two', 'three', 'four', 'five'];
const ORIGINS = 6;
const CHANGES_PER_SECOND = 20;
/** While a server is held. */
const HELD_CHANGES = 60;
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
      const meddled: string[] = [];
      for (let step = 0; step < steps; step += 1) {
        await sleep(Math.max(0, startedAt + (step * 1_000) / CHANGES_PER_SECOND - performance.now()));
        const name = random.pick(SERVICES);
        members.set(name, changed(members.get(name) ?? [], origins, random.below(1_000)));
        say(name);
        if (step % CHANGES_PER_SECOND !== CHANGES_PER_SECOND - 1) continue;
        // By turns, so that each happens in the shortest run.
        const how = MEDDLINGS[meddled.length % MEDDLINGS.length] ?? 'reload';
        meddled.push((await meddle(world, how, random.pick(SERVICES), meddled.length)) ? how : 'refused');
      }
      for (const name of SERVICES) await world.becomes(name, namesOf(members.get(name)));
      await sleep(500);
      const seconds = (performance.now() - startedAt) / 1_000;
      for (const load of loads) await load.stop();

      assert.deepEqual(
        loads.flatMap((load) => load.failures),
        [],
      );
      const sent = loads.reduce((sum, load) => sum + load.sent(), 0);
      const intended = seconds * REQUESTS_PER_SECOND * SERVICES.length;
      assert.ok(sent > intended * 0.9, `only ${sent} of ${Math.round(intended)} requests were sent`);
      for (const how of MEDDLINGS)
        assert.ok(meddled.includes(how), `${how} is not among ${meddled.join(' ')}`);
      assert.equal(world.reloads(), 0, `Tandem itself reloaded: ${world.reloadReasons()}`);
      assert.notEqual(await world.workerPid(), booted, 'somebody else has reloaded');
      for (const name of SERVICES) {
        await world.becomes(name, namesOf(members.get(name)));
        assert.doesNotMatch((await world.servers(name)).join(' '), /rogue/);
      }
      t.diagnostic(`${sent} requests, ${steps} changes, ${meddled.length} times somebody meddled`);
      await daemon.stop();
    } finally {
      for (const load of loads) await load.stop();
      await world.end();
      await Promise.all(origins.map((origin) => origin.close()));
    }
  },
);

test(
  'a server that somebody else holds, and that is to be respected, gets no request while all around it changes',
  { timeout: 90_000 },
  async () => {
    const random = createRandom(SEED);
    const world = await createHaproxyWorld({ foreign_holds: 'respect' });
    const origins = await Promise.all(Array.from({ length: ORIGINS }, () => startHttpOrigin()));
    const [held, ...others] = origins;
    assert.ok(held);
    let load: Load | undefined;
    try {
      const port = await freePort();
      let members: readonly Origin[] = others.slice(0, 3);
      // Its record changes, too: a weight is no reason to let it serve.
      const say = (weight: number) =>
        world.registry.say('/services/web', [
          held.instance(`i${held.port}`, weight),
          ...instancesOf(members),
        ]);
      say(1);
      const daemon = world.start([service('web', `127.0.0.1:${port}`)]);
      await world.becomes('web', namesOf([held, ...members]));
      // From now on it knows what it has left in rotation.
      await eventually(() => assert.ok(daemon.discovery.state().haproxy.applied));
      const server = (await world.servers('web')).find((line) => line.startsWith(`i${held.port}_`));
      const name = `web/${server?.split(' ')[0]}`;
      // The file has the held one, too, but not in rotation.
      const routesTo = (some: readonly Origin[]) =>
        eventually(async () => {
          const names = (await world.servers('web')).map((line) => line.split('_')[0]);
          assert.deepEqual(names, namesOf(some).toSorted());
        });
      load = startLoad({ port, perSecond: 100 });

      for (const hold of ['maint', 'drain']) {
        const booted = await world.workerPid();
        assert.ok(await operate(world, `set server ${name} state ${hold}`));
        await routesTo(members);
        // For those that were on their way, and the connections that stay with it.
        await sleep(500);
        const before: number = held.answered();
        for (let change = 0; change < HELD_CHANGES; change += 1) {
          members = changed(members, others, random.below(1_000));
          say(1 + (change % 5));
          await sleep(1_000 / CHANGES_PER_SECOND);
        }
        assert.equal(await world.workerPid(), booted);
        await routesTo(members);
        assert.equal(held.answered(), before, `it got requests in ${hold}`);
        await eventually(async () => assert.ok(await operate(world, `set server ${name} state ready`)));
        await world.becomes('web', namesOf([held, ...members]));
        await eventually(() => assert.ok(held.answered() > before));
      }
      await load.stop();
      assert.deepEqual(load.failures, []);
      assert.equal(world.reloads(), 0, `Tandem itself reloaded: ${world.reloadReasons()}`);
    } finally {
      await load?.stop();
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

/** What other people do to a HAProxy; the rogue server is one where nobody listens. */
const MEDDLINGS = ['reload', 'rogue', 'maintenance', 'drain'] as const;

/** False when a worker that is just being replaced has refused: then nothing has been done. */
async function meddle(
  world: HaproxyWorld,
  how: (typeof MEDDLINGS)[number],
  backend: string,
  serial: number,
): Promise<boolean> {
  const [first = ''] = await world.servers(backend);
  const server = `${backend}/${first.split(' ')[0]}`;
  switch (how) {
    case 'reload':
      process.kill(await world.masterPid(), 'SIGUSR2');
      return true;
    case 'rogue': {
      const rogue = `${backend}/rogue${serial}`;
      return operate(world, `add server ${rogue} 127.0.0.9:1`, `set server ${rogue} state ready`);
    }
    case 'maintenance':
      return operate(world, `disable server ${server}`);
    case 'drain':
      return operate(world, `set server ${server} state drain`);
  }
}

/** Whether HAProxy has done all of it: its answer is then empty, or says that there is a new server. */
async function operate(world: HaproxyWorld, ...commands: string[]): Promise<boolean> {
  try {
    const answers = await world.operate(...commands);
    return answers.every((answer) => /^\s*(New server registered\.?)?\s*$/.test(answer));
  } catch {
    return false;
  }
}
