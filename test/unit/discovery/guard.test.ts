import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { compareInstances, type Instance, instanceId } from '@tandem/core';
import { type Guard, guardChange, mergeInstances, openGuard, passTime } from '@tandem/discovery/testing';
import * as fc from 'fast-check';

const POLICY = { maxLostPercent: 50, minInstances: 3, holdMs: 30_000, windowMs: 5_000 };

/** One for every letter. */
function instances(names: string): Instance[] {
  return names
    .split('')
    .map((name) => ({ name, host: '10.0.0.1', port: 80 }))
    .toSorted(compareInstances);
}

const TEN = instances('abcdefghij');

function namesOf(list: readonly Instance[]): string {
  return list.map(({ name }) => name).join('');
}

/** A guard that is told snapshots, and what is offered after each. */
function watching(first: readonly Instance[], policy = POLICY) {
  let guard: Guard = openGuard;
  let before = first;
  const offered = () => (guard.kind === 'holding' ? mergeInstances(before, guard.lost) : before);
  return {
    say(now: number, after: readonly Instance[]): string {
      guard = guardChange(guard, { before, after }, policy, now);
      before = after;
      return namesOf(offered());
    },
    pass(now: number): string {
      guard = passTime(guard, policy, now);
      return namesOf(offered());
    },
    until: () => (guard.kind === 'holding' ? guard.until : undefined),
    offered,
  };
}

describe('the guard', () => {
  test('holds a loss of more than half until the hold is over, and then accepts it', () => {
    const guard = watching(TEN);
    assert.equal(guard.say(0, instances('abcd')), 'abcdefghij');
    assert.equal(guard.pass(29_999), 'abcdefghij');
    assert.equal(guard.pass(30_000), 'abcd');
    assert.equal(guard.until(), undefined);
  });

  test('looks at what returns once, however many have gone before', () => {
    const many = Array.from({ length: 60_000 }, (_, index) => ({
      name: `i-${index}`,
      host: '10.0.0.1',
      port: 80,
    }));
    many.sort(compareInstances);
    const half = many.filter((_, index) => index % 2 === 0);
    const guard = guardChange(openGuard, { before: many, after: half }, POLICY, 0);
    assert.equal(guard.kind === 'open' ? guard.losses.length : 0, 30_000);
    const startedAt = process.cpuUsage();
    const after = guardChange(guard, { before: half, after: many }, POLICY, 1);
    const ms = process.cpuUsage(startedAt).user / 1_000;
    assert.deepEqual(after, openGuard);
    // A look at each for each takes seconds.
    assert.ok(ms < 1_000, `${ms} ms`);
  });

  test('lets half of a service go, and all of a small one', () => {
    assert.equal(watching(TEN).say(0, instances('abcde')), 'abcde');
    assert.equal(watching(instances('ab')).say(0, []), '');
  });

  test('counts a burst of small losses as one, and holds all of it from its beginning', () => {
    const guard = watching(TEN);
    for (let gone = 1; gone <= 5; gone += 1)
      assert.equal(guard.say(gone * 100, TEN.slice(gone)), namesOf(TEN.slice(gone)));
    assert.equal(guard.say(600, TEN.slice(6)), 'abcdefghij');
    assert.equal(guard.say(4_000, []), 'abcdefghij');
    assert.equal(guard.until(), 30_100);
  });

  test('lets a service shrink slowly', () => {
    const guard = watching(TEN);
    for (let gone = 1; gone <= 10; gone += 1)
      assert.equal(guard.say(gone * 5_001, TEN.slice(gone)), namesOf(TEN.slice(gone)));
  });

  test('judges a large loss by what was there just before it, not before an earlier small one', () => {
    const guard = watching(instances('abcdefghijklmnopqrst'));
    guard.say(0, instances('abcdefghijklmnopqrs'));
    guard.say(10, instances('abcdefghijkl'));
    // 8 and 6 of 20 are too much, although 6 of 12 are not.
    assert.equal(guard.say(20, instances('abcdef')), 'abcdefghijklmnopqrst');
    const other = watching(instances('abcd'));
    other.say(0, instances('abc'));
    const many = 'abcdefghijklmnopqrstuvwxyz';
    other.say(10, instances(many));
    assert.equal(other.say(20, instances('z')), many, '25 of 26 are too much');
    assert.equal(other.until(), 30_020, 'one that has returned in between does not count');
  });

  test('lets additions and changed records through while it holds', () => {
    const guard = watching(TEN);
    guard.say(0, instances('a'));
    const heavier = [{ ...instances('a')[0]!, weight: 7 }, ...instances('x')];
    assert.equal(guard.say(10, heavier), 'abcdefghijx');
    assert.equal(guard.offered()[0]?.weight, 7);
  });

  test('what returns is simply there, and with the last of them the hold is over', () => {
    const guard = watching(TEN);
    guard.say(0, []);
    guard.say(10, TEN.slice(0, 9));
    assert.equal(guard.until(), 30_000);
    guard.say(20, TEN);
    assert.equal(guard.until(), undefined);
    assert.equal(guard.say(30, TEN.slice(1)), namesOf(TEN.slice(1)), 'and what was lost before is forgotten');
  });

  test('a hold that the operator has shortened or switched off ends sooner', () => {
    const { guard } = { guard: guardChange(openGuard, { before: TEN, after: [] }, POLICY, 0) };
    assert.deepEqual(passTime(guard, { ...POLICY, holdMs: 10 }, 5), { ...guard, until: 15 });
    assert.equal(passTime(guard, { ...POLICY, maxLostPercent: 100 }, 5), openGuard);
  });

  test('a clock that goes back prolongs nothing beyond one hold', () => {
    const guard = guardChange(openGuard, { before: TEN, after: [] }, POLICY, 1_000_000);
    const after = passTime(guard, POLICY, 0);
    assert.deepEqual(after, { ...guard, until: POLICY.holdMs });
    assert.equal(passTime(after, POLICY, POLICY.holdMs), openGuard);
  });
});

