import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { compareInstances, type Instance, type InstanceId, instanceId } from '@tandem/core';
import {
  chooseLeader,
  chooseSubset,
  createSelector,
  findInstances,
  preferNear,
  selectInstances,
  type SelectionInput,
} from '@tandem/discovery/testing';
import * as fc from 'fast-check';

const HOST = { name: 'host-1', labels: { zone: 'a', region: 'eu' } };
const SCENE = { host: HOST, isUsable: ({ host }: Instance) => host !== 'unusable' };

function make(name: string, extra: Partial<Instance> = {}): Instance {
  return { name, host: '10.0.0.1', port: 80, ...extra };
}

function at(name: string, zone: string, region: string, extra: Partial<Instance> = {}): Instance {
  return make(name, { labels: { zone, region }, ...extra });
}

function inputOf(instances: readonly Instance[], extra: Partial<SelectionInput> = {}): SelectionInput {
  return {
    entry: { instances, kept: false },
    config: { leader: false, locality: undefined, subset: undefined },
    fallback: [],
    holds: new Map(),
    ...extra,
  };
}

function select(instances: readonly Instance[], extra: Partial<SelectionInput> = {}): string {
  const { instances: chosen, isFallback } = selectInstances(inputOf(instances, extra), SCENE);
  return `${isFallback ? 'fallback ' : ''}${chosen.map(({ name }) => name).join(' ')}`;
}

const PREFER = { prefer: ['zone', 'region'], spillBelow: 2 };
const near = { leader: false, locality: PREFER, subset: undefined };
const leading = { leader: true, locality: undefined, subset: undefined };
const all = () => true;

describe('what a host uses', () => {
  const fleet = [at('a1', 'a', 'eu'), at('a2', 'a', 'eu'), at('b1', 'b', 'eu'), at('c1', 'c', 'us')];

  test('is everything, as it is, when nothing else is asked for', () => {
    assert.equal(selectInstances(inputOf(fleet), SCENE).instances, fleet);
  });

  test('is what is near, while there is enough of it', () => {
    assert.equal(select(fleet, { config: near }), 'a1 a2');
    assert.equal(select(fleet.slice(1), { config: near }), 'a2 b1');
    assert.equal(select(fleet.slice(2), { config: near }), 'b1 c1');
  });

  test('spills over when those that are near get no traffic', () => {
    const [a1, a2, ...others] = fleet as [Instance, Instance, ...Instance[]];
    assert.equal(select([a1, { ...a2, weight: 0 }, ...others], { config: near }), 'a1 a2 b1');
    assert.equal(select([a1, { ...a2, host: 'unusable' }, ...others], { config: near }), 'a1 a2 b1');
    const holds = new Map([[instanceId(a2), 'drain' as const]]);
    assert.equal(select(fleet, { config: near, holds }), 'a1 a2 b1');
  });

  test('is all of it for a host without labels, and for instances without', () => {
    const scene = { ...SCENE, host: { name: 'h', labels: {} } };
    assert.equal(selectInstances(inputOf(fleet, { config: near }), scene).instances, fleet);
    assert.equal(select([make('x'), make('y')], { config: near }), 'x y');
    const hostile = { ...near, locality: { prefer: ['constructor', '__proto__'], spillBelow: 1 } };
    assert.equal(select([make('x', { labels: {} }), make('y')], { config: hostile }), 'x y');
  });

  test('has one leader, the same everywhere, that moves only when it goes', () => {
    assert.equal(select(fleet, { config: leading }), 'a1');
    assert.equal(select(fleet.slice(1), { config: leading }), 'a2');
    assert.equal(select([make('a', { weight: 0 }), make('b')], { config: leading }), 'b');
    assert.equal(select([make('a', { weight: 0 })], { config: leading }), 'a');
    assert.equal(select([], { config: leading }), '');
    const far = { ...SCENE, host: { name: 'other', labels: { zone: 'c' } } };
    const config = { leader: true, locality: PREFER, subset: { size: 1 } };
    assert.deepEqual(selectInstances(inputOf(fleet, { config }), far).instances, [fleet[0]]);
  });

  test('a hold on a leader gives it no traffic from here, and leads nobody else', () => {
    const holds = new Map([[instanceId(fleet[0]!), 'maint' as const]]);
    assert.equal(select(fleet, { config: leading, holds }), 'a1');
  });

  test('is the fallback while nothing else can serve', () => {
    const fallback = [make('f')];
    assert.equal(select(fleet, { fallback }), 'a1 a2 b1 c1');
    assert.equal(select([], { fallback }), 'fallback f');
    assert.equal(select([make('a', { host: 'unusable' })], { fallback }), 'fallback a f');
    assert.equal(select([make('a', { weight: 0 })], { fallback }), 'fallback a f');
    assert.equal(select([make('f', { weight: 0 })], { fallback }), 'fallback f');
  });

  test('is the fallback rather than what is merely kept', () => {
    const entry = { instances: fleet, kept: true };
    assert.equal(select([], { entry, fallback: [make('f')] }), 'fallback f');
    assert.equal(select([], { entry }), 'a1 a2 b1 c1');
  });

  test('holds stay members, wherever they are, and another one serves in their place', () => {
    const many = Array.from({ length: 20 }, (_, index) => make(`i${index}`)).toSorted(compareInstances);
    const config = { leader: false, locality: undefined, subset: { size: 3 } };
    const before = new Set(selectInstances(inputOf(many, { config }), SCENE).instances);
    const [member, outsider] = [[...before][0]!, many.find((instance) => !before.has(instance))!];
    const withHold = (held: Instance) =>
      new Set(
        selectInstances(inputOf(many, { config, holds: new Map([[instanceId(held), 'drain']]) }), SCENE)
          .instances,
      );
    const [inside, outside] = [withHold(member), withHold(outsider)];
    assert.equal(inside.size, 4);
    for (const instance of before) assert.ok(inside.has(instance) && outside.has(instance));
    assert.deepEqual([outside.size, outside.has(outsider)], [4, true]);
  });
});

