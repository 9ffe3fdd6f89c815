import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { codecFor } from '@tandem/core';
import { type Children, createChildren } from '@tandem/registry/testing';
import * as fc from 'fast-check';

const NERVE = codecFor();
const record = (name: string, weight = 1) => JSON.stringify({ host: '10.0.0.1', port: 80, name, weight });
const encoded = (name: string, sequence: number) =>
  `${NERVE.namePrefix({ name, host: '10.0.0.1', port: 80 }, { pathEncoding: true })}${digits(sequence)}`;
const digits = (sequence: number) => String(sequence).padStart(10, '0');
const statOf = (cversion: number, life = 1n) => ({
  czxid: life,
  ctime: life,
  version: 0,
  cversion,
  ephemeralOwner: 0n,
});
const namesIn = (children: Children) => children.take()?.instances.map(({ name }) => name);

function listed(...names: string[]): Children {
  const children = createChildren(codecFor());
  children.list({ children: names, stat: statOf(names.length) });
  for (const name of names) children.read(name, Buffer.from(record(name.split('_')[0] ?? '')));
  children.take();
  return children;
}

describe('children of a path', () => {
  test('nothing is shown before the list is whole, and then everything at once', () => {
    const children = createChildren(codecFor());
    assert.equal(children.isStale, true);
    assert.equal(children.take(), undefined);
    children.list({ children: ['a_0000000001', 'b_0000000002'], stat: statOf(2) });
    assert.deepEqual(children.unread(), ['a_0000000001', 'b_0000000002']);
    children.read('a_0000000001', Buffer.from(record('a')));
    assert.equal(children.take(), undefined);
    children.read('b_0000000002', Buffer.from(record('b')));
    assert.deepEqual(namesIn(children), ['a', 'b']);
    assert.equal(children.take(), undefined, 'the same is not shown twice');
  });

  test('a path that is not there is shown empty', () => {
    const children = createChildren(codecFor());
    children.list(undefined);
    assert.deepEqual(children.take(), { instances: [], rejected: [] });
  });

  test('a record that replaces another one is there before the other goes, however late its data come', () => {
    const children = listed('a_0000000001');
    children.created('a_0000000002');
    children.deleted('a_0000000001');
    assert.equal(children.take(), undefined);
    children.read('a_0000000002', Buffer.from(record('a', 7)));
    assert.deepEqual(
      children.take()?.instances.map(({ weight }) => weight),
      [7],
    );
  });

  test('what was replaced before it could be read leaves no gap', () => {
    const children = listed('a_0000000001');
    children.created('a_0000000002');
    children.deleted('a_0000000001');
    children.created('a_0000000003');
    children.deleted('a_0000000002');
    children.read('a_0000000002', undefined);
    assert.equal(children.take(), undefined);
    children.read('a_0000000003', Buffer.from(record('a', 3)));
    assert.equal(children.take()?.instances.length, 1);
  });

  test('a name in path encoding needs no read', () => {
    const children = listed();
    children.created(encoded('a', 1));
    assert.deepEqual(children.unread(), []);
    assert.deepEqual(namesIn(children), ['a']);
  });

  test('a counter that does not fit tells of a missed event; one that does, of none', () => {
    const children = listed('a_0000000001');
    children.created(encoded('b', 2));
    children.deleted('a_0000000001');
    children.check(statOf(3));
    assert.equal(children.isStale, false);
    children.check(statOf(4));
    assert.equal(children.isStale, true);
  });

  test('the counter of another life of the path proves nothing', () => {
    const children = listed('a_0000000001');
    children.check(statOf(1, 2n));
    assert.equal(children.isStale, true);
  });

  test('names of another life of the path are other nodes', () => {
    const children = listed('a_0000000001');
    children.list({ children: ['a_0000000001'], stat: statOf(1, 2n) });
    assert.deepEqual(children.unread(), ['a_0000000001']);
  });

  test('a name that came again while the list was stale is another node', () => {
    const children = listed('a_');
    children.suspect();
    children.deleted('a_');
    children.created('a_');
    children.list({ children: ['a_'], stat: statOf(3) });
    assert.deepEqual(children.unread(), ['a_']);
  });

  test('an event that contradicts what is known asks for the list', () => {
    for (const contradict of [
      (children: Children) => children.created('a_0000000001'),
      (children: Children) => children.deleted('z_0000000009'),
      (children: Children) => {
        children.created('n_0000000002');
        children.read('n_0000000002', undefined);
      },
    ]) {
      const children = listed('a_0000000001');
      contradict(children);
      assert.equal(children.isStale, true);
    }
  });

  test('after a reconnect only what may have changed unseen is read again, and nothing seems to have changed', () => {
    const children = listed('a_0000000001', 'fixed_');
    children.doubt();
    assert.deepEqual(children.unread(), ['fixed_']);
    assert.equal(children.take(), undefined);
    children.read('fixed_', Buffer.from(record('fixed')));
    assert.equal(children.take(), undefined);
  });

  test('changed data replace the old ones when they are read, in any format of name', () => {
    for (const name of ['a_', 'a_0000000001']) {
      const children = listed(name);
      children.changed(name);
      assert.equal(children.take(), undefined);
      children.read(name, Buffer.from(record('a', 9)));
      assert.equal(children.take()?.instances[0]?.weight, 9);
    }
  });

  test('a child that may not be read costs itself only, and is asked for again when told to', () => {
    const children = listed();
    children.created('a_0000000001');
    children.created('b_0000000002');
    children.refuse('a_0000000001', 'may not be read');
    children.read('b_0000000002', Buffer.from(record('b')));
    const shown = children.take();
    assert.equal(shown?.instances.length, 1);
    assert.deepEqual(shown.rejected, [{ place: 'a_0000000001', reason: 'may not be read' }]);
    assert.equal(children.hasRefused, true);
    children.retryRefused();
    assert.deepEqual(children.unread(), ['a_0000000001']);
    children.read('a_0000000001', Buffer.from(record('a')));
    assert.deepEqual(namesIn(children), ['a', 'b']);
    assert.equal(children.hasRefused, false);
  });

  test('a child that is never answered holds back any number of changes in little memory', () => {
    const children = listed();
    children.created('mute_0000000001');
    for (let change = 0; change < 10_000; change += 1) {
      children.created(encoded('a', change));
      if (change > 0) children.deleted(encoded('a', change - 1));
    }
    assert.equal(children.take(), undefined);
    children.read('mute_0000000001', Buffer.from(record('mute')));
    assert.deepEqual(namesIn(children), ['a', 'mute']);
  });

  test('of many nodes of one instance the newest counts, in whatever order they came', () => {
    const names = Array.from({ length: 40 }, (_, index) => `a_${digits((index * 7) % 40)}`);
    const children = createChildren(codecFor());
    children.list({ children: names, stat: statOf(40) });
    for (const name of names) children.read(name, Buffer.from(record('a', Number(name.slice(-10)))));
    assert.deepEqual(
      children.take()?.instances.map(({ weight }) => weight),
      [39],
    );
  });
});

