import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';

import { createLatest, silentLog } from '@tandem/core';
import { renderConfig } from '@tandem/discovery';
import {
  type Applied,
  type Applier,
  createApplier,
  createStructureStore,
  type Desired,
  type HaproxyProcess,
  keepApplied,
} from '@tandem/discovery/testing';

import { eventually, recordingLog, service } from '../../support/haproxy.ts';
import { HAPROXY, info, membersOf, prompted, structureOf, withFakeSocket } from './support.ts';

const desiredOf = (name: string): Desired => ({
  structure: structureOf(),
  membership: membersOf([{ name, host: '10.0.0.1', port: 80 }]),
});

const DONE: Applied = { kind: 'done' };

/** Runs `keepApplied` on an applier that the test scripts. */
function keeping(applier: Applier) {
  const controller = new AbortController();
  const bell = createLatest<true>(controller.signal);
  const { log, entries } = recordingLog();
  let desired: Desired | undefined;
  const ended = keepApplied({
    applier,
    desired: () => desired,
    changes: bell,
    look: () => bell.set(true),
    log,
    signal: controller.signal,
    onApplied: () => {},
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
        return Promise.resolve();
      },
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
      const applier = createApplier({ config, process: haproxy, store, log: silentLog });
      // An empty backend: the fake one never has a server.
      const desired = { structure: { ...wanted, runtimeSocket }, membership: new Map([['web', []]]) };
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
