import assert from 'node:assert/strict';
import { test } from 'node:test';

import { combineHealth, createHealth, type Health, nextHealth } from '@tandem/registrar';
import * as fc from 'fast-check';

/** The health after each of these results. */
function healths(limits: { rise: number; fall: number }, results: readonly boolean[]): Health[] {
  let state = createHealth(limits);
  return results.map((ok) => {
    state = nextHealth(state, ok);
    return state.health;
  });
}

/** Nerve's own definition, with its ring buffer, as the judge of what is up. */
function ringBuffer({ rise, fall }: { rise: number; fall: number }, results: readonly boolean[]): boolean[] {
  const size = Math.max(rise, fall);
  let buffer: boolean[] = [];
  let last: boolean | undefined;
  return results.map((ok) => {
    if (last === undefined) {
      last = ok;
      buffer = Array.from({ length: size }, () => ok);
    }
    buffer = [...buffer.slice(1), ok];
    if (!buffer.slice(-fall).includes(true)) last = false;
    if (!buffer.slice(-rise).includes(false)) last = true;
    return last;
  });
}

test('health changes exactly where Nerve changes it', () => {
  for (const [rise, fall, results, expected] of [
    [1, 1, '1001011', '1001011'],
    [3, 2, '0111011001110', '0001111100011'],
    [3, 2, '1010010111', '1111000001'],
    [2, 3, '1000110001011', '1110011100001'],
    [1, 3, '0100010001', '0111011101'],
    [3, 1, '1011101110', '1000100010'],
    [5, 5, '1000001111100000', '1111100000111110'],
    [2, 2, '0e1e11', '000001'],
    [2, 2, '1e1ee1', '111100'],
    [3, 2, 'eee111', '000001'],
  ] as const) {
    const got = healths(
      { rise, fall },
      results.split('').map((result) => result === '1'),
    );
    assert.equal(
      got.map((health) => (health === 'up' ? '1' : '0')).join(''),
      expected,
      `${rise}/${fall} ${results}`,
    );
  }
});

test('health is up where the ring buffer is, and down only after enough failures, for every sequence', () => {
  const limit = fc.integer({ min: 1, max: 6 });
  fc.assert(
    fc.property(limit, limit, fc.array(fc.boolean(), { maxLength: 40 }), (rise, fall, results) => {
      const isUp = ringBuffer({ rise, fall }, results);
      // What is not up was up before or has failed enough, or else nothing is known of it.
      const expected = isUp.map((up, index): Health => {
        if (up) return 'up';
        const sofar = results.slice(0, index + 1);
        const hasFailed = sofar.some(
          (_, at) => at + fall <= sofar.length && !sofar.slice(at, at + fall).includes(true),
        );
        return hasFailed ? 'down' : 'unknown';
      });
      assert.deepEqual(healths({ rise, fall }, results), expected);
    }),
  );
});

test('a first pass counts at once, first failures only when there are enough of them', () => {
  const limits = { rise: 2, fall: 3 };
  assert.equal(createHealth(limits).health, 'unknown');
  assert.deepEqual(healths(limits, [true]), ['up']);
  assert.deepEqual(healths(limits, [false, false, false]), ['unknown', 'unknown', 'down']);
  assert.deepEqual(healths(limits, [false, true, false, true, true]), [
    'unknown',
    'unknown',
    'unknown',
    'unknown',
    'up',
  ]);
});

test('a service is as well as its worst check', () => {
  assert.equal(combineHealth([]), 'up');
  assert.equal(combineHealth(['up', 'up']), 'up');
  assert.equal(combineHealth(['up', 'unknown']), 'unknown');
  assert.equal(combineHealth(['unknown', 'down', 'up']), 'down');
});
