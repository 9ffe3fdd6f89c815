import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';

import { superviseDaemon } from '@tandem/cli/testing';
import { silentLog } from '@tandem/core';
import { createRegistrar } from '@tandem/registrar';

import { inDirectory } from '../../support/directory.ts';
import { eventually } from '../../support/eventually.ts';
import { createManualClock } from '../registrar/manual-clock.ts';
import { createFakeRegistry, HOST, registration } from '../registrar/support.ts';

function createListener(isHeard = true) {
  const words: string[] = [];
  return {
    words,
    notify: {
      isHeard,
      alive: () => void words.push('alive'),
      status: (line: string) => void words.push(line),
    },
  };
}

describe('who watches a daemon', () => {
  test('is told once that it is ready, its status, and that it lives', async () => {
    const { words, notify } = createListener();
    let isReady = false;
    const end = superviseDaemon({
      look: () => ({ isReady, isAlive: true, status: () => 'well' }),
      onReady: () => words.push('ready'),
      notify,
      heartbeatFile: undefined,
      log: silentLog,
      beatMs: 20,
    });
    try {
      assert.deepEqual(words, ['well', 'alive']);
      isReady = true;
      await eventually(() => assert.ok(words.length >= 8));
    } finally {
      end();
    }
    assert.equal(words.filter((word) => word === 'ready').length, 1);
  });

  test('hears nothing of a daemon that cannot be looked at, nor of its status where nobody listens', () => {
    const blind = createListener();
    superviseDaemon({
      look: () => {
        throw new Error('a fault');
      },
      onReady: () => assert.fail('it is not ready'),
      notify: blind.notify,
      heartbeatFile: undefined,
      log: silentLog,
    })();
    const alone = createListener(false);
    superviseDaemon({
      look: () => ({ isReady: true, isAlive: true, status: () => assert.fail('nobody wants to know') }),
      onReady: () => {},
      notify: alone.notify,
      heartbeatFile: undefined,
      log: silentLog,
    })();

    assert.deepEqual(blind.words, []);
    assert.deepEqual(alone.words, ['alive']);
  });

  test('sees no heartbeat any more when one check of a thousand makes no progress, though all others do', () =>
    inDirectory(async (directory) => {
      const file = path.join(directory, 'heartbeat');
      const clock = createManualClock();
      let isHanging = false;
      const registrar = createRegistrar({
        host: HOST,
        registry: createFakeRegistry(),
        log: silentLog,
        // The timers of one check are lost, as by a fault of ours.
        clock: {
          ...clock,
          after: (ms, task) => clock.after(ms, () => (isHanging && ms === 777 ? undefined : task())),
        },
        createCheck: (config) => ({
          kind: config.kind,
          probe: () =>
            config.kind === 'http' && isHanging ? new Promise(() => {}) : Promise.resolve({ ok: true }),
        }),
      });
      registrar.update([
        registration('web', { port: 1, checks: [{ http: { path: '/', timeout: '777ms' } }] }),
        ...Array.from({ length: 999 }, (_, index) =>
          registration(`other-${index}`, { port: 2 + index, checks: [{ tcp: {} }] }),
        ),
      ]);
      const { words, notify } = createListener();
      const end = superviseDaemon({
        look: () => ({ isReady: true, isAlive: registrar.overdue().length === 0, status: () => '' }),
        onReady: () => {},
        notify,
        heartbeatFile: file,
        log: silentLog,
        beatMs: 20,
      });
      try {
        await clock.advance(10_000);
        await eventually(() => assert.ok(existsSync(file)));
        assert.deepEqual(registrar.overdue(), []);

        isHanging = true;
        await clock.advance(12_000);
        assert.deepEqual(registrar.overdue(), ['web checks[0].http']);
        // A beat that began before is over with the next one.
        const count = words.length;
        await eventually(() => assert.ok(words.length >= count + 2));
        await rm(file);
        const lives = () => words.filter((word) => word === 'alive').length;
        const before = lives();
        const later = words.length;
        await eventually(() => assert.ok(words.length >= later + 3));
        assert.equal(lives(), before);
        assert.equal(existsSync(file), false);
      } finally {
        end();
        const stopped = registrar.stop();
        await clock.advance(10_000);
        await stopped;
      }
    }));
});
