import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import {
  type ContainerRoster,
  type FoundContainer,
  lookAgainIn,
  NO_CONTAINERS,
  noteDoubt,
  noteEnd,
  noteList,
  present,
} from '@tandem/registrar/testing';
import * as fc from 'fast-check';

const HOLD_MS = 10_000;

function container(id: string): FoundContainer {
  return { id, name: id, labels: {}, health: 'none', isOnHost: false, ports: [] };
}

/** After a list that shows these. What had ended before it was asked for is what had ended by now, unless said otherwise. */
function listed(
  roster: ContainerRoster,
  ids: string,
  options: { at?: number; isListening?: boolean; endedBefore?: ReadonlySet<string> } = {},
): ContainerRoster {
  const { at = 0, isListening = true, endedBefore = roster.ended } = options;
  const containers = ids.split('').map(container);
  return noteList(roster, { containers, endedBefore, isListening, nowMs: at, holdMs: HOLD_MS });
}

function ids(roster: ContainerRoster): string {
  return present(roster)
    .map(({ id }) => id)
    .toSorted()
    .join('');
}

describe('the roster of containers', () => {
  test('believes a list of a daemon that was listened to all the time', () => {
    const before = listed(NO_CONTAINERS, 'abc');
    assert.equal(ids(before), 'abc');
    assert.equal(ids(listed(before, 'b')), 'b');
    assert.equal(ids(listed(before, '')), '');
  });

  test('keeps what is missing after a doubt until the hold is over, and takes what is new at once', () => {
    const doubtful = noteDoubt(listed(NO_CONTAINERS, 'ab'));
    const after = listed(doubtful, 'bc', { at: 100 });
    assert.equal(ids(after), 'abc');
    assert.equal(lookAgainIn(after, { nowMs: 1_100, holdMs: HOLD_MS }), 9_000);
    assert.equal(ids(listed(after, 'bc', { at: 10_099 })), 'abc');
    const over = listed(after, 'bc', { at: 10_100 });
    assert.equal(ids(over), 'bc');
    assert.equal(lookAgainIn(over, { nowMs: 10_100, holdMs: HOLD_MS }), undefined);
    assert.equal(ids(listed(after, 'abc', { at: 200 })), 'abc');
    const back = listed(listed(after, 'abc', { at: 200 }), 'bc', { at: 300 });
    assert.equal(ids(back), 'bc', 'it was back, and there is no doubt any more');
  });

  test('an end that was told of is believed in any case', () => {
    const before = noteDoubt(listed(NO_CONTAINERS, 'ab'));
    assert.equal(ids(noteEnd(before, 'a')), 'b');
    assert.equal(ids(listed(noteEnd(before, 'a'), 'b')), 'b');
    const held = listed(before, 'b');
    assert.equal(ids(held), 'ab');
    assert.equal(ids(noteEnd(held, 'a')), 'b');
  });

  test('a list that was asked for before an end does not bring the container back, one after it does', () => {
    const before = listed(NO_CONTAINERS, 'ab');
    const ended = noteEnd(before, 'a');
    const late = listed(ended, 'ab', { endedBefore: before.ended });
    assert.equal(ids(late), 'b');
    assert.equal(ids(listed(late, 'ab')), 'ab', 'it was started again');
  });

  test('while nobody listens, a doubt stays', () => {
    const deaf = listed(noteDoubt(listed(NO_CONTAINERS, 'ab')), 'ab', { isListening: false });
    assert.equal(ids(listed(deaf, 'b', { at: 1 })), 'ab');
    const heard = listed(deaf, 'ab');
    assert.equal(ids(listed(heard, 'b')), 'b');
  });

  test('in the end it is what the lists say, whatever came before', () => {
    const letters = fc.uniqueArray(fc.constantFrom('a', 'b', 'c', 'd')).map((some) => some.join(''));
    const step = fc.oneof(
      fc.record({ kind: fc.constant('list' as const), ids: letters, isListening: fc.boolean() }),
      fc.record({ kind: fc.constant('end' as const), id: fc.constantFrom('a', 'b', 'c', 'd') }),
      fc.record({ kind: fc.constant('doubt' as const) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), letters, (steps, last) => {
        let roster = NO_CONTAINERS;
        let at = 0;
        for (const one of steps) {
          at += 100;
          if (one.kind === 'list') roster = listed(roster, one.ids, { at, isListening: one.isListening });
          else roster = one.kind === 'end' ? noteEnd(roster, one.id) : noteDoubt(roster);
          if (one.kind === 'list') for (const id of one.ids) assert.ok(ids(roster).includes(id));
        }
        const settled = listed(listed(roster, last, { at }), last, { at: at + HOLD_MS });
        assert.equal(ids(settled), last.split('').toSorted().join(''));
        assert.equal(settled.missingSince.size, 0);
      }),
      { numRuns: 500 },
    );
  });
});
