// Nobody who talks to a service notices that its instances change, or that HAProxy is reloaded.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { createHaproxyWorld, eventually, freePort, service } from '../support/haproxy.ts';
import { type Load, startLoad } from '../support/load.ts';
import { startHttpOrigin } from '../support/origin.ts';

const PER_SECOND = 200;
const CHANGES = 40;
const RELOADS = 3;

test('no request fails during 40 changes of membership and 3 reloads', { timeout: 60_000 }, async () => {
  const world = await createHaproxyWorld();
  const origins = await Promise.all(Array.from({ length: 6 }, () => startHttpOrigin()));
  let load: Load | undefined;
  try {
    const port = await freePort();
    const balances = ['roundrobin', 'leastconn', 'random', 'roundrobin'];
    const web = (reloads: number) => service('web', `127.0.0.1:${port}`, { balance: balances[reloads] });
    // A window of three that moves over six instances, with weights that change: adds, drains, revivals, weights.
    const members = (change: number) =>
      [0, 1, 2].map((place) => {
        const index = (change + place) % origins.length;
        const origin = origins[index];
        assert.ok(origin);
        return origin.instance(`i${index}`, 1 + ((change + place) % 5));
      });
    const names = (change: number) => members(change).map(({ name }) => name);

    world.registry.say('/services/web', members(0));
    const daemon = world.start([web(0)]);
    await world.becomes('web', names(0));
    load = startLoad({ port, perSecond: PER_SECOND });

    for (let change = 1; change <= CHANGES; change += 1) {
      world.registry.say('/services/web', members(change));
      const reloads = Math.floor((change * (RELOADS + 1)) / (CHANGES + 1));
      daemon.discovery.update([web(reloads)]);
      await sleep(60);
      await world.becomes('web', names(change));
    }
    await eventually(() => assert.equal(world.reloads(), RELOADS, world.reloadReasons()));
    await sleep(300);
    const answers = await load.stop();

    assert.deepEqual(load.failures, []);
    assert.ok(load.sent() > PER_SECOND * 2, `only ${load.sent()} requests were sent`);
    assert.equal(answers.size, origins.length);
    assert.equal(world.logged('cannot bring HAProxy to the desired state, trying again').length, 0);
    await daemon.stop();
  } finally {
    await load?.stop();
    await world.end();
    await Promise.all(origins.map((origin) => origin.close()));
  }
});
