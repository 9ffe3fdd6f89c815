import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  CALM,
  type FlapDamping,
  type FlapState,
  heldForMs,
  noteDown,
  offencesAt,
} from '@tandem/registrar/testing';
import * as fc from 'fast-check';

const DAMPING: FlapDamping = { max: 2, windowMs: 60_000, holdMs: 30_000, maxHoldMs: 200_000 };

function after(downs: readonly number[], damping = DAMPING): FlapState {
  return downs.reduce((state, at) => noteDown(state, damping, at), CALM);
}

test('going down as often as is allowed in a window is no offence, once more is', () => {
  assert.equal(heldForMs(after([0, 1_000]), 1_000), 0);
  assert.equal(heldForMs(after([0, 1_000, 2_000]), 2_000), 30_000);
  assert.equal(heldForMs(after([0, 1_000, 2_000]), 31_999), 1);
  assert.equal(heldForMs(after([0, 1_000, 2_000]), 32_000), 0);
  assert.equal(heldForMs(after([0, 1_000, 60_000]), 60_000), 0, 'the first is too long ago');
});

test('each further offence holds twice as long, up to the most', () => {
  let state = CALM;
  let now = 0;
  const holds: number[] = [];
  for (let offence = 0; offence < 5; offence += 1) {
    for (let down = 0; down < 3; down += 1) state = noteDown(state, DAMPING, (now += 1_000));
    holds.push(heldForMs(state, now));
    now += heldForMs(state, now);
  }
  assert.deepEqual(holds, [30_000, 60_000, 120_000, 200_000, 200_000]);
});

test('going down inside a hold counts, and can make it longer', () => {
  const held = after([0, 1_000, 2_000, 3_000, 4_000]);
  assert.equal(heldForMs(held, 4_000), 28_000);
  assert.equal(heldForMs(noteDown(held, DAMPING, 5_000), 5_000), 60_000);
});

test('offences are forgotten, one for each quiet window after a hold', () => {
  const twice = after([0, 1, 2, 30_100, 30_101, 30_102]);
  assert.equal(offencesAt(twice, DAMPING, 30_102), 2);
  const end = 30_102 + 60_000;
  assert.equal(offencesAt(twice, DAMPING, end + 59_999), 2);
  assert.equal(offencesAt(twice, DAMPING, end + 60_000), 1);
  assert.equal(offencesAt(twice, DAMPING, end + 120_000), 0);
  const restless = noteDown(twice, DAMPING, end + 59_000);
  assert.equal(offencesAt(restless, DAMPING, end + 60_000), 2, 'quiet begins anew');
});

const damping = fc
  .record({
    max: fc.integer({ min: 1, max: 5 }),
    windowMs: fc.integer({ min: 100, max: 10_000 }),
    holdMs: fc.integer({ min: 100, max: 10_000 }),
    longer: fc.integer({ min: 0, max: 50_000 }),
  })
  .map(({ longer, ...rest }): FlapDamping => ({ ...rest, maxHoldMs: rest.holdMs + longer }));
const pauses = fc.array(fc.integer({ min: 0, max: 5_000 }), { maxLength: 80 });

test('no hold is longer than the most, none ends earlier because of what happens in it, and little is kept', () => {
  fc.assert(
    fc.property(damping, pauses, (damping, pauses) => {
      let state = CALM;
      let now = 0;
      for (const pause of pauses) {
        now += pause;
        const before = state;
        state = noteDown(state, damping, now);
        assert.ok(heldForMs(state, now) <= damping.maxHoldMs);
        assert.ok(state.heldUntil >= before.heldUntil);
        assert.ok(state.downs.length <= damping.max);
        assert.equal(state.heldUntil > before.heldUntil || state.offences <= before.offences, true);
      }
    }),
  );
});

test('who never goes down too often in any window is never held', () => {
  fc.assert(
    fc.property(damping, pauses, (damping, pauses) => {
      // As fast as is in order: so many in a window, evenly.
      const step = Math.ceil(damping.windowMs / damping.max);
      let state = CALM;
      let now = 0;
      for (const pause of pauses) {
        now += step + pause;
        state = noteDown(state, damping, now);
        assert.equal(state.heldUntil, -Infinity);
      }
    }),
  );
});

test('whoever stays quiet for long enough after the last hold is held as if it were the first time', () => {
  fc.assert(
    fc.property(damping, pauses, (damping, pauses) => {
      let state = CALM;
      let now = 0;
      for (const pause of pauses) state = noteDown(state, damping, (now += pause));
      now = Math.max(now, state.heldUntil) + damping.windowMs * (state.offences + 1);
      for (let down = 0; down <= damping.max; down += 1) state = noteDown(state, damping, now);
      assert.equal(heldForMs(state, now), damping.holdMs);
    }),
  );
});
