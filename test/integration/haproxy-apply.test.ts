// Discovery against a real HAProxy: what is desired, what runs and what is on disk are the same, whatever happens.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { createHaproxyWorld, freePort, service } from '../support/haproxy.ts';
import { ask } from '../support/load.ts';
import { startHttpOrigin } from '../support/origin.ts';

test('a cold start serves, with the file on disk equal to what runs', async () => {
  const world = await createHaproxyWorld();
  const origin = await startHttpOrigin();
  try {
    const port = await freePort();
    world.registry.say('/services/web', [origin.instance('a')]);
    const daemon = world.start([service('web', `127.0.0.1:${port}`)]);
    await world.becomes('web', ['a']);
    assert.equal(await ask(port), String(origin.port));
    await daemon.stop();
  } finally {
    await world.end();
    await origin.close();
  }
});
