import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { compilePattern } from '@tandem/registrar/testing';
import * as fc from 'fast-check';

const NEVER = new AbortController().signal;

async function isIn(source: string, text: string): Promise<boolean> {
  const compiled = compilePattern(source);
  assert.ok(compiled.ok, `${source}: ${compiled.ok ? '' : compiled.reason}`);
  return compiled.pattern.isIn(text, NEVER);
}

function refusalOf(source: string): string {
  const compiled = compilePattern(source);
  return compiled.ok ? 'accepted' : compiled.reason;
}

/** Expressions of what is supported, in which anything may stand within anything. */
const expressions = fc.letrec<{ expression: string; atom: string }>((tie) => ({
  atom: fc.oneof(
    fc.constantFrom(
      'a',
      'b',
      'é',
      '🦊',
      '.',
      '\\d',
      '\\w',
      '\\s',
      '[ab]',
      '[^a]',
      '[\\d\\]-]',
      '\\.',
      '\\u{e9}',
    ),
    fc.constantFrom('\\p{L}', '\\n', '\\x61', '\\ud83e\\udd8a', '[🦊-🦊]', '\\S'),
    fc.constantFrom('^', '$', '\\b', '\\B').map((boundary) => `(?:${boundary})`),
    tie('expression').map((inner) => `(${inner})`),
    tie('expression').map((inner) => `(?:${inner})`),
  ),
  expression: fc
    .array(
      fc.tuple(tie('atom'), fc.constantFrom('', '', '', '*', '+', '?', '*?', '{2}', '{0,2}', '{1,}', '{0}')),
      { maxLength: 4 },
    )
    .chain((parts) => {
      const text = parts.map(([atom, quantifier]) => atom + quantifier).join('');
      return fc.constantFrom(text, `${text}|b`, `|${text}`);
    }),
})).expression;

const texts = fc.string({
  unit: fc.constantFrom('a', 'b', 'é', '🦊', '1', ' ', '\n', '.', '-'),
  maxLength: 8,
});

describe('an expression that a body must match', () => {
  test('matches where that of JavaScript does', async () => {
    await fc.assert(
      fc.asyncProperty(expressions, texts, async (source, text) => {
        fc.pre(compilePattern(source).ok);
        assert.equal(await isIn(source, text), new RegExp(source, 'u').test(text), `/${source}/u on ${text}`);
      }),
      { numRuns: 1_000 },
    );
  });

  test('may have names for its groups, and what looks like syntax within a class', async () => {
    assert.equal(await isIn('^(?<state>up|ready)$', 'ready'), true);
    assert.equal(await isIn('[(*|]{2}[\\]]', 'x(|]'), true);
    assert.equal(await isIn('^\\{"a": \\[1\\]\\}$', '{"a": [1]}'), true);
  });

  test('takes time in proportion to the text', { timeout: 60_000 }, async () => {
    const text = 'a'.repeat(64 << 10);
    for (const source of ['(a*)*b', '(a|a)*b', '(a+)+$b', 'a*a*a*a*a*b', '(.*a){20}b', '^(a?){100}a{100}b'])
      assert.equal(await isIn(source, text), false, source);
  });

  test('is given up with its signal', async () => {
    const compiled = compilePattern('[a-z]{1,90}[0-9]');
    assert.ok(compiled.ok);
    const controller = new AbortController();
    const search = compiled.pattern.isIn('a'.repeat(1 << 20), controller.signal);
    controller.abort(new Error('enough'));
    await assert.rejects(search, /enough/);
  });

  test('is refused where it could not be searched in such time, or is none', () => {
    assert.match(refusalOf('(a)\\1'), /must not refer back or look around, as "\\\\1" does/);
    assert.match(refusalOf('(?<n>a)\\k<n>'), /must not refer back/);
    for (const around of ['(?=a)', '(?!a)', '(?<=a)b', '(?<!a)b'])
      assert.match(refusalOf(around), /must not refer back or look around/, around);
    assert.match(refusalOf('(a'), /is not a regular expression: .*Unterminated group/);
    assert.match(refusalOf('a{2000}'), /is too large/);
    assert.match(refusalOf('a'.repeat(1_001)), /is longer than 1000 characters/);
    // Without a part that consumes anything, it would be repeated for years.
    assert.match(refusalOf('((((){999}){999}){999}){999}'), /is too large/);
    assert.match(refusalOf('(){99999999999999}'), /is too large/);
  });
});
