import assert from 'node:assert/strict';
import { test } from 'node:test';

import { duration, formatDuration } from '@tandem/core';
import * as fc from 'fast-check';

test('a duration is a number with a unit', () => {
  for (const [text, ms] of [
    ['500ms', 500],
    ['2s', 2000],
    ['1.5m', 90_000],
    ['1h', 3_600_000],
  ] as const) {
    assert.equal(duration().parse(text), ms);
  }
});

test('anything else is not a duration', () => {
  for (const value of ['', '2', 's', '-1s', '2 s', '2S', '1d', '1e3s', '.5s', '2s ', 2, null, {}]) {
    const result = duration().safeParse(value);
    assert.equal(result.success, false, JSON.stringify(value));
    assert.match(result.error?.issues[0]?.message ?? '', /must be a duration such as 500ms, 2s or 1m/);
  }
});

test('a duration keeps within its limits, which are allowed themselves', () => {
  const limited = duration({ minMs: 100, maxMs: 60_000 });
  assert.equal(limited.parse('100ms'), 100);
  assert.equal(limited.parse('1m'), 60_000);
  for (const text of ['99ms', '61s', '0s']) {
    assert.match(limited.safeParse(text).error?.issues[0]?.message ?? '', /must be between 100ms and 1m/);
  }
});

test('a duration is written in the shortest way that says exactly the same', () => {
  assert.deepEqual([1500, 2000, 60_000, 90_000, 7_200_000].map(formatDuration), [
    '1500ms',
    '2s',
    '1m',
    '90s',
    '2h',
  ]);
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 86_400_000 }), (ms) => duration().parse(formatDuration(ms)) === ms),
  );
});
