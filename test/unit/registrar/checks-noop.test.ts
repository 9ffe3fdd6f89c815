import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { checkOf, NEVER, problemsOf } from './check-support.ts';

describe('noop check', () => {
  test('always passes, until its signal has ended', async () => {
    const check = checkOf({ noop: {} });
    assert.equal(check.kind, 'noop');
    assert.deepEqual(await check.probe(NEVER), { ok: true });
    assert.deepEqual(await check.probe(AbortSignal.abort()), { ok: false, reason: 'called off' });
  });

  test('has nothing but a schedule', () => {
    assert.match(problemsOf('noop: { port: 80 }'), /Known: interval, timeout, rise, fall/);
  });
});
