import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';

import { acquireProcessLock } from '@tandem/core';

import { coded, temporaryDirectory } from './support.ts';

test('a second holder is refused while the first lives, and welcome after', async (t) => {
  const file = path.join(temporaryDirectory(t), 'lock');
  const first = await acquireProcessLock(file, 'tandem register');
  await assert.rejects(
    acquireProcessLock(file, 'tandem register'),
    coded('ALREADY_RUNNING', /another process already runs tandem register/),
  );
  await first.release();
  const second = await acquireProcessLock(file, 'tandem register');
  await second.release();
});

test('the lock of a process that was killed is taken over, by one of several that want it', async (t) => {
  const directory = temporaryDirectory(t);
  const file = path.join(directory, 'lock');
  const script = `import { acquireProcessLock } from '@tandem/core';
    await acquireProcessLock(process.argv[1], 'the child');
    console.log('held');
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script, file], {
    cwd: import.meta.dirname,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  await assert.rejects(acquireProcessLock(file, 'us'), coded('ALREADY_RUNNING'));
  child.kill('SIGKILL');
  await once(child, 'exit');
  assert.deepEqual(readdirSync(directory), ['lock'], 'a killed process leaves its socket');

  const attempts = await Promise.allSettled([acquireProcessLock(file, 'a'), acquireProcessLock(file, 'b')]);
  const winners = attempts.filter((attempt) => attempt.status === 'fulfilled');
  assert.equal(winners.length, 1);
  assert.deepEqual(readdirSync(directory), ['lock']);
  await assert.rejects(acquireProcessLock(file, 'c'), coded('ALREADY_RUNNING'));
  await winners[0]?.value.release();
});

test('a lock that another user has left names the file, the owner and the way out', async (t) => {
  const directory = temporaryDirectory(t);
  const file = path.join(directory, 'lock');
  const first = await acquireProcessLock(file, 'us');
  t.after(() => first.release());
  chmodSync(directory, 0o755);
  chmodSync(file, 0o600);
  // Permissions bind only others than root; for anybody else, a socket without any is as good as a foreign one.
  const isRoot = process.geteuid?.() === 0;
  if (!isRoot) chmodSync(file, 0);
  process.seteuid?.(isRoot ? 65_534 : (process.geteuid?.() ?? 0));
  try {
    await assert.rejects(
      acquireProcessLock(file, 'us'),
      coded(
        'FILE_WRITE_FAILED',
        /lock: it belongs to another user \(uid \d+\)\. Run as that user, or delete the file/,
      ),
    );
  } finally {
    if (isRoot) process.seteuid?.(0);
  }
});

test('a lock that cannot be made says so', async (t) => {
  const file = path.join(temporaryDirectory(t), 'none', 'lock');
  await assert.rejects(acquireProcessLock(file, 'us'), coded('FILE_WRITE_FAILED', /cannot create the lock/));
});

test('a lock whose path is too long for a socket is refused with what to do', async (t) => {
  const file = path.join(temporaryDirectory(t), 'x'.repeat(120));
  await assert.rejects(
    acquireProcessLock(file, 'us'),
    coded('FILE_WRITE_FAILED', /its path is too long for a socket\. Choose a shorter one/),
  );
});
