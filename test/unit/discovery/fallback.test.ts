import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { type AddressResolver, type Instance, silentLog } from '@tandem/core';
import { NO_MEMORY, followFallback } from '@tandem/discovery/testing';

import { eventually } from '../../support/haproxy.ts';

type Answer = Awaited<ReturnType<AddressResolver['resolve']>>;

/** Answers each name once, when it is told to. */
function createResolver() {
  const answers = new Map<string, { resolve: (answer: Answer) => void; promise: Promise<Answer> }>();
  function answerOf(name: string) {
    let resolve: (answer: Answer) => void = () => {};
    const promise = new Promise<Answer>((done) => {
      resolve = done;
    });
    const known = answers.get(name) ?? { resolve, promise };
    answers.set(name, known);
    return known;
  }
  return {
    resolve: (name: string) => answerOf(name).promise,
    answer: (name: string, answer: Answer) => answerOf(name).resolve(answer),
  };
}

const OLD: readonly Instance[] = [{ name: 'old', host: '10.0.0.1', port: 80 }];
const NEW: Instance = { name: 'new', host: 'new.example.com', port: 80 };

describe('another fallback', () => {
  test('of addresses takes the place of the old one at once, also when there is none any more', () => {
    const deps = { memory: NO_MEMORY, resolver: createResolver(), log: silentLog, onChange() {} };
    const other: readonly Instance[] = [{ name: 'other', host: '10.0.0.2', port: 80 }];
    assert.deepEqual(followFallback(other, deps, OLD).instances, other);
    assert.deepEqual(followFallback([], deps, OLD).instances, []);
  });

  test('of names leaves the old one in its place until one of them has an address', async () => {
    const resolver = createResolver();
    let changes = 0;
    const fallback = followFallback(
      [NEW, { ...NEW, host: 'nobody.example.com' }],
      { memory: NO_MEMORY, resolver, log: silentLog, onChange: () => void (changes += 1) },
      OLD,
    );
    try {
      assert.deepEqual(fallback.instances, OLD);
      resolver.answer('nobody.example.com', { kind: 'none', reason: 'no such name' });
      // Names are waited for a second at most, and then what is known of them is said.
      await eventually(() => assert.equal(changes, 1));
      assert.deepEqual(fallback.instances, OLD);
      resolver.answer('new.example.com', { kind: 'found', records: ['10.0.0.3'], ttlMs: 60_000 });
      await eventually(() => assert.deepEqual(fallback.instances, [{ ...NEW, host: '10.0.0.3' }]));
      assert.equal(fallback.rejected.length, 1);
    } finally {
      fallback.end();
    }
  });

  test('of a name that nobody has leaves the old one in its place, and says so', async () => {
    const resolver = createResolver();
    const fallback = followFallback(
      [NEW],
      { memory: NO_MEMORY, resolver, log: silentLog, onChange() {} },
      OLD,
    );
    try {
      resolver.answer('new.example.com', { kind: 'none', reason: 'no such name' });
      await eventually(() => assert.equal(fallback.rejected.length, 1));
      assert.deepEqual(fallback.instances, OLD);
    } finally {
      fallback.end();
    }
  });
});