const names = fc.uniqueArray(
  fc.constantFrom<string[]>('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l'),
  {
    maxLength: 12,
  },
);
const history = fc.array(fc.record({ names, waitMs: fc.constantFrom(0, 1, 100, 999, 1_000, 1_001, 5_000) }), {
  minLength: 1,
  maxLength: 30,
});
const policies = fc.record({
  maxLostPercent: fc.constantFrom(0, 10, 34, 50, 90, 99),
  minInstances: fc.integer({ min: 1, max: 5 }),
  holdMs: fc.constantFrom(1, 1_000, 3_000),
  windowMs: fc.constantFrom(0, 100, 1_000, 5_000),
});

/** Tells a guard the history; `check` sees what is offered after every snapshot and every wait. */
function live(
  first: readonly string[],
  steps: readonly { names: readonly string[]; waitMs: number }[],
  policy: typeof POLICY,
  check: (seen: { offered: ReadonlySet<string>; said: ReadonlySet<string>; now: number }) => void,
): void {
  const guard = watching(instances(first.join('')), policy);
  let now = 0;
  let said = new Set(first);
  for (const { names, waitMs } of steps) {
    for (const moment of [now + waitMs / 2, now + waitMs]) {
      guard.pass(moment);
      check({ offered: new Set(guard.offered().map(({ name }) => name)), said, now: moment });
    }
    now += waitMs;
    guard.say(now, instances(names.join('')));
    said = new Set(names);
    const offered = guard.offered();
    assert.deepEqual(offered, offered.toSorted(compareInstances));
    assert.equal(new Set(offered.map(instanceId)).size, offered.length);
    check({ offered: new Set(offered.map(({ name }) => name)), said, now });
  }
}

describe('whatever the history, the guard', () => {
  test('offers everything that is announced, and nothing that never was', () => {
    fc.assert(
      fc.property(names, history, policies, (first, steps, policy) => {
        const ever = new Set(first);
        live(first, steps, policy, ({ offered, said }) => {
          for (const name of said) assert.ok(offered.has(name), `${name} is announced and not offered`);
          for (const name of said) ever.add(name);
          for (const name of offered) assert.ok(ever.has(name), `${name} was never announced`);
        });
      }),
      { numRuns: 500 },
    );
  });

  test('offers nothing for longer than one hold after it was last announced', () => {
    fc.assert(
      fc.property(names, history, policies, (first, steps, policy) => {
        const goneAt = new Map<string, number>();
        let before = new Set<string>(first);
        live(first, steps, policy, ({ offered, said, now }) => {
          for (const name of before) if (!said.has(name)) goneAt.set(name, now);
          before = new Set(said);
          for (const name of offered)
            assert.ok(
              said.has(name) || now - (goneAt.get(name) ?? Infinity) < policy.holdMs,
              `${name} is held for too long`,
            );
        });
      }),
      { numRuns: 500 },
    );
  });

  test('holds a loss exactly when it is too large, in however many snapshots it comes', () => {
    const sizes = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(names, sizes, policies, (first, sizes, policy) => {
        const guard = watching(instances(first.join('')), policy);
        const stepMs = Math.min(policy.windowMs, policy.holdMs - 1) / 6;
        let left = first;
        let offered = '';
        for (const [index, size] of sizes.entries()) {
          left = left.slice(size);
          offered = guard.say(index * stepMs, instances(left.join('')));
        }
        const lost = first.length - left.length;
        if (first.length >= policy.minInstances && lost * 100 > first.length * policy.maxLostPercent)
          assert.equal(offered, namesOf(instances(first.join(''))));
        // One step alone may be too much of what was left before it; with a single one there is nothing else to judge.
        else if (sizes.length === 1) assert.equal(offered, namesOf(instances(left.join(''))));
      }),
      { numRuns: 1_000 },
    );
  });

  test('is not there at all with 100 percent, without a hold, or for fewer than it guards', () => {
    const transparent = fc.oneof(
      policies.map((policy) => ({ ...policy, maxLostPercent: 100 })),
      policies.map((policy) => ({ ...policy, holdMs: 0 })),
      policies.map((policy) => ({ ...policy, minInstances: 13 })),
    );
    fc.assert(
      fc.property(names, history, transparent, (first, steps, policy) => {
        live(first, steps, policy, ({ offered, said }) => assert.deepEqual(offered, said));
      }),
    );
  });
});
