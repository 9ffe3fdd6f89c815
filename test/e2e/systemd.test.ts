import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { inDirectory } from '../support/directory.ts';
import { createDiscoveryHost } from '../support/discovery-host.ts';
import { eventually } from '../support/eventually.ts';
import { freePort } from '../support/haproxy.ts';
import { type FakeInitSystem, startInitSystem } from '../support/init-system.ts';
import { startHttpOrigin } from '../support/origin.ts';

function untilHeard(init: FakeInitSystem, pattern: RegExp, count = 1): Promise<void> {
  return eventually(
    () => {
      const words = init.messages().map((lines) => lines.join(' '));
      assert.ok(
        words.filter((word) => pattern.test(word)).length >= count,
        `${pattern} was not heard ${count} times: ${words.join(' | ')}`,
      );
    },
    { withinMs: 40_000 },
  );
}

describe('the discovery daemon under systemd', { timeout: 240_000 }, () => {
  test('is ready when HAProxy serves, lives, and says that it stops', () =>
    inDirectory(async (directory) => {
      await using init = await startInitSystem(directory);
      await using host = await createDiscoveryHost();
      const origin = await startHttpOrigin();
      try {
        await host.write(
          'web',
          `service: web\ndiscover:\n  listen: ${await freePort()}\n  source: { static: { instances: [{ host: 127.0.0.1, port: ${origin.port} }] } }\n`,
        );
        const env = { NOTIFY_SOCKET: init.socket, WATCHDOG_USEC: '4000000' };
        const daemon = host.start(undefined, undefined, env);

        await untilHeard(init, /^READY=1$/);
        assert.deepEqual(await host.ports('web'), [origin.port]);
        await untilHeard(init, /^STATUS=1 service, HAProxy \d/);
        await untilHeard(init, /^WATCHDOG=1$/);
        daemon.kill('SIGHUP');
        await untilHeard(init, /^RELOADING=1 MONOTONIC_USEC=\d+$/);
        await untilHeard(init, /^READY=1$/, 2);
        await host.end(daemon, 'SIGTERM');
        await untilHeard(init, /^STOPPING=1 /);

        const states = init.messages().map(([first = '']) => first.replace(/=.*/, ''));
        assert.deepEqual(
          states.filter((word) => word !== 'STATUS' && word !== 'WATCHDOG'),
          ['READY', 'RELOADING', 'READY', 'STOPPING'],
        );
      } finally {
        await origin.close();
      }
    }));

  test('is ready before the HAProxy of somebody else, who may wait for it', () =>
    inDirectory(async (directory) => {
      await using init = await startInitSystem(directory);
      await using host = await createDiscoveryHost("  mode: external\n  reload: { command: ['true'] }\n");
      host.start(undefined, undefined, { NOTIFY_SOCKET: init.socket });

      await untilHeard(init, /^READY=1$/);

      assert.notEqual((await host.command('status')).code, 2);
    }));
});
