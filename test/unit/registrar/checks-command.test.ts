import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

import { checkConformance } from '../../conformance/check.ts';
import { checkOf, NEVER, reasonOf, subject } from './check-support.ts';
import { eventually, isRunning } from './support.ts';

describe('command check', () => {
  let directory = '';
  before(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'tandem-check-'));
  });
  after(() => rmSync(directory, { recursive: true, force: true }));

  function shell(script: string) {
    return checkOf({ command: { command: ['/bin/sh', '-c', script] } });
  }
  function pidsIn(file: string): number[] {
    try {
      return readFileSync(file, 'utf8').split('\n').filter(Boolean).map(Number);
    } catch {
      return [];
    }
  }
  /** A shell with a child, both of which hang, and the file where they leave their pids. */
  function hangingShell(name: string) {
    const file = path.join(directory, name);
    return {
      check: shell(`sleep 60 & echo $! >> ${file}; echo $$ >> ${file}; wait`),
      pids: () => pidsIn(file),
    };
  }

  checkConformance('command', {
    healthy: () => Promise.resolve(subject(shell('exit 0'))),
    absent: () => Promise.resolve(subject(checkOf({ command: { command: ['/nonexistent/program'] } }))),
    hanging() {
      const { check, pids } = hangingShell('conformance');
      const begun = () => eventually(() => pids().length === 2, 'both processes run');
      return Promise.resolve({ ...subject(check, () => pids().filter(isRunning).length), begun });
    },
    manyProbes: 100,
  });

  test('names the program that does not exist or may not be started', async () => {
    const missing = await checkOf({ command: { command: ['no-such-program-here'] } }).probe(NEVER);
    assert.equal(reasonOf(missing), 'cannot start no-such-program-here: no such program');
    const denied = await checkOf({ command: { command: ['/etc/passwd'] } }).probe(NEVER);
    assert.equal(reasonOf(denied), 'cannot start /etc/passwd: permission denied');
  });

  test('shows the exit status and what the program said', async () => {
    assert.equal(
      reasonOf(await shell('echo out; echo err >&2; exit 3').probe(NEVER)).split('\n')[0],
      'exit status 3: out',
    );
    assert.match(reasonOf(await shell('echo problem >&2; exit 1').probe(NEVER)), /^exit status 1: problem$/);
    assert.equal(reasonOf(await shell('kill -9 $$').probe(NEVER)), 'killed by SIGKILL');
  });

  test('keeps only the end of a long output, and does not mind its length', async () => {
    const failed = reasonOf(
      await shell('yes 0123456789 | head -c 300000; echo the end; exit 2').probe(NEVER),
    );
    assert.ok(failed.endsWith('the end') && failed.length < 5000);
    assert.equal(reasonOf(await shell('yes 0123456789 | head -c 300000').probe(NEVER)), 'passed');
  });

  test('takes arguments as they are: no shell reads them', async () => {
    const check = checkOf({ command: { command: ['/usr/bin/test', '$HOME', '=', '$HOME'] } });
    assert.equal(reasonOf(await check.probe(NEVER)), 'passed');
  });

  test('does not leave children behind when the program ends before them', async () => {
    const file = path.join(directory, 'orphan');
    const limit = new AbortController();
    const timer = setTimeout(() => limit.abort(), 5000);
    const result = await shell(`sleep 60 & echo $! > ${file}; exit 0`).probe(limit.signal);
    assert.equal(reasonOf(result), 'passed');
    clearTimeout(timer);
    const [pid = 0] = pidsIn(file);
    await eventually(() => pid > 0 && !isRunning(pid), 'the child is dead');
  });
});
