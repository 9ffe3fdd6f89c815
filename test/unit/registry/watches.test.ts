import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { createWatchTable, JuteReader } from '@tandem/registry/testing';

const EVENT = { created: 1, deleted: 2, changed: 3, children: 4 } as const;
const KINDS = ['data', 'exist', 'child'] as const;

function decode(body: Buffer) {
  const reader = new JuteReader(body);
  const zxid = reader.long();
  const texts = () => reader.vector((item) => item.text());
  return { zxid, data: texts(), exist: texts(), child: texts() };
}

describe('watch table', () => {
  test('a watch fires once', () => {
    const table = createWatchTable();
    let calls = 0;
    table.add('child', '/a', () => (calls += 1));
    table.fire({ type: EVENT.children, path: '/a' });
    table.fire({ type: EVENT.children, path: '/a' });
    assert.equal(calls, 1);
  });

  test('the same listener counts once for a path, whatever kinds of watches it has there', () => {
    const table = createWatchTable();
    let calls = 0;
    const listener = () => (calls += 1);
    for (let round = 0; round < 1000; round += 1) for (const kind of KINDS) table.add(kind, '/a', listener);
    table.fire({ type: EVENT.deleted, path: '/a' });
    assert.equal(calls, 1);
    assert.deepEqual(table.requests(1n), []);
  });

  for (const [event, kinds] of [
    ['created', ['data', 'exist']],
    ['deleted', ['data', 'exist', 'child']],
    ['changed', ['data', 'exist']],
    ['children', ['child']],
  ] as const) {
    test(`"${event}" uses up the ${kinds.join(' and ')} watches of its path and no others`, () => {
      const table = createWatchTable();
      const heard: string[] = [];
      for (const kind of KINDS) {
        table.add(kind, '/a', () => heard.push(kind));
        table.add(kind, '/b', () => heard.push('another path'));
      }
      table.fire({ type: EVENT[event], path: '/a' });
      assert.deepEqual(heard.toSorted(), [...kinds].toSorted());
    });
  }

  test('events of types that nobody knows are ignored', () => {
    const table = createWatchTable();
    table.add('data', '/a', () => assert.fail('not for us'));
    for (const type of [-2, -1, 0, 5, 6, 7, 99]) table.fire({ type: type, path: '/a' });
    assert.equal(table.requests(1n).length, 1);
  });

  test('a listener may set its watch again while it is called', () => {
    const table = createWatchTable();
    let calls = 0;
    const listener = () => {
      calls += 1;
      table.add('child', '/a', listener);
    };
    listener();
    table.fire({ type: EVENT.children, path: '/a' });
    table.fire({ type: EVENT.children, path: '/a' });
    assert.equal(calls, 3);
  });

  test('forgetting a listener leaves the others of the same path', () => {
    const table = createWatchTable();
    const heard: string[] = [];
    const forgotten = () => heard.push('forgotten');
    table.add('child', '/a', forgotten);
    table.add('child', '/a', () => heard.push('kept'));
    table.add('data', '/only-theirs', forgotten);
    table.forget(forgotten);
    const [body] = table.requests(1n);
    assert.ok(body);
    assert.deepEqual(decode(body), { zxid: 1n, data: [], exist: [], child: ['/a'] });
    table.fire({ type: EVENT.children, path: '/a' });
    assert.deepEqual(heard, ['kept']);
  });

  test('nothing to watch, nothing to send', () => {
    assert.deepEqual(createWatchTable().requests(7n), []);
  });

  test('everything is re-armed, in requests of at most 128 KB', () => {
    const table = createWatchTable();
    const paths = Array.from({ length: 6000 }, (_, index) => `/services/${'ü'.repeat(30)}-${index}`);
    for (const path of paths) for (const kind of KINDS) table.add(kind, path, () => {});
    const bodies = table.requests(-5n);
    for (const body of bodies) assert.ok(body.length <= 128 * 1024, `${body.length} bytes`);
    assert.ok(bodies.length < 20, `${bodies.length} requests`);
    const requests = bodies.map(decode);
    assert.ok(requests.every(({ zxid }) => zxid === -5n));
    for (const kind of KINDS) {
      const sent = requests.flatMap((request) => request[kind]);
      assert.deepEqual(sent.toSorted(), paths.toSorted());
    }
  });

  test('a recursive watch hears of its path and of everything below, again and again, until it is forgotten', () => {
    const table = createWatchTable();
    const heard: string[] = [];
    const listener = ({ type, path }: { type: number; path: string }) => void heard.push(`${type} ${path}`);
    table.addRecursive('/a/b', listener);
    for (const path of ['/a/b', '/a/b/c', '/a/b/c/d', '/a/bc', '/a', '/']) {
      for (const type of [EVENT.created, EVENT.changed, EVENT.deleted]) table.fire({ type, path });
    }
    const below = ['/a/b', '/a/b/c', '/a/b/c/d'];
    assert.deepEqual(
      heard,
      below.flatMap((path) => [EVENT.created, EVENT.changed, EVENT.deleted].map((type) => `${type} ${path}`)),
    );
    assert.deepEqual(table.forget(listener), ['/a/b']);
    table.fire({ type: EVENT.created, path: '/a/b/c' });
    assert.equal(heard.length, 9);
  });

  test('of recursive watches above one another each hears; of two on one path the last to go leaves it unwatched', () => {
    const table = createWatchTable();
    let heard = 0;
    const [root, first, second] = [() => (heard += 1), () => (heard += 1), () => (heard += 1)];
    table.addRecursive('/', root);
    table.addRecursive('/a', first);
    table.addRecursive('/a', second);
    table.fire({ type: EVENT.deleted, path: '/a/b' });
    assert.equal(heard, 3);
    assert.deepEqual(table.forget(first), []);
    assert.deepEqual(table.forget(second), ['/a']);
    assert.deepEqual(table.forget(root), ['/']);
  });

  test('recursive watches are not among those that SetWatches re-arms, and hear nothing of child lists', () => {
    const table = createWatchTable();
    let heard = 0;
    table.addRecursive('/a', () => (heard += 1));
    for (const type of [EVENT.children, 5, 6, 7, -1]) table.fire({ type, path: '/a' });
    assert.equal(heard, 0);
    assert.deepEqual(table.requests(1n), []);
  });
});
