import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';

import { type CommandResult, createNotify, findInitSystem, type Log, silentLog } from '@tandem/core';

import { inDirectory } from '../../support/directory.ts';
import { eventually } from '../../support/eventually.ts';
import { startInitSystem } from '../../support/init-system.ts';

const PASSED: CommandResult = { kind: 'exited', code: 0, output: '' };

/** What was handed over, and a gate that holds it up. */
function createMouth(result: CommandResult = PASSED) {
  const words: string[] = [];
  let open = () => {};
  let gate = Promise.resolve();
  return {
    words,
    hold() {
      gate = new Promise((resolve) => {
        open = resolve;
      });
    },
    release: () => open(),
    run: async (
      [program, ...lines]: readonly string[],
      options: { env?: Readonly<Record<string, string>> },
    ) => {
      assert.equal(program, 'systemd-notify');
      assert.deepEqual(options.env, { NOTIFY_SOCKET: '/run/notify' });
      words.push(lines.join(' '));
      await gate;
      return result;
    },
  };
}

function createWarnings(): { log: Log; warnings: unknown[] } {
  const warnings: unknown[] = [];
  return { warnings, log: { ...silentLog, warn: (facts) => warnings.push(facts['reason']) } };
}

describe('what systemd leaves in the environment', () => {
  test('names its socket, and the limit of its watchdog if that is for this process', () => {
    const socket = '/run/systemd/notify';
    const cases = [
      [{}, undefined],
      [{ NOTIFY_SOCKET: '' }, undefined],
      [{ NOTIFY_SOCKET: 'relative' }, undefined],
      [{ NOTIFY_SOCKET: socket }, { socket }],
      [{ NOTIFY_SOCKET: '@abstract', WATCHDOG_USEC: 'much' }, { socket: '@abstract' }],
      [
        { NOTIFY_SOCKET: socket, WATCHDOG_USEC: '30000000' },
        { socket, watchdogMs: 30_000 },
      ],
      [
        { NOTIFY_SOCKET: socket, WATCHDOG_USEC: '2000', WATCHDOG_PID: '42' },
        { socket, watchdogMs: 2 },
      ],
      [{ NOTIFY_SOCKET: socket, WATCHDOG_USEC: '2000', WATCHDOG_PID: '43' }, { socket }],
    ] as const;

    for (const [environment, expected] of cases)
      assert.deepEqual(findInitSystem(environment, 42), expected, JSON.stringify(environment));
  });
});

describe('a daemon under systemd', () => {
  test('is heard in the order in which it speaks, by a real systemd-notify', () =>
    inDirectory(async (directory) => {
      await using init = await startInitSystem(directory);
      const notify = createNotify(
        { socket: init.socket, watchdogMs: 30_000 },
        { log: silentLog, monotonicUsec: () => 123n },
      );

      notify.ready();
      notify.reloading();
      notify.ready();
      notify.alive();
      notify.stopping(1_500);
      await notify.close();

      await eventually(() =>
        assert.deepEqual(init.messages(), [
          ['READY=1'],
          ['RELOADING=1', 'MONOTONIC_USEC=123'],
          ['READY=1'],
          ['WATCHDOG=1'],
          ['STOPPING=1', 'EXTEND_TIMEOUT_USEC=1500000'],
        ]),
      );
    }));

  test('says a status when it is another one, on one line, and not more often than every few seconds', async () => {
    const mouth = createMouth();
    const notify = createNotify({ socket: '/run/notify' }, { log: silentLog, run: mouth.run });

    notify.status('1 service\u001b[2J\nREADY=1');
    await eventually(() => assert.deepEqual(mouth.words, ['STATUS=1 service [2J READY=1']));
    notify.status('2 services');
    notify.status('3 services');
    notify.status('x'.repeat(1_000));
    assert.equal(mouth.words.length, 1);
    await eventually(() => assert.equal(mouth.words.length, 2));
    assert.equal(mouth.words[1], `STATUS=${'x'.repeat(200)}`);
    notify.status('x'.repeat(1_000));
    notify.status('4 services');
    await notify.close();

    assert.equal(mouth.words.length, 2, 'nothing is said after the end');
  });

  test('gives signs of life at half of the limit, and none that are old', async () => {
    let now = 0;
    const mouth = createMouth();
    const notify = createNotify(
      { socket: '/run/notify', watchdogMs: 30_000 },
      { log: silentLog, run: mouth.run, now: () => now },
    );

    const saidAt: number[] = [];
    for (; now < 60_000; now += 1_000) {
      const before = mouth.words.length;
      notify.alive();
      await nextTurn();
      if (mouth.words.length > before) saidAt.push(now);
    }
    assert.deepEqual(saidAt, [0, 14_000, 28_000, 42_000, 56_000]);
    mouth.hold();
    for (; now < 120_000; now += 1_000) notify.alive();
    mouth.release();
    await notify.close();

    assert.equal(mouth.words.length, saidAt.length + 2, 'one under way, and one that waits for it');
    assert.deepEqual([...new Set(mouth.words)], ['WATCHDOG=1']);
  });

  test('without a watchdog gives no signs of life', async () => {
    const mouth = createMouth();
    const notify = createNotify({ socket: '/run/notify' }, { log: silentLog, run: mouth.run });

    notify.alive();
    await notify.close();

    assert.deepEqual(mouth.words, []);
  });

  test('is not disturbed by an init system that does not listen, and says so once', async () => {
    const { log, warnings } = createWarnings();
    const notify = createNotify({ socket: '/nowhere/notify' }, { log });

    notify.ready();
    notify.reloading();
    notify.ready();
    await notify.close();

    assert.equal(warnings.length, 1);
    assert.match(String(warnings[0]), /Failed to notify init system/);
  });

  test('goes on where there is no systemd-notify, and says so once', async () => {
    const { log, warnings } = createWarnings();
    const { run } = createMouth({ kind: 'not-started', cause: new Error('no such program'), output: '' });
    const notify = createNotify({ socket: '/run/notify' }, { log, run });

    notify.ready();
    notify.stopping(1);
    await notify.close();

    assert.deepEqual(warnings, ['cannot start systemd-notify: no such program']);
  });

  test('ends soon, though what it has said last is not taken', async () => {
    const { log, warnings } = createWarnings();
    const startedAt = performance.now();
    const notify = createNotify(
      { socket: '/run/notify' },
      {
        log,
        closeLimitMs: 50,
        run: (_, { signal }) =>
          new Promise((_resolve, reject) => {
            signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
          }),
      },
    );

    notify.stopping(1);
    await notify.close();

    assert.ok(performance.now() - startedAt < 30_000);
    assert.equal(warnings.length, 1);
  });
});

describe('a daemon that nobody has started', () => {
  test('speaks to nobody', async () => {
    const notify = createNotify(undefined, { log: silentLog, run: () => assert.fail('nobody listens') });

    notify.ready();
    notify.status('well');
    notify.alive();
    notify.stopping(1);
    await notify.close();

    assert.equal(notify.isHeard, false);
  });
});
