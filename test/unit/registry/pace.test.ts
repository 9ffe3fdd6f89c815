import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { createPace } from '@tandem/registry/testing';

function paceAt(random: number) {
  const clock = { ms: 1_000 };
  return { clock, pace: createPace({ random: () => random, now: () => clock.ms }) };
}

describe('the pace of reading a list again', () => {
  test('the first read and a lone change of a small list wait for nothing', () => {
    const { clock, pace } = paceAt(0);
    assert.equal(pace.delay(), 0);
    pace.read(500);
    clock.ms += 60_000;
    assert.equal(pace.delay(), 0);
  });

  test('changes in a row wait as long as the list is large: 50 KB/s at most', () => {
    const { clock, pace } = paceAt(0);
    pace.read(100_000);
    assert.equal(pace.delay(), 2_000);
    clock.ms += 1_500;
    assert.equal(pace.delay(), 500);
  });

  test('no list waits longer than 45 s, however large it is and whatever chance says', () => {
    const { pace } = paceAt(1);
    pace.read(1e12);
    assert.equal(pace.delay(), 45_000);
  });

  test('hosts that hear of a change in the same instant spread their reads of a large list', () => {
    const delays = [0, 0.5, 1].map((random) => {
      const { clock, pace } = paceAt(random);
      pace.read(250_000);
      clock.ms += 60_000;
      return pace.delay();
    });
    assert.deepEqual(delays, [0, 250, 500]);
  });
});
