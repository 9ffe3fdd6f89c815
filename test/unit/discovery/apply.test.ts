import assert from 'node:assert/strict';
import { readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';

import { createLatest, type Instance, type InstanceId, instanceId, silentLog } from '@tandem/core';
import { createDesiredBuilder, renderConfig } from '@tandem/discovery';
import {
  type Applied,
  type Applier,
  createApplier,
  createForeignHoldsStore,
  createStructureStore,
  type Desired,
  type HaproxyProcess,
  type HoldKind,
  keepApplied,
  type Look,
} from '@tandem/discovery/testing';

import { eventually, recordingLog, service } from '../../support/haproxy.ts';
import { FakeHaproxy } from './fake-haproxy.ts';
import { desiredWith, HAPROXY, info, membersOf, prompted, structureOf, withFakeSocket } from './support.ts';

const desiredOf = (name: string): Desired =>
  desiredWith({
    structure: structureOf(),
    membership: membersOf([{ name, host: '10.0.0.1', port: 80 }]),
    routes: new Map(),
  });

const DONE: Applied = { kind: 'done' };

/** Runs `keepApplied` on an applier that the test scripts. */
function keeping(
  applier: Pick<Applier, 'apply' | 'look'>,
  build = (desired: Desired | undefined) => desired,
) {
  const controller = new AbortController();
  const bell = createLatest<true>(controller.signal);
  const { log, entries } = recordingLog();
  let desired: Desired | undefined;
  const ended = keepApplied({
    applier,
    desired: () => build(desired),
    changes: bell,
    look: () => bell.set(true),
    log,
    signal: controller.signal,
  });
  return {
    entries,
    want(next: Desired) {
      desired = next;
      bell.set(true);
    },
    ring: () => bell.set(true),
    async end() {
      controller.abort(new Error('the end'));
      await ended;
    },
  };
}

describe('keeping HAProxy as desired', () => {
  test('what comes while an apply runs is one more apply, of the newest', async () => {
    const applied: Desired[] = [];
    let finish = () => {};
    const kept = keeping({
      async apply(desired) {
        applied.push(desired);
        if (applied.length === 1) await new Promise<void>((resolve) => (finish = resolve));
        return DONE;
      },
      look: () => Promise.resolve('as-left'),
    });
    const all = Array.from({ length: 50 }, (_, index) => desiredOf(`i${index}`));
    kept.want(all[0] as Desired);
    await eventually(() => assert.equal(applied.length, 1));
    for (const desired of all) kept.want(desired);
    for (let bells = 0; bells < 1_000; bells += 1) kept.ring();
    finish();
    await eventually(() => assert.equal(applied.length, 2));
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.deepEqual(applied, [all[0], all.at(-1)]);
    await kept.end();
  });

  test('a failure is told and tried again, with nobody having to ask', async () => {
    let attempts = 0;
    const kept = keeping({
      apply() {
        attempts += 1;
        return attempts < 3 ? Promise.reject(new Error('not today')) : Promise.resolve(DONE);
      },
      look: () => Promise.resolve('as-left'),
    });
    kept.want(desiredOf('a'));
    await eventually(() => assert.equal(attempts, 3));
    assert.deepEqual(
      kept.entries.map(({ facts }) => facts['err']),
      ['not today', 'not today'],
    );
    await kept.end();
  });

  test('a failure to say what is desired is told and tried again, too', async () => {
    let attempts = 0;
    const applied: Desired[] = [];
    const kept = keeping(
      {
        apply(desired) {
          applied.push(desired);
          return Promise.resolve(DONE);
        },
        look: () => Promise.resolve('as-left'),
      },
      (desired) => {
        attempts += 1;
        if (attempts === 1) throw new Error('nobody knows');
        return desired;
      },
    );
    const wanted = desiredOf('a');
    kept.want(wanted);
    await eventually(() => assert.deepEqual(applied, [wanted]));
    assert.deepEqual(
      kept.entries.map(({ facts }) => facts['err']),
      ['nobody knows'],
    );
    await kept.end();
  });

  test('a HAProxy that is not the one that was left is looked after', async () => {
    let applies = 0;
    let isDisturbed = false;
    const kept = keeping({
      apply() {
        applies += 1;
        isDisturbed = false;
        return Promise.resolve(DONE);
      },
      look: () => Promise.resolve(isDisturbed ? 'disturbed' : 'as-left'),
    });
    kept.want(desiredOf('a'));
    await eventually(() => assert.equal(applies, 1));
    isDisturbed = true;
    kept.ring();
    await eventually(() => assert.equal(applies, 2));
    await kept.end();
  });

  test('the end comes at once, also in the middle of an apply or of a wait, and is no failure', async () => {
    for (const apply of [
      (_: Desired, signal: AbortSignal) =>
        new Promise<Applied>((_resolve, reject) =>
          signal.addEventListener('abort', () => reject(signal.reason as Error)),
        ),
      () => Promise.reject(new Error('not today')),
    ]) {
      const kept = keeping({ apply, look: () => Promise.resolve('as-left') });
      kept.want(desiredOf('a'));
      await new Promise((resolve) => setTimeout(resolve, 20));
      const before = kept.entries.length;
      await kept.end();
      assert.equal(kept.entries.length, before);
    }
  });
});

describe('a reload', () => {
  const old = structureOf();
  const wanted = structureOf([service('web', '127.0.0.1:3210', { balance: 'leastconn' })]);

  /** An applier on a socket whose HAProxy shows a structure's mark, and does nothing when it is told to reload. */
  async function withApplier(
    body: (world: {
      apply: () => Promise<Applied>;
      show: (structure: typeof old, pid?: string) => void;
      /** What the next answers are of, one after the other, before `show` counts again. */
      interpose: (...answers: { structure: typeof old; pid: string }[]) => void;
      onReload: (does: () => void) => void;
      reloads: () => number;
      file: string;
      keep: (structure: typeof old) => Promise<void>;
    }) => Promise<void>,
  ): Promise<void> {
    let shown: Record<string, string> = {};
    const interposed: Record<string, string>[] = [];
    let reloads = 0;
    let doesReload = () => {};
    const script = (request: string) => {
      const servers = request.includes('show servers state') ? [''] : [];
      const others = request.split('\n').filter((line) => /^(add|set)/.test(line));
      const answers = others.map((line) => (line.startsWith('add') ? 'New server registered.\n' : ''));
      return prompted([info(interposed.shift() ?? shown), ...servers, ...answers]);
    };
    const haproxy: HaproxyProcess = {
      check: () => Promise.resolve(undefined),
      ensure: () => Promise.resolve('found'),
      isRunning: () => true,
      requestReload() {
        reloads += 1;
        doesReload();
        return Promise.resolve({ kind: 'taken' });
      },
      complaint: () => Promise.resolve(''),
      stop: () => Promise.resolve(),
      tidy: () => Promise.resolve(),
    };
    await withFakeSocket(script, async (runtimeSocket) => {
      const directory = path.dirname(runtimeSocket);
      const file = path.join(directory, 'haproxy.cfg');
      const config = {
        ...HAPROXY,
        configFile: file,
        runtimeSocket,
        masterSocket: runtimeSocket,
        reloadDeadlineMs: 50,
      };
      const store = createStructureStore(path.join(directory, 'structure.json'), silentLog);
      const foreignHolds = createForeignHoldsStore(path.join(directory, 'foreign-holds.json'), silentLog);
      const applier = createApplier({ config, process: haproxy, store, foreignHolds, log: silentLog });
      // An empty backend: the fake one never has a server.
      const desired = desiredWith({
        structure: { ...wanted, runtimeSocket },
        membership: new Map([['web', []]]),
        routes: new Map(),
      });
      const worker = (structure: typeof old, pid: string) => ({
        description: renderConfig({ ...structure, runtimeSocket }, new Map()).mark,
        Pid: pid,
      });
      const show = (structure: typeof old, pid = '42') => void (shown = worker(structure, pid));
      show(old);
      await body({
        apply: () => applier.apply(desired, new AbortController().signal),
        show,
        interpose: (...answers) =>
          void interposed.push(...answers.map(({ structure, pid }) => worker(structure, pid))),
        onReload: (does) => (doesReload = does),
        reloads: () => reloads,
        file,
        keep: (structure) => store.save(structure),
      });
    });
  }

  const failed = { code: 'HAPROXY_RELOAD_FAILED' };

  test('that is not seen in time puts the file back that was there', () =>
    withApplier(async ({ apply, file }) => {
      await writeFile(file, '# what runs\n');
      await assert.rejects(apply(), failed);
      assert.equal(await readFile(file, 'utf8'), '# what runs\n');
    }));

  test('that is not seen in time puts the last good structure into force, and is not tried again soon', () =>
    withApplier(async ({ apply, file, reloads, keep }) => {
      await keep(old);
      await assert.rejects(apply(), failed);
      assert.match(await readFile(file, 'utf8'), /balance roundrobin/);
      await apply();
      assert.match(await readFile(file, 'utf8'), /balance roundrobin/);
      assert.equal(reloads(), 1);
    }));

  test('that is not seen in time is a success after all when the worker comes late', () =>
    withApplier(async ({ apply, show, file, reloads }) => {
      await assert.rejects(apply(), failed);
      show(wanted);
      await apply();
      assert.match(await readFile(file, 'utf8'), /balance leastconn/);
      assert.equal(reloads(), 1);
    }));

  test('is done once, also when the worker that was replaced still answers now and then', () =>
    withApplier(async ({ apply, show, onReload, interpose, reloads }) => {
      onReload(() => {
        show(wanted, '43');
        const before = { structure: old, pid: '42' };
        interpose({ structure: wanted, pid: '43' }, before, before);
      });
      await apply();
      assert.equal(reloads(), 1);
    }));
});

// Each has a HAProxy of its own, and waits most of its time.
describe('a HAProxy that is followed', { concurrency: 6 }, () => {
  const record = (name: string, weight = 1): Instance => ({ name, host: '10.0.0.1', port: 80, weight });
  const line = (name: string, state: string, weight = 1) => `${name}_10.0.0.1:80 ${state} ${weight}`;

  /** An applier on a fake HAProxy of some version that has loaded the structure. */
  async function following(
    version: string,
    body: (world: {
      haproxy: FakeHaproxy;
      heard: string[];
      apply: (instances: readonly Instance[], holds?: ReadonlyMap<InstanceId, HoldKind>) => Promise<Applied>;
      look: () => Promise<Look>;
      /** Looks and applies as the daemon does, until there is nothing left to do. */
      settle: () => Promise<void>;
      file: () => Promise<string>;
      path: string;
      reloads: () => number;
      told: ReadonlyMap<string, ReadonlyMap<string, HoldKind>>[];
      /** From here on it is a daemon that has just started. */
      restart: () => void;
      /** Nothing is known of the service but its holds. */
      hush: (holds: ReadonlyMap<InstanceId, HoldKind>) => Promise<Applied>;
    }) => Promise<void>,
    options: { section?: Record<string, unknown>; config?: Partial<typeof HAPROXY> } = {},
  ): Promise<void> {
    const haproxy = new FakeHaproxy(version);
    await withFakeSocket(haproxy.script, async (runtimeSocket, heard) => {
      const directory = path.dirname(runtimeSocket);
      const file = path.join(directory, 'haproxy.cfg');
      const config = {
        ...HAPROXY,
        configFile: file,
        runtimeSocket,
        masterSocket: runtimeSocket,
        ...options.config,
      };
      const web = service('web', '127.0.0.1:3210', options.section);
      const build = createDesiredBuilder(config);
      const offer = (
        instances: readonly Instance[] | undefined,
        holds: ReadonlyMap<InstanceId, HoldKind> = new Map(),
      ) => build(new Map([['web', { service: web, instances, holds }]])).desired;
      let desired = offer([]);
      haproxy.mark = renderConfig(desired.structure, new Map()).mark;
      let reloads = 0;
      const told: ReadonlyMap<string, ReadonlyMap<string, HoldKind>>[] = [];
      const newApplier = () =>
        createApplier({
          config,
          process: {
            check: () => Promise.resolve(undefined),
            ensure: () => Promise.resolve('found'),
            isRunning: () => true,
            async requestReload() {
              reloads += 1;
              haproxy.load(await readFile(file, 'utf8'));
              return { kind: 'taken' };
            },
            complaint: () => Promise.resolve(''),
            stop: () => Promise.resolve(),
            tidy: () => Promise.resolve(),
          },
          store: createStructureStore(path.join(directory, 'structure.json'), silentLog),
          foreignHolds: createForeignHoldsStore(path.join(directory, 'foreign-holds.json'), silentLog),
          log: silentLog,
          onForeignHolds: (holds) => void told.push(holds),
        });
      let applier = newApplier();
      const { signal } = new AbortController();
      const look = () => applier.look(signal);
      await body({
        haproxy,
        heard,
        apply(instances, holds) {
          desired = offer(instances, holds);
          return applier.apply(desired, signal);
        },
        look,
        settle: () =>
          eventually(async () => {
            const seen = await look();
            if (seen === 'as-left') return;
            await applier.apply(desired, signal);
            throw new Error(`it was ${seen}`);
          }),
        file: () => readFile(file, 'utf8'),
        path: file,
        reloads: () => reloads,
        told,
        restart: () => void (applier = newApplier()),
        hush(holds) {
          desired = offer(undefined, holds);
          return applier.apply(desired, signal);
        },
      });
    });
  }

  test('is told a change in one short conversation, without being read again', () =>
    following('2.6.12', async ({ apply, heard, haproxy }) => {
      await apply([record('a'), record('b')]);
      heard.length = 0;
      await apply([record('a'), record('b'), record('c', 7)]);
      await apply([record('a'), record('b', 9), record('c', 7)]);
      await apply([record('a'), record('b', 9)]);
      await apply([record('a'), record('b', 9)]);
      const said = heard.map((request) => request.split('\n').slice(1, -2));
      assert.deepEqual(
        said.map(([first, ...more]) => [first, more.map((command) => command.replace(/ id .*/, ''))]),
        [
          [
            'show info',
            ['add server web/c_10.0.0.1:80 10.0.0.1:80', 'set server web/c_10.0.0.1:80 state ready'],
          ],
          ['show info', ['set server web/b_10.0.0.1:80 weight 9']],
          ['show info', ['set server web/c_10.0.0.1:80 state drain']],
        ],
      );
      assert.deepEqual(haproxy.servers('web'), [
        line('a', 'ready'),
        line('b', 'ready', 9),
        line('c', 'drain', 7),
      ]);
    }));

  for (const [what, disturb] of [
    [
      'a server of somebody else',
      ({ script }: FakeHaproxy) =>
        script('prompt\nadd server web/x 10.0.0.9:1 id 5 weight 1\nset server web/x state ready\nquit\n'),
    ],
    ['a server that is gone', ({ backends }: FakeHaproxy) => backends.get('web')?.delete('a_10.0.0.1:80')],
    ['another weight', (haproxy: FakeHaproxy) => (haproxy.server('web', 'a_10.0.0.1:80').weight = '77')],
    ['maintenance', (haproxy: FakeHaproxy) => (haproxy.server('web', 'a_10.0.0.1:80').state = 'maint')],
    ['a drain', (haproxy: FakeHaproxy) => (haproxy.server('web', 'a_10.0.0.1:80').state = 'drain')],
    [
      'a new worker with an older file',
      (haproxy: FakeHaproxy) => {
        haproxy.pid += 1;
        haproxy.backends.clear();
      },
    ],
  ] as const) {
    test(`is put right after ${what} within two looks`, () =>
      following('2.6.12', async ({ apply, look, settle, haproxy }) => {
        await apply([record('a'), record('b')]);
        await settle();
        disturb(haproxy);
        await eventually(async () => assert.equal(await look(), 'disturbed'));
        await apply([record('a'), record('b')]);
        const members = haproxy.servers('web').filter((server) => !server.startsWith('x '));
        assert.deepEqual(members, [line('a', 'ready'), line('b', 'ready')]);
        assert.ok(haproxy.servers('web').every((server) => !server.startsWith('x ready')));
        await settle();
      }));
  }

  test('has its file back when somebody has edited or deleted it', () =>
    following('2.6.12', async ({ apply, look, file, path }) => {
      await apply([record('a')]);
      const text = await file();
      for (const disturb of [
        () => rm(path),
        () => writeFile(path, text.replaceAll('10.0.0.1', '10.0.0.2')),
      ]) {
        await disturb();
        assert.equal(await look(), 'disturbed');
        await apply([record('a')]);
        assert.equal(await file(), text);
        assert.notEqual(await look(), 'disturbed');
      }
    }));

  test('holds who is held, in the file, too, and gives traffic again to who is released', () =>
    following('2.6.12', async ({ apply, file, haproxy, settle, look }) => {
      const held = (kind: HoldKind) => new Map([[instanceId(record('a')), kind]]);
      await apply([record('a'), record('b')]);
      await apply([record('a'), record('b')], held('drain'));
      assert.deepEqual(haproxy.servers('web'), [line('a', 'drain'), line('b', 'ready')]);
      assert.match(await file(), / server a_10\.0\.0\.1:80 .* disabled\n/);
      await settle();
      haproxy.server('web', 'a_10.0.0.1:80').state = 'ready';
      await eventually(async () => assert.equal(await look(), 'disturbed'));
      await apply([record('a'), record('b')], held('maint'));
      assert.deepEqual(haproxy.servers('web'), [line('a', 'maint'), line('b', 'ready')]);
      // Also the last one: it is the operator's will.
      await apply([record('a')], held('maint'));
      assert.deepEqual(haproxy.servers('web'), [line('a', 'maint'), line('b', 'drain')]);
      await apply([record('a')]);
      assert.deepEqual(haproxy.servers('web'), [line('a', 'ready'), line('b', 'drain')]);
      assert.doesNotMatch(await file(), /disabled/);
    }));

  test('keeps the holds of somebody else where they are respected, and tells of them', () =>
    following(
      '2.6.12',
      async ({ apply, settle, haproxy, told }) => {
        await apply([record('a'), record('b')]);
        await settle();
        haproxy.server('web', 'a_10.0.0.1:80').state = 'maint';
        haproxy.server('web', 'b_10.0.0.1:80').weight = '77';
        await eventually(async () => {
          await settle();
          assert.deepEqual(haproxy.servers('web'), [line('a', 'maint'), line('b', 'ready')]);
        });
        await apply([record('a', 5), record('b'), record('c')]);
        assert.deepEqual(haproxy.servers('web'), [
          line('a', 'maint', 5),
          line('b', 'ready'),
          line('c', 'ready'),
        ]);
        haproxy.server('web', 'a_10.0.0.1:80').state = 'ready';
        await eventually(async () => {
          await settle();
          assert.equal(told.length, 2);
        });
        assert.deepEqual(told, [new Map([['web', new Map([['a_10.0.0.1:80', 'maint']])]]), new Map()]);
        assert.deepEqual(haproxy.servers('web')[0], line('a', 'ready', 5));
      },
      { config: { foreignHolds: 'respect' } },
    ));

  test('gives a newcomer traffic when its first check has passed, or its time is over; others do not wait', () =>
    following(
      '2.6.12',
      async ({ apply, settle, haproxy }) => {
        const all = [record('a'), record('b'), record('c')];
        await apply([record('a')]);
        haproxy.server('web', 'a_10.0.0.1:80').check = 3;
        await settle();
        assert.deepEqual(haproxy.servers('web'), [line('a', 'ready')]);
        await apply(all);
        assert.deepEqual(haproxy.servers('web'), [
          line('a', 'ready'),
          line('b', 'maint'),
          line('c', 'maint'),
        ]);
        await apply([record('a', 9), ...all.slice(1)]);
        haproxy.server('web', 'b_10.0.0.1:80').check = 3;
        haproxy.server('web', 'c_10.0.0.1:80').check = 2;
        await settle();
        assert.deepEqual(haproxy.servers('web'), [
          line('a', 'ready', 9),
          line('b', 'ready'),
          line('c', 'maint'),
        ]);
        await eventually(async () => {
          await settle();
          assert.deepEqual(haproxy.servers('web')[2], line('c', 'ready'));
        });
      },
      { section: { server_options: 'check', gate: { first_check: '700ms' } } },
    ));

  test('keeps who was drained as a tombstone up to 2.8, in maintenance once it is quiet, and takes it back', () =>
    following('2.8.0', async ({ apply, settle, haproxy, heard }) => {
      await apply([record('a'), record('b'), record('c')]);
      haproxy.server('web', 'c_10.0.0.1:80').sessions = 1;
      await apply([record('a')]);
      await eventually(async () => {
        await settle();
        assert.deepEqual(haproxy.servers('web'), [
          line('a', 'ready'),
          line('b', 'maint'),
          line('c', 'drain'),
        ]);
      });
      heard.length = 0;
      await apply([record('a'), record('b')]);
      assert.deepEqual(heard, ['prompt\nshow info\nset server web/b_10.0.0.1:80 state ready\nquit\n']);
    }));

  test('who is held to drain is in maintenance once it is quiet, and has traffic again when it is released', () =>
    following('2.6.12', async ({ apply, settle, look, haproxy }) => {
      const held = new Map([[instanceId(record('a')), 'drain' as const]]);
      await apply([record('a'), record('b')]);
      haproxy.server('web', 'a_10.0.0.1:80').sessions = 1;
      await apply([record('a'), record('b')], held);
      await settle();
      assert.deepEqual(haproxy.servers('web'), [line('a', 'drain'), line('b', 'ready')]);
      haproxy.server('web', 'a_10.0.0.1:80').sessions = 0;
      await eventually(async () => {
        await settle();
        assert.deepEqual(haproxy.servers('web'), [line('a', 'maint'), line('b', 'ready')]);
      });
      await apply([record('a'), record('b')], held);
      assert.deepEqual(haproxy.servers('web'), [line('a', 'maint'), line('b', 'ready')]);
      assert.equal(await look(), 'as-left');
      await apply([record('a'), record('b')]);
      assert.deepEqual(haproxy.servers('web'), [line('a', 'ready'), line('b', 'ready')]);
    }));

  for (const version of ['3.0.11', '3.2.26']) {
    test(`deletes from ${version} on who has no session left for a while`, () =>
      following(version, async ({ apply, settle, haproxy }) => {
        await apply([record('a'), record('b'), record('c')]);
        haproxy.server('web', 'b_10.0.0.1:80').sessions = 1;
        await apply([record('a')]);
        assert.deepEqual(haproxy.servers('web'), [
          line('a', 'ready'),
          line('b', 'drain'),
          line('c', 'drain'),
        ]);
        await eventually(async () => {
          await settle();
          assert.deepEqual(haproxy.servers('web'), [line('a', 'ready'), line('b', 'drain')]);
        });
        haproxy.server('web', 'b_10.0.0.1:80').sessions = 0;
        await eventually(async () => {
          await settle();
          assert.deepEqual(haproxy.servers('web'), [line('a', 'ready')]);
        });
        await apply([record('a'), record('b')]);
        assert.deepEqual(haproxy.servers('web'), [line('a', 'ready'), line('b', 'ready')]);
      }));
  }

  test('is reloaded for what cannot be had at run time: at once, and then not too often, several changes in one', () =>
    following(
      '2.8.0',
      async ({ apply, reloads, haproxy }) => {
        const served = () => haproxy.servers('web').map((server) => server.slice(0, 1));
        const records = (...names: string[]) => names.map((name) => record(name));
        assert.deepEqual(await apply(records('a')), { kind: 'done' });
        assert.deepEqual([served(), reloads()], [['a'], 1]);
        for (const wanted of [records('a', 'b'), records('a', 'b', 'c'), records('a', 'b', 'c', 'd')]) {
          const applied = await apply(wanted);
          assert.ok(applied.kind === 'later' && applied.ms > 0 && applied.ms <= 1_000);
        }
        assert.deepEqual([served(), reloads()], [['a'], 1]);
        await new Promise((resolve) => setTimeout(resolve, 1_050));
        assert.deepEqual(await apply(records('a', 'b', 'c', 'd')), { kind: 'done' });
        assert.deepEqual([served(), reloads()], [['a', 'b', 'c', 'd'], 2]);
      },
      { section: { server_options: 'cookie x', backend: ['cookie SRV insert'] } },
    ));

  test('loses who leaves also while the reload that newcomers need is still to come', () =>
    following(
      '2.6.12',
      async ({ apply, haproxy, reloads }) => {
        await apply([record('a'), record('b')]);
        assert.equal(reloads(), 1);
        assert.equal((await apply([record('a'), record('c')])).kind, 'later');
        assert.deepEqual(haproxy.servers('web'), [line('a', 'ready'), line('b', 'drain')]);
        // Nobody is left to serve before the reload.
        assert.equal((await apply([record('c')])).kind, 'later');
        assert.deepEqual(haproxy.servers('web'), [line('a', 'ready'), line('b', 'drain')]);
        // What is still to be done is not forgotten.
        assert.equal((await apply([record('c')])).kind, 'later');
      },
      { section: { backend: ['balance static-rr'] } },
    ));

  test('leaves weight and rotation of servers to their agents, and says nothing of it', () =>
    following(
      '2.6.12',
      async ({ apply, look, settle, haproxy, told, reloads }) => {
        const [a, b] = ['a_10.0.0.1:80', 'b_10.0.0.1:80'] as const;
        await apply([record('a', 100), record('b', 100)]);
        await settle();
        const seen = new Set<Look>();
        for (const [weight, state] of [
          ['50', 'ready'],
          ['25', 'drain'],
          ['25', 'maint'],
          ['75', 'ready'],
          ['75', 'drain'],
        ] as const) {
          haproxy.server('web', a).weight = weight;
          haproxy.server('web', a).state = state;
          const until = performance.now() + 700;
          while (performance.now() < until) seen.add(await look());
          await apply([record('a', 100), record('b', 100)]);
          assert.deepEqual(haproxy.servers('web')[0], `${a} ${state} ${weight}`);
        }
        assert.ok(!seen.has('disturbed'));
        assert.deepEqual(told, []);
        // Who goes, goes, and somebody else's server is still one.
        haproxy.backends.get('web')?.delete(b);
        await eventually(async () => assert.equal(await look(), 'disturbed'));
        await apply([record('b', 100)]);
        assert.deepEqual(haproxy.servers('web'), [`${a} drain 75`, `${b} ready 100`]);
        assert.equal(reloads(), 0);
      },
      { section: { server_options: 'agent-check agent-port 9' } },
    ));

  test('lets newcomers wait for their first check though a new daemon has never added them', () =>
    following(
      '2.6.12',
      async ({ apply, settle, haproxy, restart }) => {
        const all = [record('a'), record('b')];
        await apply([record('a')]);
        haproxy.server('web', 'a_10.0.0.1:80').check = 3;
        await settle();
        await apply(all);
        assert.deepEqual(haproxy.servers('web')[1], line('b', 'maint'));
        restart();
        await apply(all);
        assert.deepEqual(haproxy.servers('web')[1], line('b', 'maint'));
        haproxy.server('web', 'b_10.0.0.1:80').check = 3;
        await settle();
        assert.deepEqual(haproxy.servers('web')[1], line('b', 'ready'));
      },
      { section: { server_options: 'check', gate: { first_check: '1m' } } },
    ));

  test('keeps respected holds of somebody else over a new worker and a new daemon', () =>
    following(
      '2.6.12',
      async ({ apply, settle, haproxy, file, restart }) => {
        const all = [record('a'), record('b')];
        await apply(all);
        await settle();
        haproxy.server('web', 'a_10.0.0.1:80').state = 'drain';
        await eventually(async () => {
          await settle();
          assert.match(await file(), / server a_10\.0\.0\.1:80 .* disabled\n/);
        });
        restart();
        await apply(all);
        assert.deepEqual(haproxy.servers('web'), [line('a', 'drain'), line('b', 'ready')]);
        haproxy.load(await file());
        await settle();
        await apply(all);
        assert.deepEqual(haproxy.servers('web'), [line('a', 'maint'), line('b', 'ready')]);
        // Released while nobody looks.
        restart();
        haproxy.server('web', 'a_10.0.0.1:80').state = 'ready';
        await apply(all);
        await settle();
        assert.doesNotMatch(await file(), /disabled/);
        assert.deepEqual(haproxy.servers('web'), [line('a', 'ready'), line('b', 'ready')]);
      },
      { config: { foreignHolds: 'respect' } },
    ));

  test('keeps the members that are held while nothing is known but the holds, and lets them go', () =>
    following('2.6.12', async ({ apply, hush, settle, haproxy, file, restart }) => {
      const held = new Map([[instanceId(record('a')), 'maint' as const]]);
      await apply([record('a'), record('b'), record('c')]);
      await apply([record('a'), record('b')], held);
      restart();
      await hush(held);
      await settle();
      assert.match(await file(), / server a_10\.0\.0\.1:80 .* disabled\n/);
      assert.doesNotMatch(await file(), / server c_/);
      assert.deepEqual(haproxy.servers('web').slice(0, 2), [line('a', 'maint'), line('b', 'ready')]);
      await hush(new Map());
      assert.deepEqual(haproxy.servers('web').slice(0, 2), [line('a', 'ready'), line('b', 'ready')]);
      assert.doesNotMatch(await file(), /disabled/);
    }));
});
