import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, test } from 'node:test';

import type { Instance, Snapshot } from '@tandem/core';
import { filtered, matchesFilter, publishedBy } from '@tandem/discovery/testing';
import * as fc from 'fast-check';

import { follow } from '../../conformance/source.ts';
import { eventually } from '../../support/eventually.ts';

function labelled(name: string, labels?: Record<string, string>, weight = 1): Instance {
  return { name, host: '10.0.0.1', port: 80, weight, ...(labels === undefined ? {} : { labels }) };
}

const word = fc.constantFrom('a', 'b', 'zone', 'constructor', '');
const labels = fc.dictionary(word, word);
const filters = fc.dictionary(
  word.filter((text) => text !== ''),
  fc.array(word, { minLength: 1 }),
);

describe('a filter', () => {
  test('takes an instance that has every label with one of the values, and no other', () => {
    const version = labelled('i-1', { version: '1.4.2', zone: 'a' });
    assert.equal(matchesFilter(version, {}), true);
    assert.equal(matchesFilter(version, { version: ['1.4.2'] }), true);
    assert.equal(matchesFilter(version, { version: ['1.4.1', '1.4.2'], zone: ['a'] }), true);
    assert.equal(matchesFilter(version, { version: ['1.4.2'], zone: ['b'] }), false);
    assert.equal(matchesFilter(version, { region: ['a'] }), false);
    assert.equal(matchesFilter(labelled('i-2'), { zone: ['a'] }), false);
  });

  test('finds nothing that is in every object', () => {
    for (const label of ['constructor', 'toString', '__proto__'])
      assert.equal(matchesFilter(labelled('i-1', {}), { [label]: ['', 'undefined'] }), false);
  });

  test('with another label it takes no more, with another value no less', () => {
    fc.assert(
      fc.property(labels, filters, word, word, (labels, filter, label, value) => {
        const instance = labelled('i-1', labels);
        const takes = matchesFilter(instance, filter);
        if (label !== '' && !Object.hasOwn(filter, label) && !takes)
          assert.equal(matchesFilter(instance, { ...filter, [label]: [value] }), false);
        if (label !== '' && Object.hasOwn(filter, label) && takes)
          assert.equal(
            matchesFilter(instance, { ...filter, [label]: [...(filter[label] ?? []), value] }),
            true,
          );
        const own = Object.fromEntries(Object.entries(labels).map(([key, text]) => [key, [text]]));
        assert.equal(matchesFilter(instance, own), true);
      }),
    );
  });
});

describe('a source behind a filter', () => {
  const red = labelled('red', { colour: 'red' });
  const blue = labelled('blue', { colour: 'blue' });
  const rejected = [{ place: 'x', reason: 'bad' }];

  function scripted() {
    let publish: ((snapshot: Snapshot) => void) | undefined;
    const source = {
      watch: (signal: AbortSignal) =>
        publishedBy<Snapshot>(signal, async (set, signal) => {
          publish = set;
          await once(signal, 'abort');
        }),
    };
    return {
      source,
      yields: (instances: Instance[], rejected: Snapshot['rejected'] = []) =>
        eventually(() => {
          assert.ok(publish !== undefined);
          publish({ instances, rejected });
        }),
    };
  }

  test('shows what matches as the same objects, and is silent about what does not', async () => {
    const { source, yields } = scripted();
    await using watch = follow(filtered(source, { colour: ['red'] }));
    await yields([blue, red]);
    await watch.shows(red);
    assert.equal(watch.latest?.instances[0], red);
    await yields([red]);
    await yields([labelled('blue', { colour: 'blue' }, 7), { ...red }]);
    const other = labelled('red', { colour: 'red' }, 7);
    await yields([other]);
    await watch.shows(other);
    assert.equal(watch.snapshots.length, 2);
  });

  test('none that match is an empty snapshot, and what was set aside stays told', async () => {
    const { source, yields } = scripted();
    await using watch = follow(filtered(source, { colour: ['red'] }));
    await yields([blue], rejected);
    await eventually(() => assert.deepEqual(watch.latest, { instances: [], rejected }));
    await yields([blue]);
    await eventually(() => assert.deepEqual(watch.latest, { instances: [], rejected: [] }));
  });

  test('an empty filter is none', () => {
    const { source } = scripted();
    assert.equal(filtered(source, {}), source);
  });
});