test('children of a path: of two nodes of one instance without a number always the same one counts', () => {
  const orders = [
    ['a_', 'b_'],
    ['b_', 'a_'],
  ];
  const shown = orders.map((names) => {
    const children = createChildren(codecFor());
    children.list({ children: names, stat: statOf(2) });
    for (const name of names) children.read(name, Buffer.from(record('same', name === 'a_' ? 1 : 2)));
    return children.take()?.instances.map(({ weight }) => weight);
  });
  assert.deepEqual(shown, [[1], [1]]);
});

/** A path on a server, and the wire to one client: answers and events in one order. */
class Wire {
  readonly children = createChildren(codecFor());
  readonly truths: string[] = [];
  #nodes = new Map<string, string>();
  #life = 1n;
  #cversion = 0;
  #sequence = 0;
  #queue: (() => void)[] = [];
  #isWatched = false;

  constructor() {
    this.#note();
  }

  get truth(): string {
    return [...this.#nodes.keys()].toSorted().join(' ');
  }

  #note(): void {
    this.truths.push(this.truth);
  }

  #event(deliver: (children: Children) => void): void {
    if (this.#isWatched) this.#queue.push(() => deliver(this.children));
  }

  create(kind: 'plain' | 'encoded' | 'fixed'): void {
    this.#sequence += 1;
    const label = `i${this.#sequence % 5}`;
    const name =
      kind === 'fixed'
        ? `${label}_`
        : kind === 'plain'
          ? `${label}_${digits(this.#sequence)}`
          : encoded(label, this.#sequence);
    if (this.#nodes.has(name)) return;
    this.#nodes.set(name, record(name, this.#sequence));
    this.#cversion += 1;
    this.#note();
    this.#event((children) => children.created(name));
  }

  remove(index: number): void {
    const name = [...this.#nodes.keys()][index % Math.max(1, this.#nodes.size)];
    if (name === undefined) return;
    this.#nodes.delete(name);
    this.#cversion += 1;
    this.#note();
    this.#event((children) => children.deleted(name));
  }

  change(index: number): void {
    const fixed = [...this.#nodes.keys()].filter((name) => name.endsWith('_'));
    const name = fixed[index % Math.max(1, fixed.length)];
    if (name === undefined) return;
    this.#sequence += 1;
    this.#nodes.set(name, record(name, this.#sequence));
    this.#event((children) => children.changed(name));
  }

  renew(): void {
    while (this.#nodes.size > 0) this.remove(0);
    this.#event((children) => children.ended());
    this.#life += 1n;
    this.#cversion = 0;
    this.#event((children) => children.suspect());
  }

  cut(): void {
    this.#queue = [];
    this.#isWatched = false;
  }

  /** What the client asks for, as the server has it now; the answer is delivered after what was sent before. */
  ask(): void {
    if (!this.#isWatched) {
      this.#isWatched = true;
      this.children.doubt();
      const stat = statOf(this.#cversion, this.#life);
      if (!this.children.isStale) this.#queue.push(() => this.children.check(stat));
    } else if (this.children.isStale) {
      const listing = { children: [...this.#nodes.keys()], stat: statOf(this.#cversion, this.#life) };
      this.#queue.push(() => this.children.list(listing));
    } else {
      for (const name of this.children.unread()) {
        const data = this.#nodes.get(name);
        this.#queue.push(() => this.children.read(name, data === undefined ? undefined : Buffer.from(data)));
      }
    }
  }

  deliver(count: number): void {
    for (const arrive of this.#queue.splice(0, count)) arrive();
  }

  /** The weight of every instance, as its writer wrote it last. */
  get weights(): string[] {
    const weights = [...this.#nodes].map(([name, data]) => {
      const { ok } = NERVE.decodeName(name) ?? { ok: false };
      return ok ? '' : `${name} ${(JSON.parse(data) as { weight: number }).weight}`;
    });
    return weights.filter((text) => text !== '').toSorted();
  }
}

test('whatever happens in whatever order: only what was true is shown, in its order, and at the end the truth', () => {
  const action = fc.oneof(
    fc.constantFrom('plain', 'encoded', 'fixed').map((kind) => (wire: Wire) => wire.create(kind)),
    fc.nat(9).map((index) => (wire: Wire) => wire.remove(index)),
    fc.nat(9).map((index) => (wire: Wire) => wire.change(index)),
    fc.integer({ min: 1, max: 4 }).map((count) => (wire: Wire) => wire.deliver(count)),
    fc.constant((wire: Wire) => wire.ask()),
    fc.constant((wire: Wire) => wire.ask()),
    fc.constant((wire: Wire) => wire.cut()),
    fc.constant((wire: Wire) => wire.renew()),
  );
  fc.assert(
    fc.property(fc.array(action, { maxLength: 120 }), (actions) => {
      const wire = new Wire();
      let shown: readonly string[] = [];
      let weights: readonly string[] = [];
      let seen = 0;
      const look = () => {
        const snapshot = wire.children.take();
        if (snapshot === undefined) return;
        shown = snapshot.instances.map((instance) => instance.name);
        weights = snapshot.instances.flatMap(({ name, weight }) =>
          weight === undefined ? [] : [`${name} ${weight}`],
        );
        // Every instance of this test has its node's name, or is in path encoding: names say which state this is.
        const truths = wire.truths.map((truth) => instancesIn(truth));
        const state = [...shown].toSorted().join(' ');
        const found = truths.indexOf(state, seen);
        assert.notEqual(found, -1, `never after state ${seen}: [${state}]`);
        seen = found;
      };
      for (const act of actions) {
        act(wire);
        look();
      }
      for (let round = 0; round < 6; round += 1) {
        wire.ask();
        wire.deliver(1_000);
        look();
      }
      assert.equal(wire.children.isStale, false);
      assert.deepEqual(wire.children.unread(), []);
      assert.equal([...shown].toSorted().join(' '), instancesIn(wire.truth));
      assert.deepEqual([...weights].toSorted(), wire.weights);
    }),
    { numRuns: 2_000 },
  );
});

/** The instances that the nodes of these names announce, each once. */
function instancesIn(truth: string): string {
  const names = truth
    .split(' ')
    .filter((name) => name !== '')
    .map((name) => {
      const decoded = NERVE.decodeName(name);
      return decoded?.ok === true ? decoded.instance.name : name;
    });
  return [...new Set(names)].toSorted().join(' ');
}
