import assert from 'node:assert/strict';
import { mkdir, rm, stat, utimes } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';

import { createHeartbeat, type Log, silentLog } from '@tandem/core';

import { inDirectory } from '../../support/directory.ts';

function createLines(): { log: Log; lines: string[]; facts: unknown[] } {
  const lines: string[] = [];
  const facts: unknown[] = [];
  const write = (given: unknown, message: string) => {
    lines.push(message);
    facts.push(given);
  };
  return { lines, facts, log: { ...silentLog, error: write, info: write } };
}

describe('a heartbeat file', () => {
  test('is made for everybody to read, whatever the umask, and has the time of the last beat', () =>
    inDirectory(async (directory) => {
      const file = path.join(directory, 'heartbeat');
      const heartbeat = createHeartbeat(file, silentLog);
      const umask = process.umask(0o077);
      try {
        await heartbeat.beat();
      } finally {
        process.umask(umask);
      }
      assert.equal((await stat(file)).mode & 0o777, 0o644);

      const long = new Date('2001-01-01');
      await utimes(file, long, long);
      const before = Date.now();
      await heartbeat.beat();

      assert.ok((await stat(file)).mtimeMs >= before - 1_000);
    }));

  test('that cannot be touched is said once, and is there again when it can', () =>
    inDirectory(async (directory) => {
      const { log, lines, facts } = createLines();
      const place = path.join(directory, 'run');
      const file = path.join(place, 'heartbeat');
      const heartbeat = createHeartbeat(file, log);

      for (let round = 0; round < 3; round += 1) await heartbeat.beat();
      assert.deepEqual(lines, ['cannot touch the heartbeat file']);
      const err = 'its directory does not exist. Create it, or choose another path';
      assert.deepEqual(facts, [{ file, err }]);
      await mkdir(place);
      for (let round = 0; round < 3; round += 1) await heartbeat.beat();
      assert.deepEqual(lines.slice(1), ['the heartbeat file can be touched again']);
      await rm(place, { recursive: true });
      await heartbeat.beat();

      assert.equal(lines.length, 3);
    }));

  test('is touched by one beat at a time', () =>
    inDirectory(async (directory) => {
      const heartbeat = createHeartbeat(path.join(directory, 'heartbeat'), silentLog);

      const beats = [heartbeat.beat(), heartbeat.beat()];

      assert.equal(beats[0], beats[1]);
      await Promise.all(beats);
    }));
});
