import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test } from 'node:test';

import { sleep, sleepOrAborted, withDeadline } from '@tandem/core';

import { coded } from './support.ts';

function listeners(signal: AbortSignal): number {
  return getEventListeners(signal, 'abort').length;
}

test('a task in time gives its result and leaves nothing on a signal that lives on', async () => {
  const { signal } = new AbortController();
  for (let round = 0; round < 100; round += 1) {
    assert.equal(await withDeadline(signal, 10_000, () => Promise.resolve(round)), round);
  }
  assert.equal(listeners(signal), 0);
});

test('a task that fails leaves nothing behind either, and its error comes through', async () => {
  const { signal } = new AbortController();
  const failure = new Error('broken');
  await assert.rejects(
    withDeadline(signal, 10_000, () => Promise.reject(failure)),
    (error) => error === failure,
  );
  await assert.rejects(
    withDeadline(signal, 10_000, () => {
      throw failure;
    }),
    (error) => error === failure,
  );
  assert.equal(listeners(signal), 0);
});

test('a task that does not listen is left at its deadline', async () => {
  const { signal } = new AbortController();
  let inner: AbortSignal | undefined;
  await assert.rejects(
    withDeadline(signal, 10, (signal) => {
      inner = signal;
      return new Promise(() => {});
    }),
    coded('DEADLINE_EXCEEDED', /longer than 10 ms/),
  );
  assert.equal(inner?.aborted, true);
  assert.equal(listeners(signal), 0);
});

test('a task ends with the signal around it, for the reason of that', async () => {
  const controller = new AbortController();
  const reason = new Error('shutting down');
  const task = withDeadline(controller.signal, 10_000, () => new Promise(() => {}));
  controller.abort(reason);
  await assert.rejects(task, (error) => error === reason);
  assert.equal(listeners(controller.signal), 0);
});

test('a task is not even begun when the signal has ended before', async () => {
  let begun = false;
  const reason = new Error('too late');
  const task = withDeadline(AbortSignal.abort(reason), 10_000, () => {
    begun = true;
    return Promise.resolve();
  });
  await assert.rejects(task, (error) => error === reason);
  assert.equal(begun, false);
});

test('a task that fails after its deadline bothers nobody', async () => {
  let fail: (error: Error) => void = () => {};
  const late = withDeadline(undefined, 5, () => {
    return new Promise((_, reject) => {
      fail = reject;
    });
  });
  await assert.rejects(late, coded('DEADLINE_EXCEEDED'));
  // An unhandled rejection would fail this test.
  fail(new Error('late'));
  await sleep(5);
});

test('sleeping can be cut short, and leaves nothing on the signal', async () => {
  const controller = new AbortController();
  await sleep(1, controller.signal);
  assert.equal(await sleepOrAborted(1, controller.signal), false);
  assert.equal(listeners(controller.signal), 0);
  const reason = new Error('wake up');
  const sleeping = sleep(60_000, controller.signal);
  const asking = sleepOrAborted(60_000, controller.signal);
  controller.abort(reason);
  await assert.rejects(sleeping, (error) => error === reason);
  assert.equal(await asking, true);
  assert.equal(await sleepOrAborted(60_000, controller.signal), true);
});
