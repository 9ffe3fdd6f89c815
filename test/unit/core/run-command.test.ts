import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';

import { runCommand } from '@tandem/core';

import { eventually } from '../../support/eventually.ts';
import { inDirectory } from '../../support/directory.ts';

const NEVER = new AbortController().signal;
/** What a busy machine may need for a thing of a moment, and far less than the programs take. */
const SOON_MS = 5_000;

async function inTime<T>(work: Promise<T>): Promise<T> {
  const startedAt = performance.now();
  const result = await work;
  const tookMs = performance.now() - startedAt;
  assert.ok(tookMs < SOON_MS, `it took ${Math.round(tookMs)} ms`);
  return result;
}

function shell(script: string, ...args: string[]): string[] {
  return ['sh', '-c', script, 'sh', ...args];
}

/** Whether a process still runs, or waits; one that has ended and is not yet buried has ended. */
async function isLiving(pid: string): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  return stat !== '' && !/^\d+ \(.*\) [ZX]/s.test(stat);
}

describe('a program that is run', () => {
  test('has ended when it has ended, whoever still holds its output', async () => {
    const exits = runCommand(['sh', '-c', 'sleep 12 & exit 0'], { signal: NEVER, timeoutMs: 1_000 });
    assert.deepEqual(await inTime(exits), { kind: 'exited', code: 0, output: '' });

    const says = runCommand(shell('echo said; sleep 12 & echo $! >&2; exit 3'), {
      signal: NEVER,
      timeoutMs: 60_000,
    });
    const { output, ...ending } = await inTime(says);
    const [said, pid = ''] = output.split('\n');
    assert.deepEqual([said, ending], ['said', { kind: 'exited', code: 3 }]);
    assert.ok(await isLiving(pid), 'what a reload command has started goes on');
    process.kill(Number(pid), 'SIGKILL');
  });

  test('is killed at its time limit, with what it has started', () =>
    inDirectory(async (directory) => {
      const file = path.join(directory, 'pid');

      const result = await inTime(
        runCommand(shell('echo begun; sleep 600 & echo $! > "$1"; wait', file), {
          signal: NEVER,
          timeoutMs: 1_000,
        }),
      );

      assert.deepEqual(result, { kind: 'timed-out', output: 'begun\n' });
      const pid = (await readFile(file, 'utf8')).trim();
      await eventually(async () => assert.equal(await isLiving(pid), false));
    }));

  test('is killed with the signal, whose reason comes back at once', () =>
    inDirectory(async (directory) => {
      const file = path.join(directory, 'pid');
      const controller = new AbortController();
      const running = runCommand(shell('sleep 6 & echo $! > "$1"; wait', file), {
        signal: controller.signal,
        timeoutMs: 60_000,
      });
      const pid = await eventually(async () => {
        const text = (await readFile(file, 'utf8')).trim();
        assert.notEqual(text, '');
        return text;
      });

      const reason = new Error('the daemon ends');
      controller.abort(reason);

      await inTime(assert.rejects(running, (error) => error === reason));
      await eventually(async () => assert.equal(await isLiving(pid), false));
      await assert.rejects(runCommand(['true'], { signal: controller.signal, timeoutMs: 60_000 }), reason);
    }));

  test('has its limit even when somebody who got away holds its output', async () => {
    const result = await inTime(
      runCommand(shell('setsid sleep 12 & echo begun; sleep 600'), { signal: NEVER, timeoutMs: 1_000 }),
    );

    assert.deepEqual(result, { kind: 'timed-out', output: 'begun\n' });
  });

  test('may say as much as it likes: the first 256 KB are kept, and none of a short text is lost', async () => {
    const much = await runCommand(shell('head -c 5000000 /dev/zero; exit 1'), {
      signal: NEVER,
      timeoutMs: 60_000,
    });
    const little = await runCommand(shell('i=0; while [ $i -lt 500 ]; do echo $i; i=$((i+1)); done'), {
      signal: NEVER,
      timeoutMs: 60_000,
    });

    assert.deepEqual(
      { ...much, output: much.output.length },
      { kind: 'exited', code: 1, output: 256 * 1024 },
    );
    const numbers = Array.from({ length: 500 }, (_, index) => `${index}\n`).join('');
    assert.deepEqual(little, { kind: 'exited', code: 0, output: numbers });
  });

  test('that does not end by itself, or never started, is told as it is', async () => {
    const killed = await runCommand(shell('kill -TERM $$'), { signal: NEVER, timeoutMs: 60_000 });
    const missing = await runCommand(['/nowhere/to-be-found'], { signal: NEVER, timeoutMs: 60_000 });

    assert.deepEqual(killed, { kind: 'killed', signal: 'SIGTERM', output: '' });
    assert.equal(missing.kind, 'not-started');
    assert.ok(missing.kind === 'not-started' && missing.cause instanceof Error);
    assert.match(missing.cause.message, /ENOENT/);
  });
});
