import assert from 'node:assert/strict';
import { test } from 'node:test';

import { createBackoff } from '@tandem/core';
import * as fc from 'fast-check';

test('waits double up to the limit, and start over after a success', () => {
  const backoff = createBackoff({ baseMs: 100, maxMs: 1000 }, () => 1);
  assert.deepEqual(
    Array.from({ length: 6 }, () => backoff.next()),
    [100, 200, 400, 800, 1000, 1000],
  );
  backoff.reset();
  assert.equal(backoff.next(), 100);
});

test('every wait lies between half and all of its nominal value, however often', () => {
  const chance = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
  fc.assert(
    fc.property(chance, fc.integer({ min: 1, max: 2000 }), (random, attempts) => {
      const backoff = createBackoff({ baseMs: 10, maxMs: 5000 }, () => random);
      for (let attempt = 0; attempt < attempts; attempt += 1) {
        const full = Math.min(5000, 10 * 2 ** attempt);
        const wait = backoff.next();
        assert.ok(wait >= full / 2 && wait <= full, `attempt ${attempt}: ${wait}`);
      }
    }),
    { numRuns: 20 },
  );
});
