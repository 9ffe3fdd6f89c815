import assert from 'node:assert/strict';
import { test } from 'node:test';

import { createTokenBucket, takeToken, type TokenRate, tokenWaitMs } from '@tandem/core';
import * as fc from 'fast-check';

const RATE: TokenRate = { perMs: 10_000, burst: 3 };

test('a bucket begins full, gives one token at a time, and fills up again at its rate', () => {
  let bucket = createTokenBucket(RATE, 0);
  const take = (now: number) => {
    const rest = takeToken(bucket, RATE, now);
    bucket = rest ?? bucket;
    return rest !== undefined;
  };
  assert.deepEqual([0, 0, 0, 0].map(take), [true, true, true, false]);
  assert.equal(tokenWaitMs(bucket, RATE, 0), 10_000);
  assert.equal(tokenWaitMs(bucket, RATE, 4_000), 6_000);
  assert.deepEqual([9_999, 10_000, 10_000].map(take), [false, true, false]);
  assert.deepEqual([100_000, 100_000, 100_000, 100_000].map(take), [true, true, true, false]);
});

test('a bucket never gives more than its burst and its rate allow, and always gives after the wait', () => {
  const rates = fc.record({
    perMs: fc.integer({ min: 1, max: 5_000 }),
    burst: fc.integer({ min: 1, max: 10 }),
  });
  const pauses = fc.array(fc.integer({ min: 0, max: 10_000 }), { maxLength: 60 });
  fc.assert(
    fc.property(rates, pauses, (rate, pauses) => {
      let bucket = createTokenBucket(rate, 0);
      let now = 0;
      let taken = 0;
      for (const pause of pauses) {
        now += pause;
        const rest = takeToken(bucket, rate, now);
        const waitMs = tokenWaitMs(bucket, rate, now);
        assert.equal(rest === undefined, waitMs > 0);
        if (rest === undefined) assert.ok(takeToken(bucket, rate, now + waitMs) !== undefined);
        else taken += 1;
        bucket = rest ?? bucket;
        assert.ok(taken <= rate.burst + now / rate.perMs + 1e-3);
      }
    }),
  );
});

test('a clock that goes back takes nothing away and gives nothing', () => {
  const bucket = takeToken(createTokenBucket(RATE, 5_000), RATE, 5_000);
  assert.ok(bucket !== undefined);
  assert.equal(takeToken(bucket, RATE, 0)?.tokens, 1);
});
