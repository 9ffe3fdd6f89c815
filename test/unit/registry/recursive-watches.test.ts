import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { silentLog, TandemError } from '@tandem/core';
import { createRecursiveWatches, OPCODE } from '@tandem/registry/testing';

import { WireReader } from '../../support/zookeeper-wire.ts';

const HOUR_MS = 60 * 60_000;
const never = new AbortController().signal;
const lost = () => Promise.reject(new TandemError('REGISTRY_CONNECTION_LOST', 'gone'));
const yes = () => Promise.resolve(true);
const no = () => Promise.resolve(false);

/** Recursive watches over a server that answers as the test says. */
function watchesOver(answer: () => Promise<boolean>, isWanted = true) {
  const clock = { ms: 0 };
  const server = { answer };
  const requests: string[][] = [];
  const heard: string[] = [];
  const watches = createRecursiveWatches({
    session: {
      run(operation) {
        assert.equal(operation.opcode, OPCODE.setWatches2);
        const reader = new WireReader(operation.body);
        reader.long();
        for (let kind = 0; kind < 4; kind += 1) reader.texts();
        requests.push(reader.texts().map(String));
        return server.answer() as Promise<never>;
      },
      listenBelow: (path) => void heard.push(path),
    },
    isWanted,
    log: silentLog,
    now: () => clock.ms,
  });
  let failures = 0;
  const failed = () => void (failures += 1);
  const set = (path = '/a', signal = never) => watches.set({ path, listener: () => {}, failed }, signal);
  return { clock, server, requests, heard, set, failures: () => failures };
}

describe('recursive watches', () => {
  test('all that are asked for at once go in one request, and are listened to before it', async () => {
    const { set, requests, heard } = watchesOver(yes);
    const paths = Array.from({ length: 1_000 }, (_, index) => `/services/${index}`);
    const outcomes = await Promise.all(paths.map((path) => set(path)));
    assert.ok(outcomes.every(Boolean));
    assert.deepEqual(requests, [paths]);
    assert.deepEqual(heard, paths);
  });

  test('no request is larger than the server takes', async () => {
    const { set, requests } = watchesOver(yes);
    const paths = Array.from({ length: 2_000 }, (_, index) => `/${'long'.repeat(60)}/${index}`);
    await Promise.all(paths.map((path) => set(path)));
    assert.deepEqual(requests.flat(), paths);
    for (const request of requests) assert.ok(request.join('1234').length < 140_000);
  });

  test('while nothing is known of the server, one request is under way and the others wait', async () => {
    let answer: (has: boolean) => void = () => {};
    const { set, requests, server } = watchesOver(() => new Promise((resolve) => (answer = resolve)));
    const first = set('/a');
    await new Promise(setImmediate);
    const second = set('/b');
    await new Promise(setImmediate);
    assert.deepEqual(requests, [['/a']]);
    server.answer = yes;
    answer(true);
    assert.deepEqual(await Promise.all([first, second]), [true, true]);
    assert.deepEqual(requests, [['/a'], ['/b']]);
  });

  test('a server that has none is not asked again, until an hour has passed', async () => {
    const { set, requests, server, clock } = watchesOver(no);
    assert.equal(await set(), false);
    server.answer = yes;
    clock.ms += HOUR_MS - 1;
    assert.equal(await set(), false);
    assert.equal(requests.length, 1);
    clock.ms += 1;
    assert.equal(await set(), true);
  });

  test('an ensemble in the middle of an upgrade may lead to an older server', async () => {
    const { set, server, failures } = watchesOver(yes);
    assert.equal(await set(), true);
    server.answer = no;
    assert.equal(await set(), true, 'what is known to work is not waited for');
    await new Promise(setImmediate);
    assert.equal(failures(), 1, 'that it does not stand is told');
    server.answer = yes;
    assert.equal(await set(), false);
  });

  test('a server that hangs up over the question three times has none; a failure of another kind says nothing', async () => {
    const late = () => Promise.reject(new TandemError('DEADLINE_EXCEEDED', 'late'));
    const { set, server } = watchesOver(late);
    for (let attempt = 0; attempt < 10; attempt += 1)
      await assert.rejects(set(), { code: 'DEADLINE_EXCEEDED' });
    server.answer = lost;
    for (let attempt = 0; attempt < 3; attempt += 1) await assert.rejects(set());
    server.answer = yes;
    assert.equal(await set(), false);
  });

  test('a connection that is lost later does not count', async () => {
    const { set, server, failures } = watchesOver(yes);
    assert.equal(await set(), true);
    server.answer = lost;
    for (let attempt = 0; attempt < 10; attempt += 1) await set();
    await new Promise(setImmediate);
    assert.equal(failures(), 10);
    server.answer = yes;
    assert.equal(await set(), true);
  });

  test('whoever waits no longer is told so at once; the others get their answer', async () => {
    let answer: (has: boolean) => void = () => {};
    const { set } = watchesOver(() => new Promise((resolve) => (answer = resolve)));
    const controller = new AbortController();
    const [given, kept] = [set('/a', controller.signal), set('/b')];
    await new Promise(setImmediate);
    controller.abort(new Error('enough'));
    await assert.rejects(given, { message: 'enough' });
    answer(true);
    assert.equal(await kept, true);
  });

  test('who has gone before anything was sent is neither asked for nor listened for', async () => {
    const { set, requests, heard } = watchesOver(yes);
    const controller = new AbortController();
    const given = set('/a', controller.signal);
    controller.abort(new Error('enough'));
    await assert.rejects(given, { message: 'enough' });
    await new Promise(setImmediate);
    assert.deepEqual([requests, heard], [[], []]);
    assert.equal(await set('/b'), true);
  });

  test('who does not want them asks nobody', async () => {
    const { set, requests } = watchesOver(yes, false);
    assert.equal(await set(), false);
    assert.deepEqual(requests, []);
  });
});
