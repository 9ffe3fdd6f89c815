import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  combineHealth,
  createHealth,
  type Health,
  type HealthLimits,
  nextHealth,
  type Verdict,
} from '@tandem/registrar';
import * as fc from 'fast-check';

type Limits = Omit<HealthLimits, 'initial'> & Partial<HealthLimits>;

/** The verdict after each of these results. */
function verdicts(limits: Limits, results: readonly boolean[]): Verdict[] {
  let state = createHealth({ initial: 'first_result', ...limits });
  return results.map((ok) => {
    state = nextHealth(state, ok);
    return { health: state.health, isFirm: state.isFirm };
  });
}

function healths(limits: Limits, results: readonly boolean[]): Health[] {
  return verdicts(limits, results).map(({ health }) => health);
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

test('health is what the ring buffer says, and firmly down only after enough failures, for every sequence', () => {
  const limit = fc.integer({ min: 1, max: 6 });
  fc.assert(
    fc.property(limit, limit, fc.array(fc.boolean(), { maxLength: 40 }), (rise, fall, results) => {
      const isUp = ringBuffer({ rise, fall }, results);
      const expected = isUp.map((up, index): Verdict => {
        const sofar = results.slice(0, index + 1);
        const hasFailed = sofar.some(
          (_, at) => at + fall <= sofar.length && !sofar.slice(at, at + fall).includes(true),
        );
        return { health: up ? 'up' : 'down', isFirm: up || hasFailed };
      });
      assert.deepEqual(verdicts({ rise, fall }, results), expected);
    }),
  );
});

test('a first result counts at once, but first failures are firm only when there are enough of them', () => {
  const limits = { rise: 2, fall: 3 };
  const shown = (results: readonly boolean[]) =>
    verdicts(limits, results).map(({ health, isFirm }) => `${health}${isFirm ? '' : '?'}`);
  assert.equal(createHealth({ ...limits, initial: 'first_result' }).health, 'unknown');
  assert.deepEqual(shown([true]), ['up']);
  assert.deepEqual(shown([false, false, false]), ['down?', 'down?', 'down']);
  assert.deepEqual(shown([false, true, false, true, true]), ['down?', 'down?', 'down?', 'down?', 'up']);
});

test('what is down to begin with has to pass as often as it always has to, for every sequence', () => {
  assert.deepEqual(healths({ rise: 3, fall: 2, initial: 'down' }, [true, true, true]), [
    'down',
    'down',
    'up',
  ]);
  assert.equal(createHealth({ rise: 3, fall: 2, initial: 'down' }).health, 'down');
  const limit = fc.integer({ min: 1, max: 6 });
  fc.assert(
    fc.property(limit, limit, fc.array(fc.boolean(), { maxLength: 40 }), (rise, fall, results) => {
      // As if it had failed before anybody looked.
      const failures = Array.from({ length: fall }, () => false);
      const expected = ringBuffer({ rise, fall }, [...failures, ...results]).slice(fall);
      const got = healths({ rise, fall, initial: 'down' }, results);
      assert.deepEqual(
        got.map((health) => health === 'up'),
        expected,
      );
    }),
  );
});

test('a service is as well as its worst check, and as firmly as the firmest of these', () => {
  const [up, down] = [
    { health: 'up', isFirm: true },
    { health: 'down', isFirm: true },
  ] as const;
  const [doubtful, unknown] = [
    { health: 'down', isFirm: false },
    { health: 'unknown', isFirm: false },
  ] as const;
  assert.deepEqual(combineHealth([]), up);
  assert.deepEqual(combineHealth([up, up]), up);
  assert.deepEqual(combineHealth([up, unknown]), unknown);
  assert.deepEqual(combineHealth([unknown, down, up]), down);
  assert.deepEqual(combineHealth([unknown, doubtful, up]), doubtful);
  assert.deepEqual(combineHealth([doubtful, down]), down);
});
