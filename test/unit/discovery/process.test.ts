import assert from 'node:assert/strict';
import { writeSync } from 'node:fs';
import { readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';

import { silentLog } from '@tandem/core';
import { HaproxySection } from '@tandem/discovery';
import {
  alertsOf,
  backendsWithKeptHealth,
  createHaproxyProcess,
  createKeptHealth,
  createOutputFile,
  createRetryPace,
  createWorkers,
  downServers,
  findFatalLine,
  type HaproxyProcess,
  identify,
  isAlive,
  parseReloadAnswer,
  parseReloadCount,
  reloadTo,
} from '@tandem/discovery/testing';

import { recordingLog, service } from '../../support/haproxy.ts';
import { inDirectory } from '../../support/directory.ts';
import { info, prompted, structureOf, withFakeSocket } from './support.ts';

const signal = new AbortController().signal;
const ALERT = "[ALERT] (101) : config : parsing [haproxy.cfg:3] : unknown keyword 'nonsense'";

function proc(reloads: number, failed: number): string {
  return `#<PID> <type> <reloads> <uptime> <version>\n101 master ${reloads} [failed: ${failed}] 0d00h00m02s 2.6.12\n# workers\n102 worker 0 0d00h00m02s 2.6.12\n`;
}

/** Somebody else's HAProxy behind a master socket. */
function externalBy(masterSocket: string) {
  const config = HaproxySection.parse({
    mode: 'external',
    reload: { master_socket: masterSocket },
    reload_deadline: '1s',
  });
  return createHaproxyProcess(config, { log: silentLog, onExit: () => {} });
}

describe('a master that is asked for a reload', () => {
  test('answers with the outcome from 2.7 on', async () => {
    for (const [said, answer] of [
      ['Success=1\n--\n[NOTICE] (101) : New worker (103) forked\n', { kind: 'taken' }],
      [`Success=0\n--\n${ALERT}\n`, { kind: 'refused', output: `${ALERT}\n` }],
    ] as const)
      await withFakeSocket(
        (request) => (request.startsWith('reload') ? said : proc(1, 0)),
        async (socket) => assert.deepEqual(await externalBy(socket).requestReload(signal), answer),
      );
  });

  test('says nothing before 2.7, and its count tells', async () => {
    for (const [failed, kind] of [
      [0, 'taken'],
      [1, 'refused'],
    ] as const) {
      let reloads = 4;
      await withFakeSocket(
        (request) => {
          if (!request.startsWith('reload')) return proc(reloads, reloads === 4 ? 0 : failed);
          reloads += 1;
          return '';
        },
        async (socket) => assert.equal((await externalBy(socket).requestReload(signal)).kind, kind),
      );
    }
  });

  test('refuses for a moment while it re-executes itself, and is asked again', async () => {
    let asked = 0;
    await withFakeSocket(
      (request) => {
        asked += 1;
        if (asked < 4) return 'nothing of use\n';
        return request.startsWith('reload') ? 'Success=1\n' : proc(1, 0);
      },
      async (socket) => assert.deepEqual(await externalBy(socket).requestReload(signal), { kind: 'taken' }),
    );
  });

  test('is understood as it writes, and nothing else is', () => {
    assert.deepEqual(parseReloadCount(proc(7, 2)), { reloads: 7, failed: 2 });
    assert.deepEqual(parseReloadCount('101             master          0               0d00h00m00s\n'), {
      reloads: 0,
      failed: 0,
    });
    assert.equal(parseReloadCount('102 worker 0\n'), undefined);
    assert.equal(parseReloadAnswer(''), undefined);
    assert.equal(parseReloadAnswer('Unknown command\n'), undefined);
  });
});

describe('a reload', () => {
  const before = { incarnation: '42:1700000000', version: '2.6.12', mark: 'tandem old' };

  /** A worker that shows the new mark once it was asked often enough. */
  async function reloading(needed: number, deadlineMs: number): Promise<number> {
    let asked = 0;
    await withFakeSocket(
      () =>
        prompted([
          info(asked < needed ? { description: 'tandem old' } : { Pid: '43', description: 'tandem new' }),
        ]),
      async (socket) => {
        const workers = createWorkers(socket);
        const process: HaproxyProcess = {
          check: () => Promise.resolve(undefined),
          ensure: () => Promise.resolve('found'),
          isRunning: () => true,
          requestReload() {
            asked += 1;
            return Promise.resolve({ kind: 'taken' });
          },
          complaint: () => Promise.resolve(ALERT),
          stop: () => Promise.resolve(),
          tidy: () => Promise.resolve(),
        };
        await reloadTo('tandem new', before, { process, workers, deadlineMs, signal });
      },
    );
    return asked;
  }

  test('whose request was lost is asked for again', async () => {
    assert.equal(await reloading(2, 10_000), 2);
  });

  test('that is not seen in time is told with what runs, and with what HAProxy has said', async () => {
    await assert.rejects(reloading(9, 100), {
      code: 'HAPROXY_RELOAD_FAILED',
      message: `HAProxy has not loaded the new configuration: after 100 ms HAProxy still shows "tandem old". ${ALERT}`,
    });
  });

  test('that fails again and again is tried ever more slowly, and another structure at once', () => {
    const pace = createRetryPace();
    const waits = Array.from({ length: 9 }, () => pace('a', false) / 1_000);
    assert.deepEqual(waits, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
    assert.equal(pace('b', false), 10_000);
    assert.equal(pace('b', true), 600_000);
  });
});

describe('what HAProxy would die of', () => {
  const root = { uid: 0, gid: 0 };
  const tandem = { uid: 999, gid: 998 };
  const globally = (line: string) =>
    `# a file\nglobal\n  description tandem\n  ${line}\n\ndefaults\n  mode http\nlisten chroot\n  bind :1\n`;

  test('is a chroot that is no directory', () =>
    inDirectory(async (directory) => {
      const file = path.join(directory, 'file');
      await writeFile(file, '');
      assert.match((await findFatalLine(globally(`chroot ${directory}/no`), root)) ?? '', /does not exist/);
      assert.match((await findFatalLine(globally(`chroot "${file}"`), root)) ?? '', /not a directory/);
      assert.match((await findFatalLine(globally(`chroot ${file}/no`), undefined)) ?? '', /does not exist/);
      assert.equal(await findFatalLine(globally(`chroot ${directory}`), root), undefined);
      assert.equal(await findFatalLine(globally('chroot "$JAIL"'), root), undefined);
    }));

  test('is becoming somebody else without being root', async () => {
    for (const line of ['chroot /', 'user root', 'group root', 'uid 0', 'gid 0'])
      assert.match((await findFatalLine(globally(line), tandem)) ?? '', /only root/, line);
    for (const [line, owner] of [
      ['uid 999', tandem],
      ['gid 998', tandem],
      ['user nobody-of-this-name', tandem],
      ['user root', root],
      ['user root', undefined],
    ] as const)
      assert.equal(await findFatalLine(globally(line), owner), undefined, line);
  });

  test('is looked for in the global section alone', async () => {
    assert.equal(await findFatalLine('defaults\n  chroot /nowhere\n', root), undefined);
    assert.match((await findFatalLine('global\n\n\tchroot  /nowhere/at/all', root)) ?? '', /does not exist/);
  });
});

describe("the file of HAProxy's output", () => {
  test('tells what was said since, also after it was cut, and never much', () =>
    inDirectory(async (directory) => {
      const output = createOutputFile(path.join(directory, 'haproxy.log'), silentLog);
      assert.deepEqual([await output.size(), await output.since(0)], [0, '']);
      await output.lend((descriptor) => Promise.resolve(writeSync(descriptor, 'before\n')));
      const place = await output.size();
      await output.lend((descriptor) => Promise.resolve(writeSync(descriptor, 'after\n')));
      assert.equal(await output.since(place), 'after\n');
      await writeFile(output.path, 'new\n');
      assert.equal(await output.since(place), 'new\n');
      await writeFile(output.path, 'x'.repeat(5 * 1024 * 1024));
      assert.equal((await output.since(0)).length, 16 * 1024);
      assert.equal((await stat(output.path)).size, 5 * 1024 * 1024);
      await output.tidy();
      assert.equal(await output.size(), 0);
    }));

  test('is said to be beyond trimming once, however often that is tried', () =>
    inDirectory(async (directory) => {
      const { log, entries } = recordingLog();
      const output = createOutputFile(path.join(directory, 'haproxy.log', 'below'), log);
      await output.tidy();
      assert.deepEqual(entries, [], 'one that is not there is small enough');
      await writeFile(path.join(directory, 'haproxy.log'), '');
      for (let count = 0; count < 3; count += 1) await output.tidy();
      assert.deepEqual(
        entries.map(({ message }) => message),
        ["cannot trim HAProxy's log"],
      );
    }));

  test('shows its alerts, or all of it when there is none, and never much', () => {
    assert.equal(alertsOf(`[NOTICE] x\n${ALERT}\n[WARNING] y\n`), ALERT);
    assert.equal(alertsOf('killed\n'), 'killed');
    assert.equal(alertsOf(`[ALERT] ${'x'.repeat(5_000)}`).length, 2_000);
  });
});

describe('what checks have found', () => {
  const line = (name: string, operational: number, admin: number) =>
    `3 web 17 ${name} 10.0.0.1 ${operational} ${admin} 1 1 9 8 2 0 6 0 0 1 - 80 - 0 0 - - 0`;

  test('is carried for servers that a check has found down, and for no other', () => {
    const answer = [
      '1',
      '# be_id …',
      line('up', 2, 0),
      line('down', 0, 0),
      line('noted', 0, 4),
      line('maint', 0, 1),
      line('drained', 0, 8),
      'x',
      '',
    ];
    assert.deepEqual(downServers(answer.join('\n')), [line('down', 0, 0), line('noted', 0, 4)]);
  });

  test('stands in its file until it is forgotten; a HAProxy that does not answer is no failure', () =>
    withFakeSocket(
      () => prompted([`1\n${line('down', 0, 0)}\n${line('up', 2, 0)}\n`]),
      async (socket) => {
        const kept = createKeptHealth(socket, silentLog);
        await kept.keep(['web'], signal);
        assert.match(
          await readFile(`${socket}.state`, 'utf8'),
          /^1\n# be_id [^\n]*\n3 web 17 down [^\n]*\n$/,
        );
        assert.equal((await stat(`${socket}.state`)).mode & 0o777, 0o640);
        await kept.forget();
        assert.match(await readFile(`${socket}.state`, 'utf8'), /^1\n# be_id [^\n]*\n$/);
        await createKeptHealth(`${socket}.gone`, silentLog).keep(['web'], signal);
      },
    ));

  test('is carried for backends with checks whose options are what they were', () => {
    const checked = (name: string, options: string) =>
      service(name, '127.0.0.1:1', { server_options: options });
    const before = structureOf([
      checked('a', 'check inter 2s'),
      checked('b', 'check'),
      checked('c', 'send-proxy'),
    ]);
    const after = structureOf([
      checked('a', 'check inter 2s'),
      checked('b', 'check port 9'),
      checked('c', 'send-proxy'),
      checked('new', 'check'),
    ]);
    assert.deepEqual(backendsWithKeptHealth(before, after, new Map()), ['a']);
    assert.deepEqual(backendsWithKeptHealth(undefined, after, new Map()), []);
  });
});

test('a process is told from a later one with its pid', () => {
  const self = identify(process.pid);
  assert.equal(isAlive(self), true);
  assert.equal(isAlive({ ...self, bornAt: '1' }), false);
  assert.equal(isAlive({ pid: 2 ** 22 + 1, bornAt: undefined }), false);
});
