import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';

import { removeLeftovers, writeFileAtomic } from '@tandem/core';

import { coded, temporaryDirectory } from './support.ts';

test('a file gets the new text and mode, and nothing else is left in its directory', async (t) => {
  const directory = temporaryDirectory(t);
  const file = path.join(directory, 'a.cfg');
  await writeFileAtomic(file, 'old');
  await writeFileAtomic(file, 'new\n', { mode: 0o600, durable: true });
  assert.equal(readFileSync(file, 'utf8'), 'new\n');
  assert.equal(statSync(file).mode & 0o777, 0o600);
  assert.deepEqual(readdirSync(directory), ['a.cfg']);
});

test('a text in parts is written as one, however many they are', async (t) => {
  const file = path.join(temporaryDirectory(t), 'a.cfg');
  for (const count of [0, 1, 3, 5_000]) {
    const parts = Array.from({ length: count }, (_, index) => Buffer.from('x'.repeat(index % 7)));
    await writeFileAtomic(file, parts);
    assert.equal(readFileSync(file, 'utf8'), Buffer.concat(parts).toString());
  }
});

test('readers never see a part, however many write at once', async (t) => {
  const directory = temporaryDirectory(t);
  const file = path.join(directory, 'a.cfg');
  const texts = Array.from({ length: 20 }, (_, index) => String(index % 10).repeat(100_000));
  await writeFileAtomic(file, texts[0] ?? '');
  const writing = Promise.all(texts.map((text) => writeFileAtomic(file, text)));
  for (let look = 0; look < 50; look += 1) {
    assert.ok(texts.includes(readFileSync(file, 'utf8')));
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
  }
  await writing;
  assert.deepEqual(readdirSync(directory), ['a.cfg']);
});

test('the old text stays when the new one cannot be written', async (t) => {
  const directory = temporaryDirectory(t);
  // Long enough that the temporary file beside it cannot be created.
  const file = path.join(directory, 'n'.repeat(250));
  writeFileSync(file, 'old');
  await assert.rejects(writeFileAtomic(file, 'new'), coded('FILE_WRITE_FAILED', /cannot write/));
  assert.equal(readFileSync(file, 'utf8'), 'old');
});

test('no temporary file stays when the last step fails', async (t) => {
  const directory = temporaryDirectory(t);
  const file = path.join(directory, 'a.cfg');
  mkdirSync(file);
  await assert.rejects(writeFileAtomic(file, 'new'), coded('FILE_WRITE_FAILED'));
  assert.deepEqual(readdirSync(directory), ['a.cfg']);
});

test('a missing directory is named as the reason', async (t) => {
  const file = path.join(temporaryDirectory(t), 'none', 'a.cfg');
  await assert.rejects(
    writeFileAtomic(file, 'new'),
    coded('FILE_WRITE_FAILED', /none\/a\.cfg: the directory does not exist/),
  );
});

test('what killed writers have left of a file goes; what others are writing, and other files, stay', async (t) => {
  const directory = temporaryDirectory(t);
  const dead = spawnSync(process.execPath, ['-e', '']).pid;
  const left = [`.a.cfg.${dead}.1.tmp`, `.a.cfg.${process.pid}.999999.tmp`];
  const others = [`.a.cfg.${process.ppid}.1.tmp`, `.b.cfg.${dead}.1.tmp`, `.a.cfg.${dead}.tmp`, 'a.cfg'];
  for (const name of [...left, ...others]) writeFileSync(path.join(directory, name), '');
  await removeLeftovers(path.join(directory, 'a.cfg'));
  assert.deepEqual(readdirSync(directory).toSorted(), others.toSorted());
  await removeLeftovers(path.join(directory, 'gone', 'a.cfg'));
});
