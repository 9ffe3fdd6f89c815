import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import {
  BAD_VERSION,
  create,
  exists,
  getChildren,
  getData,
  multiRead,
  JuteReader,
  JuteWriter,
  NO_NODE,
  NODE_EXISTS,
  OPCODE,
  refusal,
  remove,
  removeWatches,
  setRecursiveWatches,
  setData,
  sync,
} from '@tandem/registry/testing';
import { isTandemError } from '@tandem/core';
import * as fc from 'fast-check';

import { WireReader, WireWriter } from '../../support/zookeeper-wire.ts';

function stat(owner = 0n): Buffer {
  const writer = new WireWriter();
  for (const long of [11n, 12n, 1_700_000_000_000n, 14n]) writer.long(long);
  for (const int of [15, 16, 17]) writer.int(int);
  return writer.long(owner).int(18).int(19).long(20n).bytes();
}

const STAT = { czxid: 11n, ctime: 1_700_000_000_000n, version: 15, cversion: 16, ephemeralOwner: -5n };

describe('opcodes: what goes over the wire', () => {
  test('a create carries path, data, an open ACL and its mode', () => {
    for (const [mode, flags] of [
      ['persistent', 0],
      ['ephemeral', 1],
      ['persistent-sequential', 2],
      ['ephemeral-sequential', 3],
    ] as const) {
      const operation = create('/ü/x_', '{"a":"ö"}', mode);
      assert.equal(operation.opcode, OPCODE.create);
      const reader = new WireReader(operation.body);
      assert.equal(reader.text(), '/ü/x_');
      assert.equal(reader.text(), '{"a":"ö"}');
      const acl = reader.vector((item) => [item.int(), item.text(), item.text()]);
      assert.deepEqual(acl, [[31, 'world', 'anyone']]);
      assert.equal(reader.int(), flags);
      assert.equal(reader.remaining, 0);
    }
  });

  test('a create for its creator alone names whoever asks, and gives every right', () => {
    const reader = new WireReader(create('/a', '', 'persistent', 'creator-all').body);
    assert.deepEqual([reader.text(), reader.text()], ['/a', '']);
    const acl = reader.vector((item) => [item.int(), item.text(), item.text()]);
    assert.deepEqual(acl, [[31, 'auth', '']]);
    assert.deepEqual([reader.int(), reader.remaining], [0, 0]);
  });

  test('a delete asks for any version', () => {
    const reader = new WireReader(remove('/a').body);
    assert.deepEqual([reader.text(), reader.int(), reader.remaining], ['/a', -1, 0]);
  });

  test('a delete of what was seen asks for its version', () => {
    const reader = new WireReader(remove('/a', 7).body);
    assert.deepEqual([reader.text(), reader.int(), reader.remaining], ['/a', 7, 0]);
  });

  test('a write carries path, data and the version that it replaces', () => {
    const operation = setData('/ü', '{"a":"ö"}', 3);
    const reader = new WireReader(operation.body);
    assert.deepEqual(
      [operation.opcode, reader.text(), reader.text(), reader.int(), reader.remaining],
      [5, '/ü', '{"a":"ö"}', 3, 0],
    );
  });

  test('a sync carries its path alone', () => {
    const reader = new WireReader(sync('/a').body);
    assert.deepEqual([sync('/a').opcode, reader.text(), reader.remaining], [9, '/a', 0]);
  });

  for (const operation of [exists, getData, getChildren]) {
    test(`${operation.name} asks for a watch only when told to`, () => {
      for (const [made, isWatched] of [
        [operation('/a'), false],
        [operation('/a', true), true],
      ] as const) {
        const reader = new WireReader(made.body);
        assert.deepEqual([reader.text(), reader.boolean(), reader.remaining], ['/a', isWatched, 0]);
      }
    });
  }
});

