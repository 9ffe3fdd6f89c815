import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';

import { createScriptedCheck, type ScriptedCheck } from './scripted.ts';
import { enter, type Scene, watchOver } from './scene.ts';
import { createFakeRegistry, registration } from './support.ts';

const CHECKS = [{ tcp: { interval: '100ms', timeout: '50ms' } }];
const AT_WEB = '/services/web 80';

function web(register: Record<string, unknown> = {}) {
  return registration('web', { port: 80, checks: CHECKS, ...register });
}

/** Down for a moment, and up again. */
async function flap({ clock }: Scene, check: ScriptedCheck): Promise<void> {
  check.result = 'fail';
  await clock.advance(200);
  check.result = 'pass';
  await clock.advance(200);
}

describe('rate limits', () => {
  test('a service that was announced too often waits for its turn; it is withdrawn whenever it has to be', async (t) => {
    const check = createScriptedCheck('pass');
    const scene = await enter(t, { checks: { 80: check } });
    const { registrar, clock, news } = scene;
    registrar.update([web({ rate_limit: { per: '10s', burst: 2 } })]);
    await clock.advance(200);
    await flap(scene, check);
    news();
    await flap(scene, check);
    assert.deepEqual(news(), [`withdraw ${AT_WEB}`]);
    assert.equal(scene.said('the announcement waits for the rate limit'), 1);
    assert.ok((registrar.status()[0]?.rateLimitedForMs ?? 0) > 0);
    await flap(scene, check);
    assert.deepEqual(news(), [], 'there is nothing to withdraw');
    await clock.advance(9_500);
    assert.deepEqual(news(), [`set ${AT_WEB}`]);
    assert.equal(registrar.status()[0]?.rateLimitedForMs, undefined);
  });

  test('whatever is meant when the turn comes is announced, and nothing when that is nothing', async (t) => {
    const check = createScriptedCheck('pass');
    const scene = await enter(t, { checks: { 80: check } });
    const { registrar, clock, news } = scene;
    const limited = (weight: number) => web({ weight, rate_limit: { per: '10s', burst: 1 } });
    registrar.update([limited(1)]);
    await clock.advance(200);
    news();
    registrar.update([limited(2)]);
    registrar.update([limited(3)]);
    await clock.advance(5_000);
    assert.equal(scene.weight(AT_WEB), 1, 'what stands stays meanwhile');
    await clock.advance(5_000);
    assert.deepEqual(news(), [`set ${AT_WEB}`]);
    assert.equal(scene.weight(AT_WEB), 3);
    registrar.update([limited(4)]);
    check.result = 'fail';
    await clock.advance(20_000);
    assert.deepEqual(news(), [`withdraw ${AT_WEB}`]);
    check.result = 'pass';
    await clock.advance(200);
    assert.equal(scene.weight(AT_WEB), 4, 'nothing was taken for what was not announced');
  });

  test('a shadowed limit holds nothing back, and says what it would', async (t) => {
    const check = createScriptedCheck('pass');
    const scene = await enter(t, { checks: { 80: check } });
    scene.registrar.update([web({ rate_limit: { per: '1h', burst: 1, shadow: true } })]);
    await scene.clock.advance(200);
    for (let times = 0; times < 3; times += 1) await flap(scene, check);
    assert.equal(scene.weight(AT_WEB), 'none');
    assert.equal(scene.said('the rate limit of the service would hold its announcement back'), 3);
  });

  test('the limit of a host is shared in turns, and the one that waits longest is next', async (t) => {
    const rateLimit = { perMs: 1_000, burst: 2, isShadow: false };
    const scene = await enter(t, { settings: { rateLimit } });
    const { registrar, clock, news } = scene;
    const services = ['a', 'b', 'c', 'd', 'e'].map((name, index) => registration(name, { port: index + 1 }));
    registrar.update(services);
    const announced = () =>
      news()
        .filter((note) => note.startsWith('set'))
        .map((note) => note.at(14));
    assert.deepEqual(announced(), ['a', 'b']);
    await clock.advance(1_000);
    assert.deepEqual(announced(), ['c']);
    registrar.update([...services, registration('f', { port: 6 })]);
    // Whoever does not want to any more gives its turn to the next.
    await registrar.drain('d');
    await clock.advance(1_000);
    assert.deepEqual(announced(), ['e']);
    await clock.advance(1_000);
    assert.deepEqual(announced(), ['f']);
  });

  test('what an earlier life had announced already is taken over at once, and at the cost of nothing', async (t) => {
    const stateDir = await mkdtemp(path.join(tmpdir(), 'tandem-limits-'));
    t.after(() => rm(stateDir, { recursive: true }));
    const registry = createFakeRegistry();
    const settings = { rateLimit: { perMs: 1_000, burst: 1, isShadow: false } };
    const services = ['a', 'b', 'c'].map((name, index) => registration(name, { port: index + 1 }));
    const first = await enter(t, { stateDir, registry, settings });
    first.registrar.update(services);
    await first.clock.advance(2_000);
    assert.equal(registry.standing.size, 3);
    await first.registrar.stop();
    first.news();

    const second = await enter(t, { stateDir, registry, settings });
    second.registrar.update([...services, registration('d', { port: 4 })]);
    assert.equal(second.news().filter((note) => note.startsWith('set')).length, 4);
  });

  test('waiting for the registry to agree includes waiting for the turn', async (t) => {
    const scene = await enter(t);
    const { registrar, clock } = scene;
    const limited = (weight: number) =>
      registration('web', { port: 80, weight, rate_limit: { per: '10s', burst: 1 } });
    registrar.update([limited(1)]);
    registrar.update([limited(2)]);
    const agreed = watchOver(registrar.agreed('web', new AbortController().signal));
    await clock.advance(9_000);
    assert.equal(agreed.isOver, false);
    await clock.advance(1_000);
    await agreed.over;
    assert.equal(scene.weight(AT_WEB), 2);
  });
});

