import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { type Instance, uniqueInstances } from '@tandem/core';
import {
  assumeKnown,
  type CatalogPolicy,
  type Known,
  passKnown,
  recordSnapshot,
} from '@tandem/discovery/testing';
import * as fc from 'fast-check';

const [A, B, C] = ['a', 'b', 'c'].map((name): Instance => ({ name, host: '10.0.0.1', port: 80 })) as [
  Instance,
  Instance,
  Instance,
];
const GUARD = { maxLostPercent: 50, minInstances: 3, holdMs: 30_000, windowMs: 5_000 };
const strict: CatalogPolicy = { guard: GUARD, allowEmpty: false, isUsable: () => true };

/** What is known after these snapshots, one second apart. */
function after(policy: CatalogPolicy, ...snapshots: Instance[][]): Known {
  let known: Known | undefined;
  for (const [index, snapshot] of snapshots.entries())
    known = recordSnapshot(known, snapshot, policy, index * 1_000);
  assert.ok(known);
  return known;
}

function seen({ instances, kept }: Known) {
  return { instances: instances.map(({ name }) => name).join(''), kept };
}

describe('the catalog', () => {
  test('has the last snapshot', () => {
    assert.deepEqual(seen(after(strict, [A], [B])), { instances: 'b', kept: false });
  });

  test('keeps the last instances of a service that becomes empty, until it has others', () => {
    assert.deepEqual(seen(after(strict, [A], [])), { instances: 'a', kept: true });
    assert.deepEqual(seen(after(strict, [A], [], [])), { instances: 'a', kept: true });
    assert.deepEqual(seen(after(strict, [A], [], [B])), { instances: 'b', kept: false });
  });

  test('lets a service be empty that always was, or that may be', () => {
    const empty = { instances: '', kept: false };
    assert.deepEqual(seen(after(strict, [])), empty);
    assert.deepEqual(seen(after({ ...strict, allowEmpty: true }, [A], [])), empty);
  });

  test('lets go of what it keeps as soon as the service may be empty', () => {
    const kept = after(strict, [A], []);
    assert.deepEqual(seen(passKnown(kept, { ...strict, allowEmpty: true }, 2_000)), {
      instances: '',
      kept: false,
    });
  });

  test('keeps the last instances, too, when none of the new ones can be used', () => {
    const policy = { ...strict, isUsable: (instance: Instance) => instance === A };
    assert.deepEqual(seen(after(policy, [A], [B])), { instances: 'a', kept: true });
  });

  test('lets the guard speak first: what it holds is not kept, and goes when others are there', () => {
    const policy = { ...strict, allowEmpty: true };
    const held = after(policy, [A, B, C], []);
    assert.deepEqual(seen(held), { instances: 'abc', kept: false });
    assert.equal(passKnown(held, policy, 30_999), held);
    assert.deepEqual(seen(passKnown(held, policy, 31_000)), { instances: '', kept: false });
    assert.deepEqual(seen(passKnown(after(strict, [A, B, C], []), strict, 31_000)), {
      instances: 'abc',
      kept: true,
    });
    assert.deepEqual(seen(passKnown(after(strict, [A, B, C], [A]), strict, 31_000)), {
      instances: 'a',
      kept: false,
    });
  });

  test('counts what an earlier life has saved as there', () => {
    const saved = assumeKnown([C, A, B]);
    assert.deepEqual(seen(recordSnapshot(saved, [B], strict, 0)), { instances: 'abc', kept: false });
    assert.deepEqual(seen(recordSnapshot(assumeKnown([A]), [], strict, 0)), { instances: 'a', kept: true });
  });

  test('gives the same array as long as the records are the same', () => {
    const first = after(strict, [A, B]);
    assert.equal(recordSnapshot(first, [A, B], strict, 1_000).instances, first.instances);
    assert.notEqual(recordSnapshot(first, [A, { ...B }], strict, 1_000).instances, first.instances);
    const held = after(strict, [A, B, C], [A]);
    assert.equal(recordSnapshot(held, [A], strict, 2_000).instances, held.instances);
  });

  test('puts a source in order that has none, and drops its duplicates', () => {
    assert.deepEqual(after(strict, [C, A, { ...A }, B]).instances, [A, B, C]);
  });

  test('has every snapshot in order and each identity once, whatever order there was before', () => {
    // Few identities, several records of each: the same objects come again and again.
    const records = 'abcdeabcab'.split('').map((name, port): Instance => ({
      name,
      host: '10.0.0.1',
      port: port % 3,
    }));
    const lists = fc.array(fc.array(fc.constantFrom(...records), { maxLength: 8 }), { maxLength: 6 });
    const orderly = lists.map((all) =>
      all.map((list, index) => (index % 2 === 0 ? uniqueInstances(list) : list)),
    );
    fc.assert(
      fc.property(orderly, (snapshots) => {
        let known: Known | undefined;
        for (const snapshot of snapshots) {
          known = recordSnapshot(known, snapshot, strict, 0);
          assert.deepEqual(known.said, uniqueInstances(snapshot));
        }
      }),
    );
  });
});