const labelled = fc
  .uniqueArray(fc.tuple(fc.integer({ min: 0, max: 30 }), fc.constantFrom('a', 'b', 'c'), fc.boolean()), {
    selector: ([index]) => index,
    maxLength: 15,
  })
  .map((list) =>
    list
      .map(([index, zone, isEuropean]) => at(`i${index}`, zone, isEuropean ? 'eu' : 'us'))
      .toSorted(compareInstances),
  );
const locality = fc.record({
  prefer: fc.constantFrom<string[]>(
    ['zone'],
    ['zone', 'region'],
    ['region'],
    ['region', 'zone'],
    ['nothing'],
  ),
  spillBelow: fc.integer({ min: 1, max: 5 }),
});

describe('near and far', () => {
  test('losing an instance removes no other, and one that joins adds none from farther away', () => {
    fc.assert(
      fc.property(labelled, locality, fc.nat(), (instances, policy, index) => {
        if (instances.length === 0) return;
        const lost = instances[index % instances.length];
        const more = preferNear(instances, policy, HOST.labels, all);
        const fewer = preferNear(
          instances.filter((one) => one !== lost),
          policy,
          HOST.labels,
          all,
        );
        for (const instance of more) if (instance !== lost) assert.ok(fewer.includes(instance));
      }),
      { numRuns: 500 },
    );
  });

  test('there are always enough, or all', () => {
    fc.assert(
      fc.property(labelled, locality, (instances, policy) => {
        const chosen = preferNear(instances, policy, HOST.labels, all);
        assert.ok(chosen.length >= Math.min(policy.spillBelow, instances.length));
        assert.deepEqual(
          chosen,
          instances.filter((instance) => chosen.includes(instance)),
        );
      }),
    );
  });
});

const weighted = fc
  .uniqueArray(fc.tuple(fc.nat({ max: 60 }), fc.constantFrom(0, 1, 1, 1)), {
    selector: ([index]) => index,
    maxLength: 40,
  })
  .map((list) => list.map(([index, weight]) => make(`i${index}`, { weight })).toSorted(compareInstances));
const serves = ({ weight }: Instance) => weight !== 0;

