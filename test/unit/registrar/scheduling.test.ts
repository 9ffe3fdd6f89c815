import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Check, ProbeResult } from '@tandem/registrar';

import { createScriptedCheck } from './scripted.ts';
import { enter } from './scene.ts';
import { createManualClock } from './manual-clock.ts';
import { registration } from './support.ts';

function many(count: number, interval: string) {
  return Array.from({ length: count }, (_, index) =>
    registration(`s${index}`, { port: index + 1, checks: [{ tcp: { interval, timeout: '100ms' } }] }),
  );
}

/** A check that notes when it was probed. */
function createTimedCheck(now: () => number): Check & { readonly times: number[] } {
  const times: number[] = [];
  return {
    kind: 'timed',
    times,
    probe() {
      times.push(now());
      return Promise.resolve<ProbeResult>({ ok: true });
    },
  };
}

test('checks that begin together drift apart, and each keeps its interval on average', async (t) => {
  let seed = 1;
  const random = () => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed / 2_147_483_647;
  };
  const clock = createManualClock(random);
  const checks: (Check & { readonly times: number[] })[] = [];
  const createCheck = () => {
    const check = createTimedCheck(() => clock.now());
    checks.push(check);
    return check;
  };
  const { registrar } = await enter(t, { clock, createCheck });
  const start = clock.now();
  registrar.update(many(100, '1s'));
  await clock.advance(30_000);
  assert.ok(checks.every(({ times }) => (times[0] ?? Infinity) - start <= 60));
  const rounds = checks.map(({ times }) => times.length);
  assert.ok(
    rounds.every((count) => count >= 28 && count <= 33),
    String(rounds),
  );
  // No tenth of a second has many more than its share of the probes in it.
  const tenths = Array.from({ length: 10 }, () => 0);
  for (const { times } of checks) {
    const last = times.findLast((time) => time <= start + 29_000) ?? start;
    const tenth = Math.floor(((last - start) % 1_000) / 100);
    tenths[tenth] = (tenths[tenth] ?? 0) + 1;
  }
  assert.ok(Math.max(...tenths) <= 30, String(tenths));
});

test('after a stall nothing is made up for, and not everything is probed in the same moment', async (t) => {
  const clock = createManualClock();
  const checks: (Check & { readonly times: number[] })[] = [];
  const createCheck = () => {
    const check = createTimedCheck(() => clock.now());
    checks.push(check);
    return check;
  };
  const { registrar } = await enter(t, { clock, createCheck });
  registrar.update(many(500, '1s'));
  await clock.advance(3_000);
  for (const { times } of checks) times.length = 0;
  clock.stall(60_000);
  const since = clock.now();
  assert.deepEqual(registrar.overdue(), []);
  await clock.advance(600);
  assert.ok(
    checks.every(({ times }) => times.length <= 1),
    'none is probed twice',
  );
  const soon = checks.filter(({ times }) => (times[0] ?? Infinity) - since < 20);
  assert.ok(soon.length < 120, `${soon.length} in the first moment`);
  await clock.advance(600);
  assert.ok(checks.every(({ times }) => times.length >= 1));
  assert.deepEqual(registrar.overdue(), []);
});

test('a probe that does not end at its deadline is not begun a second time, is said once, and holds nobody up', async (t) => {
  const check = createScriptedCheck('ignore');
  const scene = await enter(t, { checks: { 1: check, 2: createScriptedCheck('pass') } });
  const { registrar, clock } = scene;
  registrar.update(many(2, '1s'));
  await clock.advance(10_000);
  assert.equal(check.probes, 1);
  assert.equal(scene.said('a probe does not end, none is begun before it has'), 1);
  const [stuck, sound] = registrar.status();
  assert.deepEqual([stuck?.health, stuck?.checks[0]?.reason], ['down', 'timed out after 100 ms']);
  assert.equal(sound?.announced, true);
  assert.deepEqual(
    registrar.overdue(),
    [],
    'that is the fault of the check, and restarting would not mend it',
  );
});

test('a check without progress is overdue', async (t) => {
  const clock = createManualClock();
  const lost = new Set<string>();
  // A timer that never comes back.
  const leaky = {
    ...clock,
    after: (ms: number, task: () => void) => (lost.has(`${ms}`) ? () => {} : clock.after(ms, task)),
  };
  const { registrar } = await enter(t, { clock: leaky, checks: { 1: createScriptedCheck('pass') } });
  lost.add('3000');
  registrar.update(many(1, '3s'));
  await clock.advance(7_900);
  assert.deepEqual(registrar.overdue(), []);
  await clock.advance(200);
  assert.deepEqual(registrar.overdue(), ['s0 checks[0].tcp']);
});

test('what cannot be got ready has failed after a while', async (t) => {
  const check: Check = {
    kind: 'never',
    prepare: () => new Promise(() => {}),
    probe: () => Promise.resolve({ ok: true }),
  };
  const { registrar, clock } = await enter(t, { createCheck: () => check });
  registrar.update(many(1, '1s'));
  await clock.advance(30_100);
  assert.equal(registrar.status()[0]?.checks[0]?.reason, 'getting ready took too long');
});

test('a warning is shown with the check that passed', async (t) => {
  const check: Check = {
    kind: 'warning',
    probe: () => Promise.resolve({ ok: true, warning: 'the disk is nearly full' }),
  };
  const { registrar, clock } = await enter(t, { createCheck: () => check });
  registrar.update(many(1, '1s'));
  await clock.advance(100);
  const [status] = registrar.status();
  assert.equal(status?.announced, true);
  assert.equal(status.checks[0]?.warning, 'the disk is nearly full');
});

test('a service that is down to begin with is announced after as many passes as it needs', async (t) => {
  const check = createScriptedCheck('pass');
  const { registrar, registry, clock } = await enter(t, { checks: { 1: check } });
  const tcp = { interval: '1s', timeout: '100ms', rise: 3, initial: 'down' };
  registrar.update([registration('s', { port: 1, checks: [{ tcp }] })]);
  await clock.advance(1_500);
  assert.equal(check.probes, 2);
  assert.equal(registry.standing.size, 0);
  assert.equal(registrar.status()[0]?.health, 'down');
  await clock.advance(1_000);
  assert.equal(registry.standing.size, 1);
});
