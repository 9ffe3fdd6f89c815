import assert from 'node:assert/strict';
import { closeSync, openSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { test } from 'node:test';

import { createLog } from '@tandem/core';

import { temporaryDirectory } from './support.ts';

test('a line of the log holds the facts, the message, the level and the daemon', (t) => {
  const file = path.join(temporaryDirectory(t), 'log');
  const fd = openSync(file, 'w');
  t.after(() => closeSync(fd));
  const log = createLog({ level: 'info', name: 'register', fd });

  log.child({ service: 'web' }).warn({ port: 80 }, 'something happened');
  log.debug({}, 'not to be seen');

  const [line = '', ...others] = readFileSync(file, 'utf8').trimEnd().split('\n');
  assert.deepEqual(others, []);
  const { time, ...rest } = JSON.parse(line) as Record<string, unknown>;
  assert.match(String(time), /^\d{4}-.*Z$/);
  assert.deepEqual(rest, {
    level: 'warn',
    daemon: 'register',
    pid: process.pid,
    service: 'web',
    port: 80,
    msg: 'something happened',
  });
});

const isLinux = process.platform === 'linux';

test('a full disk costs lines, never the caller', { skip: !isLinux && 'needs /dev/full' }, async (t) => {
  const fd = openSync('/dev/full', 'w');
  t.after(() => closeSync(fd));
  const log = createLog({ level: 'info', name: 'register', fd });

  // More than is kept for later.
  for (let line = 0; line < 30; line += 1) log.error({ padding: 'x'.repeat(100_000) }, 'the disk is full');
  // An error that nobody takes would be thrown into the event loop.
  await nextTurn();
  log.child({ service: 'web' }).info({}, 'still here');
});

test('a closed descriptor costs lines, never the caller', async (t) => {
  const fd = openSync(path.join(temporaryDirectory(t), 'log'), 'w');
  const log = createLog({ level: 'info', name: 'register', fd });
  closeSync(fd);

  log.info({}, 'nobody reads this');
  await nextTurn();
});

test('facts that cannot be written cost their line, never the caller', (t) => {
  const file = path.join(temporaryDirectory(t), 'log');
  const fd = openSync(file, 'w');
  t.after(() => closeSync(fd));
  const log = createLog({ level: 'info', name: 'register', fd });
  const facts = {
    toJSON() {
      throw new Error('no');
    },
  };

  log.info({ facts }, 'broken');
  log.info({}, 'sound');

  assert.match(readFileSync(file, 'utf8'), /"msg":"sound"/);
});