describe('flap damping', () => {
  const damped = web({ flap_damping: { max: 2, window: '1m', hold: '30s', max_hold: '2m' } });

  test('a service that goes down too often is held down, visibly, and for longer with each further time', async (t) => {
    const check = createScriptedCheck('pass');
    const scene = await enter(t, { checks: { 80: check } });
    const { registrar, clock, log } = scene;
    registrar.update([damped]);
    await clock.advance(200);
    for (let times = 0; times < 3; times += 1) await flap(scene, check);
    assert.equal(scene.weight(AT_WEB), undefined);
    const [status] = registrar.status();
    assert.equal(status?.health, 'up');
    assert.equal(status?.flapHold?.count, 1);
    assert.ok(status.flapHold.remainingMs > 29_000);
    const line = log.lines.find(({ message }) => message === 'service flaps, holding it down');
    assert.equal(line?.['holdMs'], 30_000);
    assert.match(String(line['until']), /^2023-/);
    await clock.advance(29_000);
    assert.equal(scene.weight(AT_WEB), undefined);
    await clock.advance(1_000);
    assert.equal(scene.weight(AT_WEB), 'none');
    for (let times = 0; times < 3; times += 1) await flap(scene, check);
    assert.ok((registrar.status()[0]?.flapHold?.remainingMs ?? 0) > 59_000);
  });

  test('a hold outlives the registrar, whatever becomes of the wall clock', async (t) => {
    const stateDir = await mkdtemp(path.join(tmpdir(), 'tandem-flap-'));
    t.after(() => rm(stateDir, { recursive: true }));
    const check = createScriptedCheck('pass');
    const first = await enter(t, { stateDir, checks: { 80: check } });
    first.registrar.update([damped]);
    await first.clock.advance(200);
    for (let times = 0; times < 3; times += 1) await flap(first, check);
    await first.registrar.stop();
    for (const [jumpMs, remainsMs] of [
      [0, 29_000],
      [10_000, 19_000],
      [-86_400_000, 119_000],
    ] as const) {
      const second = await enter(t, { stateDir, checks: { 80: check } });
      await second.clock.advance(1_200);
      second.clock.jump(jumpMs);
      second.registrar.update([damped]);
      await second.clock.advance(200);
      assert.equal(second.weight(AT_WEB), undefined);
      const { remainingMs = 0 } = second.registrar.status()[0]?.flapHold ?? {};
      assert.ok(Math.abs(remainingMs - remainsMs) <= 1_500, `${remainingMs} after ${jumpMs}`);
      await second.clock.advance(remainingMs);
      assert.equal(second.weight(AT_WEB), 'none');
      await second.registrar.stop();
    }
  });

  test('is the default of the host where a service does not say otherwise, and no business of a drained one', async (t) => {
    const flapDamping = { max: 1, windowMs: 60_000, holdMs: 30_000, maxHoldMs: 60_000 };
    const checks = { 80: createScriptedCheck('pass') };
    const scene = await enter(t, { checks, settings: { flapDamping } });
    const { registrar, clock } = scene;
    registrar.update([web()]);
    await clock.advance(200);
    await registrar.drain('web');
    for (let times = 0; times < 5; times += 1) await flap(scene, checks[80]);
    await registrar.undrain('web');
    assert.equal(registrar.status()[0]?.flapHold, undefined, 'its deployment may restart it');
    for (let times = 0; times < 2; times += 1) await flap(scene, checks[80]);
    assert.equal(registrar.status()[0]?.flapHold?.count, 1);
    registrar.update([web({ flap_damping: { enabled: false } })]);
    await clock.advance(100);
    assert.equal(scene.weight(AT_WEB), 'none', 'let go as soon as nobody wants it held');
  });
});

