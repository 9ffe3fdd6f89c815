import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

import { withDeadline } from '@tandem/core';

import { checkConformance } from '../../conformance/check.ts';
import { checkOf, NEVER, problemsOf, reasonOf, subject } from './check-support.ts';
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
    assert.equal(reasonOf(await shell('echo problem >&2; exit 4').probe(NEVER)), 'exit status 4: problem');
    assert.equal(reasonOf(await shell('exit 5').probe(NEVER)), 'exit status 5');
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

  test('passes with a warning when the exit status is 1', async () => {
    assert.deepEqual(await shell('echo 91 % full; exit 1').probe(NEVER), {
      ok: true,
      warning: 'exit status 1: 91 % full',
    });
    assert.deepEqual(await shell('exit 1').probe(NEVER), { ok: true, warning: 'exit status 1' });
  });

  test('shows nothing of the output that could move the cursor of a terminal', async () => {
    const failed = reasonOf(await shell("printf 'a\\033[2Jb\\nc'; exit 2").probe(NEVER));
    assert.equal(failed, 'exit status 2: a [2Jb\nc');
  });

  test('has an environment of its own, with nothing of the registrar', async () => {
    process.env['TANDEM_TEST_SECRET'] = 'hidden';
    process.env['NOTIFY_SOCKET'] = '/run/systemd/notify';
    const env = { GREETING: 'hello', LANG: 'C.UTF-8' };
    const check = checkOf({ command: { command: ['/usr/bin/env'], env } }, 8080);
    const shown = checkOf(
      { command: { command: ['/bin/sh', '-c', '/usr/bin/env | sort; exit 2'], env } },
      8080,
    );
    const variables = reasonOf(await shown.probe(NEVER))
      .replace('exit status 2: ', '')
      .split('\n');
    delete process.env['TANDEM_TEST_SECRET'];
    delete process.env['NOTIFY_SOCKET'];
    assert.equal(reasonOf(await check.probe(NEVER)), 'passed');
    // What the shell adds by itself.
    const names = variables
      .map((line) => line.split('=')[0])
      .filter((name) => !/^(_|PWD|SHLVL|OLDPWD)$/.test(name ?? ''));
    assert.deepEqual(names, ['GREETING', 'LANG', 'PATH', 'TANDEM_PORT', 'TANDEM_SERVICE']);
    for (const line of ['GREETING=hello', 'LANG=C.UTF-8', 'TANDEM_PORT=8080', 'TANDEM_SERVICE=web'])
      assert.ok(variables.includes(line), line);
  });

  test('is started in its directory, or says that there is none', async () => {
    const inDirectory = (where: string) =>
      checkOf({ command: { command: ['/bin/sh', '-c', 'pwd; exit 2'], directory: where } }).probe(NEVER);
    assert.equal(reasonOf(await inDirectory(directory)), `exit status 2: ${directory}`);
    const missing = path.join(directory, 'missing');
    assert.equal(
      reasonOf(await inDirectory(missing)),
      `cannot start /bin/sh: there is no directory ${missing}`,
    );
    assert.equal(reasonOf(await shell('pwd; exit 2').probe(NEVER)), 'exit status 2: /');
  });

  test('has the rights of its user, or says who could give them', async () => {
    const as = async (user: string | number) =>
      reasonOf(
        await checkOf({ command: { command: ['/bin/sh', '-c', 'id -u; id -g; id -G; exit 2'], user } }).probe(
          NEVER,
        ),
      );
    const expected = (user: string | number, ids: string) =>
      process.getuid?.() === 0
        ? `exit status 2: ${ids}`
        : `cannot start /bin/sh: the registrar may not start programs as user ${user}: run it as root, or remove user`;
    assert.equal(await as('nobody'), expected('nobody', '65534\n65534\n65534'));
    assert.equal(await as(65_534), expected(65_534, '65534\n65534\n65534'));
    assert.equal(await as(54_321), expected(54_321, '54321\n54321\n54321'));
    assert.match(await as(process.getuid?.() ?? 0), /^exit status 2: /);
    assert.equal(
      await as('no-such-user'),
      'there is no user no-such-user in /etc/passwd: create it, or name another one',
    );
  });

  test('does not wait for what has got away from it and holds its output', async () => {
    const file = path.join(directory, 'away');
    const startedAt = performance.now();
    const result = await shell(`setsid sleep 30 & echo $! > ${file}; sleep 0.05; exit 0`).probe(NEVER);
    assert.equal(reasonOf(result), 'passed');
    assert.ok(performance.now() - startedAt < 20_000);
    for (const pid of pidsIn(file)) process.kill(pid, 'SIGKILL');
  });

  test('is killed with its children at its deadline, also while it talks without end', async () => {
    const file = path.join(directory, 'talking');
    const check = shell(`sleep 60 & echo $! >> ${file}; echo $$ >> ${file}; yes`);
    await assert.rejects(
      withDeadline(undefined, 500, (signal) => check.probe(signal)),
      { code: 'DEADLINE_EXCEEDED' },
    );
    await eventually(() => pidsIn(file).every((pid) => !isRunning(pid)), 'all of them are dead');
  });
});

test('what a command check cannot be is told with what it can', () => {
  for (const [yaml, message] of [
    ['command: { command: [] }', /must be at least 1 entries/],
    [
      'command: { command: [x], env: { "a b": c } }',
      /the key "a b" cannot be used: is not the name of a variable/,
    ],
    ['command: { command: [x], env: { NOTIFY_SOCKET: /x } }', /must not have NOTIFY_SOCKET/],
    ['command: { command: [x], env: { A: 1 } }', /env\.A: must be text, found 1/],
    ['command: { command: [x], directory: here }', /directory: must be an absolute path, found "here"/],
    ['command: { command: [x], user: "a b" }', /user: must be the name of a user, found "a b"/],
    ['command: { command: [x], user: -1 }', /user: must be at least 0/],
    ['command: { command: [x], shell: true }', /Known: command, env, directory, user, interval/],
  ] as const)
    assert.match(problemsOf(yaml), message, yaml);
});
