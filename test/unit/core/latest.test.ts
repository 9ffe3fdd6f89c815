import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test } from 'node:test';

import { createLatest } from '@tandem/core';

test('a value that was set before anybody reads is there', async () => {
  const latest = createLatest<number>();
  latest.set(1);
  const reader = latest[Symbol.asyncIterator]();
  assert.deepEqual(await reader.next(), { value: 1, done: false });
});

test('the newest wins: a burst while the reader is busy costs it one more round', async () => {
  const latest = createLatest<number>();
  const seen: number[] = [];
  latest.set(0);
  for await (const value of latest) {
    seen.push(value);
    if (value === 0) for (let next = 1; next <= 1000; next += 1) latest.set(next);
    else latest.close();
  }
  assert.deepEqual(seen, [0, 1000]);
});

test('a waiting reader gets the next value, and the end', async () => {
  const latest = createLatest<string>();
  const reader = latest[Symbol.asyncIterator]();
  const first = reader.next();
  latest.set('a');
  assert.deepEqual(await first, { value: 'a', done: false });
  const second = reader.next();
  latest.close();
  assert.equal((await second).done, true);
  latest.set('b');
  assert.equal((await reader.next()).done, true);
});

test('closing drops what was not read', async () => {
  const latest = createLatest<string>();
  latest.set('a');
  latest.close();
  assert.equal((await latest[Symbol.asyncIterator]().next()).done, true);
});

test('it ends with its signal and leaves nothing on it', async () => {
  const controller = new AbortController();
  const latest = createLatest<string>(controller.signal);
  const reading = latest[Symbol.asyncIterator]().next();
  controller.abort();
  assert.equal((await reading).done, true);
  assert.equal((await createLatest(controller.signal)[Symbol.asyncIterator]().next()).done, true);

  const { signal } = new AbortController();
  const left = createLatest<string>(signal);
  left.set('a');
  for await (const _ of left) break;
  assert.equal(getEventListeners(signal, 'abort').length, 0);
});
