import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { silentLog, TandemError } from '@tandem/core';
import { createDeltaSupport } from '@tandem/registry/testing';

const HOUR_MS = 60 * 60_000;
const lost = () => Promise.reject(new TandemError('REGISTRY_CONNECTION_LOST', 'gone'));
const yes = () => Promise.resolve(true);
const no = () => Promise.resolve(false);

function supportAt(isWanted = true) {
  const clock = { ms: 0 };
  return { clock, support: createDeltaSupport({ isWanted, log: silentLog, now: () => clock.ms }) };
}

describe('finding out whether a server has persistent watches', () => {
  test('one asks while the others wait; then everybody sets its own', async () => {
    const { support } = supportAt();
    let asked = 0;
    let answer: (has: boolean) => void = () => {};
    const attempts = Array.from({ length: 5 }, () =>
      support.attempt(() => {
        asked += 1;
        return asked === 1 ? new Promise((resolve) => (answer = resolve)) : yes();
      }),
    );
    await new Promise(setImmediate);
    assert.equal(asked, 1);
    answer(true);
    assert.deepEqual(await Promise.all(attempts), [true, true, true, true, true]);
    assert.equal(asked, 5);
  });

  test('of a server that has none nobody else asks, until an hour has passed', async () => {
    const { support, clock } = supportAt();
    assert.deepEqual(await Promise.all([support.attempt(no), support.attempt(lost)]), [false, false]);
    clock.ms += HOUR_MS - 1;
    assert.equal(await support.attempt(lost), false);
    clock.ms += 1;
    assert.equal(await support.attempt(yes), true);
  });

  test('an ensemble in the middle of an upgrade may lead to an older server', async () => {
    const { support } = supportAt();
    assert.equal(await support.attempt(yes), true);
    assert.equal(await support.attempt(no), false);
    assert.equal(await support.attempt(yes), false);
  });

  test('a server that hangs up over the question three times has none; a failure of another kind says nothing', async () => {
    const { support } = supportAt();
    const late = () => Promise.reject(new TandemError('DEADLINE_EXCEEDED', 'late'));
    for (let attempt = 0; attempt < 10; attempt += 1) await assert.rejects(support.attempt(late));
    for (let attempt = 0; attempt < 3; attempt += 1) await assert.rejects(support.attempt(lost));
    assert.equal(await support.attempt(yes), false);
  });

  test('a connection that is lost later does not count', async () => {
    const { support } = supportAt();
    assert.equal(await support.attempt(yes), true);
    for (let attempt = 0; attempt < 10; attempt += 1) await assert.rejects(support.attempt(lost));
    assert.equal(await support.attempt(yes), true);
  });

  test('whoever does not want it is never asked', async () => {
    const { support } = supportAt(false);
    assert.equal(await support.attempt(lost), false);
  });
});