describe('opcodes: persistent watches and reads in one go', () => {
  test('recursive watches are set in one request, which tells whether the server has such things', () => {
    const operation = setRecursiveWatches(['/a', '/b']);
    const reader = new WireReader(operation.body);
    assert.deepEqual([operation.opcode, reader.long()], [105, 0n]);
    assert.deepEqual([reader.texts(), reader.texts(), reader.texts(), reader.texts()], [[], [], [], []]);
    assert.deepEqual([reader.texts(), reader.remaining], [['/a', '/b'], 0]);
    assert.equal(operation.parse(new JuteReader(Buffer.alloc(0))), true);
    assert.deepEqual(operation.recover?.(-6), { value: false });
    assert.equal(operation.recover?.(-102), undefined);
  });

  test('removeWatches takes every kind off a path, and does not mind when there is none', () => {
    const operation = removeWatches('/a');
    const reader = new WireReader(operation.body);
    assert.deepEqual([operation.opcode, reader.text(), reader.int(), reader.remaining], [18, '/a', 3, 0]);
    assert.notEqual(operation.recover?.(-121), undefined);
  });

  test('several reads go in one request, without watches, and end with the end of the list', () => {
    const operation = multiRead([
      { kind: 'data', path: '/a' },
      { kind: 'children', path: '/b' },
    ]);
    const reader = new WireReader(operation.body);
    for (const [opcode, path] of [
      [4, '/a'],
      [8, '/b'],
    ])
      assert.deepEqual(
        [reader.int(), reader.boolean(), reader.int(), reader.text(), reader.boolean()],
        [opcode, false, -1, path, false],
      );
    assert.deepEqual([reader.int(), reader.boolean(), reader.int(), reader.remaining], [-1, true, -1, 0]);
  });

  test('of several reads each has its own outcome: data, names, no such node, not permitted', () => {
    const answer = new WireWriter();
    const header = (type: number, code = 0) => answer.int(type).boolean(false).int(code);
    header(4).text('{}').raw(stat(-5n));
    header(8).texts(['x', 'y']);
    header(-1, -101).int(-101);
    header(-1, -102).int(-102);
    answer.int(-1).boolean(true).int(-1);
    const outcomes = multiRead([]).parse(new JuteReader(answer.bytes()));
    assert.deepEqual(outcomes, [
      { kind: 'data', data: Buffer.from('{}'), stat: STAT },
      { kind: 'children', children: ['x', 'y'] },
      { kind: 'missing' },
      { kind: 'refused', code: -102 },
    ]);
  });

  test('an answer of several reads that is cut short, or of something else, throws', () => {
    const answer = new WireWriter().int(4).boolean(false).int(0).text('{}').raw(stat()).bytes();
    for (let length = 0; length <= answer.length; length += 1)
      assert.throws(() => multiRead([]).parse(new JuteReader(answer.subarray(0, length))), RangeError);
    const other = new WireWriter().int(5).boolean(false).int(0).bytes();
    assert.throws(() => multiRead([]).parse(new JuteReader(other)), RangeError);
  });
});