describe('a subset', () => {
  test('changes by at most one member when an instance comes or goes', () => {
    fc.assert(
      fc.property(weighted, fc.integer({ min: 1, max: 12 }), fc.nat(), (instances, size, index) => {
        if (instances.length === 0) return;
        const lost = instances[index % instances.length];
        const rest = instances.filter((one) => one !== lost);
        const before = chooseSubset(instances, size, 'host-1', serves);
        const after = chooseSubset(rest, size, 'host-1', serves);
        assert.equal(before.length, Math.min(size, instances.length));
        const joined = after.filter((instance) => !before.includes(instance));
        const left = before.filter((instance) => !after.includes(instance));
        assert.ok(joined.length <= 1 && left.length <= 1);
        assert.ok(left.every((instance) => instance === lost));
      }),
      { numRuns: 500 },
    );
  });

  test('gives no place to an instance without traffic while another one wants it', () => {
    fc.assert(
      fc.property(weighted, fc.integer({ min: 1, max: 12 }), (instances, size) => {
        const chosen = chooseSubset(instances, size, 'host-1', serves);
        const wanting = instances.filter(serves).length;
        assert.equal(chosen.filter(serves).length, Math.min(size, wanting));
        assert.deepEqual(
          chosen.filter(serves),
          chooseSubset(instances.filter(serves), size, 'host-1', serves),
        );
      }),
    );
  });

  test('of a thousand hosts falls evenly on all instances', () => {
    const instances = Array.from({ length: 100 }, (_, index) =>
      make(`i-${String(index).padStart(4, '0')}`, { host: `10.0.0.${index}` }),
    );
    const uses = new Map(instances.map((instance) => [instance, 0]));
    for (let host = 0; host < 1_000; host += 1)
      for (const instance of chooseSubset(instances, 10, `web-${host}.example.com`, all))
        uses.set(instance, (uses.get(instance) ?? 0) + 1);
    // 100 each, with a standard deviation of about 9.5.
    const counts = [...uses.values()];
    assert.ok(Math.min(...counts) > 60 && Math.max(...counts) < 140, counts.join(' '));
  });

  test('of equals is the same however often it is asked for', () => {
    const instances = [make('a'), make('b'), make('c')];
    assert.deepEqual(chooseSubset(instances, 2, 'h', all), chooseSubset([...instances], 2, 'h', all));
    assert.equal(chooseSubset(instances, 3, 'h', all), instances);
    assert.deepEqual(
      chooseLeader(instances, () => false),
      [instances[0]],
    );
  });
});

describe('a selector', () => {
  const fleet = [at('a1', 'a', 'eu'), at('b1', 'b', 'us'), at('b2', 'b', 'us')];

  test('gives the same selection for the same input, and the same array for the same outcome', () => {
    const selector = createSelector(SCENE);
    const config = { ...near, locality: { prefer: ['zone'], spillBelow: 1 } };
    const input = inputOf(fleet, { config });
    const first = selector.select('web', input);
    assert.equal(selector.select('web', { ...input }), first);
    const entry = { instances: fleet.slice(0, 2), kept: false };
    const second = selector.select('web', { ...input, entry });
    assert.equal(second.instances, first.instances, 'what is far away has changed');
    assert.notEqual(selector.select('api', input).instances, first.instances);
    selector.forget('web');
    assert.notEqual(selector.select('web', input).instances, first.instances);
  });

  test('notices every kind of change', () => {
    const selector = createSelector(SCENE);
    const input = inputOf(fleet);
    const changes: Partial<SelectionInput>[] = [
      { entry: { instances: [], kept: false } },
      { entry: { instances: [], kept: true } },
      { config: leading },
      { fallback: [make('f')], entry: { instances: [], kept: false } },
      { holds: new Map([[instanceId(fleet[1]!), 'drain']]), config: { ...near, subset: { size: 1 } } },
    ];
    for (const change of changes) {
      selector.select('web', input);
      assert.deepEqual(
        selector.select('web', { ...input, ...change }),
        selectInstances({ ...input, ...change }, SCENE),
      );
    }
  });
});

describe('what an operator calls an instance', () => {
  const ids = ['web-1_10.0.0.1:80', 'web-11_10.0.0.2:80', 'web-2_10.0.0.2:8080', '_[::1]:80'] as InstanceId[];

  test('is its id, its name, its endpoint, or a part that only it has', () => {
    const found = (text: string) => findInstances(text, ids);
    assert.deepEqual(found('web-11_10.0.0.2:80'), [ids[1]]);
    assert.deepEqual(found('web-1'), [ids[0]]);
    assert.deepEqual(found('10.0.0.2:80'), [ids[1]]);
    assert.deepEqual(found('[::1]:80'), [ids[3]]);
    assert.deepEqual(found('8080'), [ids[2]]);
    assert.deepEqual(found('10.0.0.2'), [ids[1], ids[2]]);
    assert.deepEqual(found('nobody'), []);
    assert.deepEqual(found(''), []);
  });
});
