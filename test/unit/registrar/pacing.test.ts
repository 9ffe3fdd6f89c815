import assert from 'node:assert/strict';
import { test } from 'node:test';

import { createSpread, nextInterval, slowWeight, watchStalls } from '@tandem/registrar/testing';
import * as fc from 'fast-check';

import { createManualClock } from './manual-clock.ts';

test('few checks begin at once, a thousand of them within half a second, and later ones wait for nobody', () => {
  const clock = createManualClock();
  const spread = createSpread(clock);
  const waits = Array.from({ length: 1_000 }, spread);
  assert.ok(waits.slice(0, 15).every((wait) => wait === 0));
  assert.ok(waits.every((wait) => wait <= 510));
  // Never many in the same moment.
  for (let at = 20; at < 1_000; at += 1) assert.ok((waits[at] ?? 0) - (waits[at - 1] ?? 0) >= 0.4);
  clock.stall(600);
  assert.equal(spread(), 0);
});

test('intervals are as long as they shall be on average, and never by much longer or shorter', () => {
  const randoms = Array.from({ length: 1_000 }, (_, index) => (index + 0.5) / 1_000);
  for (const isFirst of [true, false]) {
    const intervals = randoms.map((random) => nextInterval(2_000, isFirst, () => random));
    const mean = intervals.reduce((sum, interval) => sum + interval, 0) / intervals.length;
    assert.ok(Math.abs(mean - 2_000) < 1);
    const [least, most] = isFirst ? [1_000, 3_000] : [1_900, 2_100];
    assert.ok(intervals.every((interval) => interval >= least && interval <= most));
  }
});

test('a slow start grows from about a tenth to the whole in at most ten steps, and never back', () => {
  const whole = fc.integer({ min: 0, max: 256 });
  const duration = fc.integer({ min: 1_000, max: 600_000 });
  fc.assert(
    fc.property(whole, duration, (whole, durationMs) => {
      const weights: number[] = [];
      let elapsedMs = 0;
      for (;;) {
        const { weight, nextStepMs } = slowWeight(whole, { durationMs, elapsedMs });
        assert.ok(weight > (weights.at(-1) ?? -1));
        weights.push(weight);
        if (nextStepMs === undefined) break;
        assert.ok(nextStepMs > 0);
        elapsedMs += Math.ceil(nextStepMs);
      }
      assert.ok(weights.length <= 10);
      assert.equal(weights.at(-1), whole);
      assert.ok((weights[0] ?? 0) <= Math.max(1, whole / 10 + 1) || whole < 2);
      assert.ok(elapsedMs <= durationMs + 10);
    }),
  );
});

test('a stall of the process is noticed before and after its timers run, and forgotten after a while', async () => {
  const clock = createManualClock();
  const stalls = watchStalls(clock);
  await clock.advance(30_000);
  assert.equal(stalls.isRecent(clock.now()), false);
  clock.stall(5_000);
  assert.equal(stalls.isRecent(clock.now()), true, 'nobody has been able to tick');
  await clock.advance(2_000);
  assert.equal(stalls.isRecent(clock.now()), true, 'everything has to catch up');
  await clock.advance(10_000);
  assert.equal(stalls.isRecent(clock.now()), false);
  stalls.stop();
});
