import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { type Instance, type Listed, type Remote, silentLog } from '@tandem/core';
import { remoteSource } from '@tandem/discovery/testing';

import { follow } from '../../conformance/source.ts';
import { eventually } from '../../support/eventually.ts';

/** A remote in this process. Says nothing until it is told what it has. */
interface Scripted {
  readonly remote: Remote;
  has(...names: string[]): void;
  fails(reason: string): void;
  change(): void;
  readonly asked: () => number;
}

function scripted(name: string): Scripted {
  let answer: Listed = { ok: false, reason: 'not there' };
  let asked = 0;
  const listeners = new Set<() => void>();
  return {
    remote: {
      name,
      list() {
        asked += 1;
        return Promise.resolve(answer);
      },
      listen(onChange, signal) {
        onChange();
        listeners.add(onChange);
        return new Promise((resolve) => {
          const end = () => {
            listeners.delete(onChange);
            resolve('called off');
          };
          if (signal.aborted) end();
          else signal.addEventListener('abort', end, { once: true });
        });
      },
    },
    has(...names) {
      answer = {
        ok: true,
        part: { instances: names.map(instanceOf), rejected: [{ place: name, reason: 'odd' }] },
      };
    },
    fails(reason) {
      answer = { ok: false, reason };
    },
    change() {
      for (const listener of listeners) listener();
    },
    asked: () => asked,
  };
}

function instanceOf(name: string): Instance {
  return { name, host: '10.0.0.1', port: 80 };
}

describe('what several remotes have', () => {
  test('one that has never answered is waited for, and then the others go on without it', async () => {
    const [here, away] = [scripted('here'), scripted('away')];
    here.has('a');
    const source = remoteSource([here.remote, away.remote], {
      log: silentLog,
      pace: { firstAnswerMs: 400 },
    });
    await using watch = follow(source);
    await eventually(() => assert.ok(here.asked() > 0));
    await sleep(100);
    assert.deepEqual(watch.snapshots, []);
    await watch.shows(instanceOf('a'));
    assert.deepEqual(watch.latest?.rejected, [
      { place: 'away', reason: 'has not answered since the start' },
      { place: 'here', reason: 'odd' },
    ]);
    away.has('b', 'a');
    away.change();
    await watch.shows(instanceOf('a'), instanceOf('b'));
    assert.deepEqual(watch.latest?.rejected, [
      { place: 'here', reason: 'odd' },
      { place: 'away', reason: 'odd' },
    ]);
    away.fails('gone');
    away.change();
    here.has('a', 'c');
    here.change();
    await watch.shows(instanceOf('a'), instanceOf('b'), instanceOf('c'));
  });

  test('as long as none has answered, it is silent', async () => {
    const [one, other] = [scripted('one'), scripted('other')];
    await using watch = follow(
      remoteSource([one.remote, other.remote], { log: silentLog, pace: { firstAnswerMs: 20 } }),
    );
    await eventually(() => assert.ok(one.asked() > 1 && other.asked() > 1));
    assert.deepEqual(watch.snapshots, []);
  });

  test('a change while it is asked is not lost, and the same answer is no news', async () => {
    const one = scripted('one');
    one.has('a');
    let isFirst = true;
    const remote: Remote = {
      ...one.remote,
      async list(signal) {
        const listed = await one.remote.list(signal);
        if (isFirst) {
          isFirst = false;
          one.has('b');
          one.change();
        }
        return listed;
      },
    };
    await using watch = follow(remoteSource([remote], { log: silentLog, pace: { resyncMs: 3_600_000 } }));
    await watch.shows(instanceOf('b'));
    const [before, news] = [one.asked(), watch.snapshots.length];
    one.change();
    await eventually(() => assert.ok(one.asked() > before));
    await sleep(50);
    assert.equal(watch.snapshots.length, news);
    const rest = one.asked();
    await sleep(300);
    assert.equal(one.asked(), rest, 'nobody has told of a change');
  });

  test('what breaks in it reaches the reader', async () => {
    const remote: Remote = { ...scripted('one').remote, list: () => Promise.reject(new Error('a slip')) };
    const watch = follow(remoteSource([remote], { log: silentLog }));
    await eventually(() => assert.equal(watch.isOver, true));
    await assert.rejects(watch.stop(), /a slip/);
  });
});
