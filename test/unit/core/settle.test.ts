import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { createLatest, settled, type StartTimer } from '@tandem/core';
import * as fc from 'fast-check';

/** Lets everything happen that waits for no timer. */
const breathe = () => new Promise<void>((resolve) => setImmediate(resolve));

/** A reader of what settles, on a clock that the test moves. */
function reading(limits: { quietMs: number; maxMs: number }) {
  const source = createLatest<number>();
  const seen: { at: number; value: number }[] = [];
  const timers = new Set<{ at: number; ring: () => void }>();
  let now = 0;
  const startTimer: StartTimer = (ms) => {
    let ring = () => {};
    const over = new Promise<undefined>((resolve) => (ring = () => resolve(undefined)));
    const timer = { at: now + ms, ring };
    timers.add(timer);
    return { over, stop: () => timers.delete(timer) };
  };
  function ringDue() {
    for (const timer of timers) if (timer.at <= now && timers.delete(timer)) timer.ring();
  }
  async function read() {
    for await (const value of settled(source, limits, startTimer)) seen.push({ at: now, value });
  }
  const ended = read();
  return {
    source,
    seen,
    ended,
    running: () => timers.size,
    async moveTo(time: number) {
      for (;;) {
        await breathe();
        ringDue();
        await breathe();
        if (now >= time) return;
        now += 1;
      }
    },
  };
}

/** What must be seen of values (their indices) that come at these times, each later than the one before. */
function expected(times: readonly number[], { quietMs, maxMs }: { quietMs: number; maxMs: number }) {
  const seen: { at: number; value: number }[] = [];
  let index = 0;
  while (index < times.length) {
    const first = times[index] ?? 0;
    let due = Math.min(first + quietMs, first + maxMs);
    while ((times[index + 1] ?? Infinity) < due) {
      index += 1;
      due = Math.min((times[index] ?? 0) + quietMs, first + maxMs);
    }
    seen.push({ at: due, value: index });
    index += 1;
  }
  return seen;
}

describe('settled', () => {
  for (const { name, times, seen } of [
    { name: 'a lone value comes after the quiet time', times: [0], seen: [{ at: 10, value: 0 }] },
    { name: 'a burst comes as its last value', times: [0, 3, 9, 15], seen: [{ at: 25, value: 3 }] },
    {
      name: 'a source that never rests is heard at the limit',
      times: [0, 8, 16, 24, 32, 40, 48],
      seen: [
        { at: 30, value: 3 },
        { at: 58, value: 6 },
      ],
    },
    {
      name: 'what comes after a rest waits for quiet again',
      times: [0, 20],
      seen: [
        { at: 10, value: 0 },
        { at: 30, value: 1 },
      ],
    },
  ])
    test(name, async () => {
      const limits = { quietMs: 10, maxMs: 30 };
      const reader = reading(limits);
      for (const [index, time] of times.entries()) {
        await reader.moveTo(time);
        reader.source.set(index);
      }
      await reader.moveTo(100);
      assert.deepEqual(reader.seen, seen);
      assert.deepEqual(expected(times, limits), seen, 'the model of the property below');
      reader.source.close();
      await reader.ended;
    });

  test('whatever comes when: the newest is seen, after quiet or at the limit, and nothing twice', async () => {
    const gaps = fc.array(fc.integer({ min: 1, max: 12 }), { minLength: 1, maxLength: 12 });
    const limits = fc.record({
      quietMs: fc.integer({ min: 0, max: 8 }),
      maxMs: fc.integer({ min: 0, max: 20 }),
    });
    await fc.assert(
      fc.asyncProperty(gaps, limits, async (gaps, limits) => {
        let sum = 0;
        const times = gaps.map((gap) => (sum += gap));
        const model = expected(times, limits);
        // On the very millisecond either is right.
        const isOnTheEdge = model.some(({ at }) => times.slice(1).includes(at));
        fc.pre(!isOnTheEdge);
        const reader = reading(limits);
        try {
          for (const [index, time] of times.entries()) {
            await reader.moveTo(time);
            reader.source.set(index);
          }
          await reader.moveTo(sum + 40);
          assert.deepEqual(reader.seen, model);
          assert.equal(reader.running(), 0, 'no timer is left behind');
        } finally {
          reader.source.close();
          await reader.ended;
        }
      }),
      { numRuns: 60 },
    );
  });

  test('a source that ends hands over what was waiting', async () => {
    async function* source() {
      yield 1;
      await breathe();
      yield 2;
    }
    const seen: number[] = [];
    for await (const value of settled(source(), { quietMs: 60_000, maxMs: 60_000 })) seen.push(value);
    assert.deepEqual(seen, [2]);
  });

  test('a source that fails is not waited for, not even while its reader is busy', async () => {
    async function* source() {
      yield 1;
      await new Promise<void>((resolve) => setTimeout(resolve, 5));
      throw new Error('broken');
    }
    const reader = settled(source(), { quietMs: 1, maxMs: 1 });
    assert.deepEqual(await reader.next(), { value: 1, done: false });
    // An unhandled rejection would end the process here.
    await new Promise<void>((resolve) => setTimeout(resolve, 20));
    await assert.rejects(reader.next(), /broken/);
  });
});