describe('opcodes: what comes back', () => {
  test('a created node has the name that the server gave it', () => {
    const answer = new WireWriter().text('/a/x_0000000001').bytes();
    assert.deepEqual(create('/a/x_', '', 'ephemeral-sequential').parse(new JuteReader(answer)), {
      kind: 'created',
      path: '/a/x_0000000001',
    });
  });

  test('the data of a node, its owner and its birth', () => {
    const answer = new WireWriter().text('{}').raw(stat(-5n)).bytes();
    const read = getData('/a').parse(new JuteReader(answer));
    assert.deepEqual(read, { data: Buffer.from('{}'), stat: STAT });
  });

  test('data that are kept do not keep the chunk alive in which they came', () => {
    const answer = new WireWriter().text('x'.repeat(50_000)).raw(stat()).bytes();
    const read = getData('/a').parse(new JuteReader(answer));
    assert.notEqual(read?.data.buffer, answer.buffer);
  });

  test('a node without data reads as empty', () => {
    const answer = new WireWriter().text(null).raw(stat()).bytes();
    assert.equal(getData('/a').parse(new JuteReader(answer))?.data.length, 0);
  });

  test('the children and the birth of their parent', () => {
    const answer = new WireWriter().texts(['a', 'ü', '']).raw(stat(-5n)).bytes();
    const listing = getChildren('/a').parse(new JuteReader(answer));
    assert.deepEqual(listing, { children: ['a', 'ü', ''], stat: STAT });
  });

  test('what is expected is a value: missing nodes, parents that are missing, names that are taken', () => {
    for (const operation of [exists('/a'), getData('/a'), getChildren('/a'), remove('/a')])
      assert.deepEqual(operation.recover?.(NO_NODE), { value: undefined });
    const wish = create('/a/b', '', 'persistent');
    assert.deepEqual(wish.recover?.(NO_NODE), { value: { kind: 'no-parent' } });
    assert.deepEqual(wish.recover?.(NODE_EXISTS), { value: { kind: 'exists' } });
    const write = setData('/a', '', 1);
    assert.deepEqual(write.recover?.(NO_NODE), { value: 'missing' });
    assert.deepEqual(write.recover?.(BAD_VERSION), { value: 'other-version' });
    assert.equal(write.recover?.(-102), undefined);
    for (const operation of [exists('/a'), getData('/a'), getChildren('/a'), remove('/a'), wish])
      assert.equal(operation.recover?.(-102), undefined);
  });

  test('a watch stands where the server has set one', () => {
    const kinds = (operation: ReturnType<typeof exists> | ReturnType<typeof getData>) =>
      [0, NO_NODE, -102].map((code) => operation.watchKind?.(code));
    assert.deepEqual(kinds(exists('/a', true)), ['data', 'exist', undefined]);
    assert.deepEqual(kinds(getData('/a', true)), ['data', undefined, undefined]);
    const listing = getChildren('/a', true);
    assert.deepEqual(
      [0, NO_NODE, -102].map((code) => listing.watchKind?.(code)),
      ['child', undefined, undefined],
    );
  });

  test('a refusal names the operation, the path and the code, also one that nobody has heard of', () => {
    for (const [code, name] of [
      [-102, 'NO_AUTH'],
      [-125, 'QUOTA_EXCEEDED'],
      [-999, 'CODE_-999'],
    ] as const) {
      const error = refusal(remove('/a'), code);
      assert.ok(isTandemError(error, 'REGISTRY_REFUSED'));
      assert.match(error.message, /delete \/a/);
      assert.ok(error.message.includes(name));
      assert.equal(error.details['zookeeperCode'], code);
    }
  });
});

describe('jute', () => {
  test('everything that is written is read again', () => {
    fc.assert(
      fc.property(
        fc.array(fc.string({ unit: 'binary', maxLength: 20 }), { maxLength: 10 }),
        fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
        fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
        (texts, long, int) => {
          const whole = texts.map((text) => Buffer.from(text).toString());
          const bytes = new JuteWriter()
            .vector(whole, (writer, text) => writer.text(text))
            .long(long)
            .int(int)
            .toBuffer();
          const reader = new JuteReader(bytes);
          assert.deepEqual(
            reader.vector((item) => item.text()),
            whole,
          );
          assert.deepEqual([reader.long(), reader.int()], [long, int]);
        },
      ),
    );
  });

  test('an answer that is cut anywhere throws a RangeError and is never read beyond its end', () => {
    const whole = new WireWriter().texts(['a', 'bc']).raw(stat()).bytes();
    for (let length = 0; length < whole.length; length += 1) {
      const part = new JuteReader(whole.subarray(0, length));
      assert.throws(() => getChildren('/a').parse(part), RangeError);
    }
  });

  test('a length of a billion items in a short answer ends at its end', () => {
    const answer = new WireWriter().int(1_000_000_000).text('a').bytes();
    assert.throws(() => getChildren('/a').parse(new JuteReader(answer)), RangeError);
  });
});
