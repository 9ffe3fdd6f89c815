import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';

import { type Log, silentLog } from '@tandem/core';
import { readResume, writeResume } from '@tandem/registry/testing';

const ENSEMBLE = 'zk1:2181,zk2:2181/chroot';
const RESUME = {
  session: { id: -0x7eff_ffff_ffff_fff1n, password: Buffer.from('0123456789abcdef') },
  paths: ['/services/web', '/services/ä'],
  persistent: [{ path: '/services/web', place: { name: 'i-1', host: '10.0.0.1', port: 80 } }],
};
const CONTENT = {
  version: 1,
  ensemble: ENSEMBLE,
  session_id: '72057594037927936',
  password: 'MDEyMzQ1Njc4OWFiY2RlZg==',
  paths: [],
};

async function temporaryFile(): Promise<{ file: string } & AsyncDisposable> {
  const directory = await mkdtemp(path.join(tmpdir(), 'tandem-resume-'));
  return {
    file: path.join(directory, 'session.json'),
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true }),
  };
}

function listen(): { log: Log; messages: string[] } {
  const messages: string[] = [];
  const write = (_: unknown, message: string) => void messages.push(message);
  const log: Log = { ...silentLog, info: write, warn: write, error: write };
  return { log, messages };
}

describe('resume file', () => {
  test('what was written is read again, and nobody else may read it', async () => {
    await using temporary = await temporaryFile();
    await writeResume(temporary.file, ENSEMBLE, RESUME);
    assert.deepEqual(await readResume(temporary.file, ENSEMBLE, silentLog), RESUME);
    assert.equal((await stat(temporary.file)).mode & 0o777, 0o600);
  });

  test('a file of the first version is read: it knew nothing of persistent nodes', async () => {
    await using temporary = await temporaryFile();
    await writeFile(temporary.file, JSON.stringify({ ...CONTENT, paths: ['/services/web'] }));
    const resume = await readResume(temporary.file, ENSEMBLE, silentLog);
    assert.deepEqual([resume?.paths, resume?.persistent], [['/services/web'], []]);
  });

  test('a file is of the first version as long as that one says everything, so that an older Tandem resumes too', async () => {
    await using temporary = await temporaryFile();
    for (const [persistent, version] of [
      [[], 1],
      [RESUME.persistent, 2],
    ] as const) {
      await writeResume(temporary.file, ENSEMBLE, { ...RESUME, persistent });
      const { version: written } = JSON.parse(await readFile(temporary.file, 'utf8')) as { version: number };
      assert.equal(written, version);
    }
  });

  test('a file that others could read is not for others any more once it is written again', async () => {
    await using temporary = await temporaryFile();
    await writeFile(temporary.file, '{}', { mode: 0o644 });
    await writeResume(temporary.file, ENSEMBLE, RESUME);
    assert.equal((await stat(temporary.file)).mode & 0o777, 0o600);
  });

  test('no file is no session, and nothing to tell', async () => {
    const { log, messages } = listen();
    assert.equal(await readResume('/nowhere/session.json', ENSEMBLE, log), undefined);
    assert.deepEqual(messages, []);
  });

  test('a session of another ensemble or another chroot is left alone', async () => {
    await using temporary = await temporaryFile();
    const { log, messages } = listen();
    await writeResume(temporary.file, ENSEMBLE, RESUME);
    assert.equal(await readResume(temporary.file, 'zk1:2181,zk2:2181', log), undefined);
    assert.equal(messages.length, 1);
  });

  test('something else in its place is told, and a new session starts', async () => {
    await using temporary = await temporaryFile();
    const { log, messages } = listen();
    await mkdir(temporary.file);
    assert.equal(await readResume(temporary.file, ENSEMBLE, log), undefined);
    assert.equal(messages.length, 1);
  });

  for (const [what, text] of [
    ['empty', ''],
    ['cut in the middle', JSON.stringify(CONTENT).slice(0, 70)],
    ['not an object', '[]'],
    ['of a later version', JSON.stringify({ ...CONTENT, version: 3 })],
    ['without an id', JSON.stringify({ ...CONTENT, session_id: undefined })],
    ['with an id of nobody', JSON.stringify({ ...CONTENT, session_id: '0' })],
    ['with an id that is no number', JSON.stringify({ ...CONTENT, session_id: '0x1' })],
    ['with an id beyond 64 bits', JSON.stringify({ ...CONTENT, session_id: '9223372036854775808' })],
    ['with an id of a thousand digits', JSON.stringify({ ...CONTENT, session_id: '9'.repeat(1000) })],
    ['with a password that is not base64', JSON.stringify({ ...CONTENT, password: '*' })],
    ['with a path that is no text', JSON.stringify({ ...CONTENT, paths: [1] })],
    ['with a place that is none', JSON.stringify({ ...CONTENT, version: 2, persistent: [{ path: '/a' }] })],
  ] as const) {
    test(`a file ${what} is damaged: told, and a new session starts`, async () => {
      await using temporary = await temporaryFile();
      const { log, messages } = listen();
      await writeFile(temporary.file, text);
      assert.equal(await readResume(temporary.file, ENSEMBLE, log), undefined);
      assert.equal(messages.length, 1);
    });
  }

  test('the ids go from one end of 64 bits to the other', async () => {
    await using temporary = await temporaryFile();
    for (const id of [-(2n ** 63n), -1n, 1n, 2n ** 63n - 1n]) {
      const resume = { ...RESUME, session: { ...RESUME.session, id } };
      await writeResume(temporary.file, ENSEMBLE, resume);
      assert.deepEqual(await readResume(temporary.file, ENSEMBLE, silentLog), resume);
    }
  });
});
