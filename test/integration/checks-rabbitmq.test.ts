// The rabbitmq check against a real server.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { eventually } from '../support/eventually.ts';
import { assertFrozen, assertKilled, checkOf, untilPasses, wordsFor } from '../support/probes.ts';
import { startRabbitmq } from '../support/real-servers.ts';

const timeout = 180_000;

test(
  'a rabbitmq check leaves no warning in the log of a server, and says what is wrong',
  { timeout },
  async () => {
    const server = await startRabbitmq();
    try {
      const check = checkOf({ rabbitmq: {} }, server.port);
      const before = await untilPasses(check);
      assert.deepEqual(
        [...before].filter((words) => !words.startsWith('connection refused')),
        [],
      );
      for (let round = 0; round < 20; round += 1) await untilPasses(check);
      const text = await eventually(async () => {
        const text = await server.log();
        assert.ok(text.match(/closing AMQP connection .*\n/g)?.length === 21, 'every connection was closed');
        return text;
      });
      const since = text.slice(text.indexOf('started TCP listener'));
      assert.doesNotMatch(since, /\[(warning|error)\]/);

      const wrong = await wordsFor({ rabbitmq: { password: 'hush' } }, server.port);
      assert.match(wrong, /^the server refuses the login of "guest" \(403: ACCESS_REFUSED/);
      assert.doesNotMatch(wrong, /hush/);
      assert.match(
        await wordsFor({ rabbitmq: { vhost: 'elsewhere' } }, server.port),
        /^the server refuses the virtual host "elsewhere" \(530: NOT_ALLOWED/,
      );
      await assertFrozen(check, server);
      await assertKilled(check, server);
    } finally {
      await server.stop();
    }
  },
);
