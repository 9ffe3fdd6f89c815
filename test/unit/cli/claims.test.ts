import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { claim, listenClaim, overlap, settleClaims, type Version } from '@tandem/cli/testing';
import * as fc from 'fast-check';

function meet(a: string, b: string, options = ''): boolean {
  const [one, two] = [listenClaim([], a, options), listenClaim([], b)];
  assert.equal(overlap(one, two), overlap(two, one));
  return overlap(one, two);
}

describe('two addresses', () => {
  test('meet when one connection could reach either', () => {
    for (const [a, b] of [
      ['127.0.0.1:80', '127.0.0.1:80'],
      ['*:80', '127.0.0.1:80'],
      ['0.0.0.0:80', '*:80'],
      ['[::]:80', '[::1]:80'],
      ['[::]:80', '127.0.0.1:80'],
      ['[::]:80', '*:80'],
      ['[::1]:80', '[0:0:0:0:0:0:0:1]:80'],
      ['[2001:DB8::1]:80', '[2001:db8::1]:80'],
      ['[::ffff:127.0.0.1]:80', '127.0.0.1:80'],
      ['/run/a.sock', '/run/x/../a.sock'],
    ] as const)
      assert.ok(meet(a, b), `${a} and ${b}`);
  });

  test('do not meet otherwise', () => {
    for (const [a, b] of [
      ['127.0.0.1:80', '127.0.0.1:81'],
      ['127.0.0.1:80', '127.0.0.10:80'],
      ['127.0.0.1:80', '[::1]:80'],
      ['*:80', '[::1]:80'],
      ['[::1]:80', '[::1:0:0]:80'],
      ['/run/a.sock', '/run/a.sock2'],
    ] as const)
      assert.ok(!meet(a, b), `${a} and ${b}`);
    assert.ok(!meet('[::]:80', '127.0.0.1:80', 'ssl v6only'));
    assert.ok(meet('[::]:80', '[::1]:80', 'v6only'));
  });
});

describe('files with claims', () => {
  const ADDRESSES = ['*:1', '127.0.0.1:1', '10.0.0.1:1', '*:2', '127.0.0.1:2', '[::]:2', '[::1]:2'];
  const version = fc
    .uniqueArray(fc.constantFrom(...ADDRESSES), { minLength: 1, maxLength: 2 })
    .filter(([a = '', b = '']) => b === '' || !meet(a, b))
    .map((addresses): Version => ({ claims: addresses.map((address) => listenClaim(['listen'], address)) }));
  const files = fc
    .dictionary(fc.constantFrom('a', 'b', 'c', 'd', 'e'), version)
    .map((found) => new Map(Object.entries(found)));
  const reserved = { file: 'host', claims: [listenClaim([], '10.0.0.1:2')] };

  function meets(a: Version, b: Version): boolean {
    return a.claims.some((one) => b.claims.some((other) => overlap(one, other)));
  }

  test('that are in force never meet, and whoever had a place and still wants it keeps it', () => {
    fc.assert(
      fc.property(fc.array(files, { minLength: 1, maxLength: 6 }), (edits) => {
        let inForce: ReadonlyMap<string, Version> = new Map();
        for (const edit of edits) {
          const { chosen, conflicts } = settleClaims(edit, inForce, reserved);
          for (const [file, one] of chosen) {
            assert.ok(!meets(one, reserved), `${file} has what the host file has`);
            for (const [other, two] of chosen)
              assert.ok(file === other || !meets(one, two), `${file} and ${other}`);
            assert.ok(one === edit.get(file) || one === inForce.get(file));
          }
          for (const [file, wanted] of edit) {
            const before = inForce.get(file);
            const isSettled = before === undefined || chosen.has(file);
            assert.ok(isSettled, `${file} was in force and is gone`);
            const isRefused = conflicts.some((conflict) => conflict.file === file);
            assert.equal(isRefused, chosen.get(file) !== wanted, file);
          }
          inForce = chosen;
        }
      }),
    );
  });

  test('that are new get a place in the order of their names, whatever order they are read in', () => {
    const one = { claims: [claim(['service'], 'web')] };
    const settled = settleClaims(
      new Map([
        ['b', one],
        ['a', { ...one }],
      ]),
      new Map(),
      { file: 'host', claims: [] },
    );

    assert.deepEqual([...settled.chosen.keys()], ['a']);
    assert.deepEqual(
      settled.conflicts.map(({ file, other }) => `${file} ${other}`),
      ['b a'],
    );
  });
});