describe('a slow start', () => {
  const slow = web({ weight: 100, slow_start: '9s', rate_limit: { per: '1h', burst: 2 } });

  test('grows to the whole weight in steps, which no rate limit holds back, and begins anew after it was down', async (t) => {
    const check = createScriptedCheck('pass');
    const scene = await enter(t, { checks: { 80: check } });
    const { registrar, clock, news } = scene;
    registrar.update([slow]);
    await clock.advance(100);
    const weights = [scene.weight(AT_WEB)];
    for (let second = 1; second <= 9; second += 1) {
      await clock.advance(1_000);
      weights.push(scene.weight(AT_WEB));
    }
    assert.deepEqual(weights, [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
    news();
    await clock.advance(60_000);
    assert.deepEqual(news(), []);
    await flap(scene, check);
    assert.equal(scene.weight(AT_WEB), 10);
    assert.deepEqual(registrar.status()[0]?.weight, { configured: 100, announced: 10 });
  });

  test('is not begun again by another registrar, nor by changes of the configuration', async (t) => {
    const stateDir = await mkdtemp(path.join(tmpdir(), 'tandem-slow-'));
    t.after(() => rm(stateDir, { recursive: true }));
    const registry = createFakeRegistry();
    const first = await enter(t, { stateDir, registry });
    first.registrar.update([slow]);
    await first.clock.advance(3_100);
    first.registrar.update([
      web({ weight: 100, slow_start: '9s', checks: [{ tcp: { interval: '200ms' } }] }),
    ]);
    await first.clock.advance(100);
    assert.equal(first.weight(AT_WEB), 40);
    await first.registrar.stop();
    assert.match(
      await readFile(path.join(stateDir, 'registrar-memory.json'), 'utf8'),
      /"web 80":\{"upSince":\d+/,
    );

    const second = await enter(t, { stateDir, registry });
    second.clock.jump(4_200);
    second.registrar.update([slow]);
    await second.clock.advance(100);
    assert.equal(second.weight(AT_WEB), 50);
    second.clock.jump(-3_600_000);
    await second.clock.advance(1_000);
    assert.equal(second.weight(AT_WEB), 60, 'the wall clock matters to a successor only');
    await second.registrar.stop();

    const third = await enter(t, { stateDir, registry });
    third.clock.jump(-86_400_000);
    third.registrar.update([slow]);
    await third.clock.advance(100);
    assert.equal(third.weight(AT_WEB), 100, 'nobody can tell, so it is left alone');
    await third.registrar.withdrawAll(new AbortController().signal);
    await third.registrar.stop();

    const fourth = await enter(t, { stateDir, registry });
    fourth.registrar.update([slow]);
    await fourth.clock.advance(100);
    assert.equal(fourth.weight(AT_WEB), 10, 'what was withdrawn on purpose starts anew');
  });
});
