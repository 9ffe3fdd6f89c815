import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';

import { createRegistrar } from '@tandem/registrar';

import { createScriptedCheck, type ScriptedCheck, scriptedBy } from './scripted.ts';
import { createFakeRegistry, eventually, HOST, pause, recordLog, registration } from './support.ts';

const FAST = { interval: '10ms', timeout: '5s' };
const checks = [{ tcp: FAST }];

function start(context: TestContext, scripted: Readonly<Record<number, ScriptedCheck>> = {}) {
  const registry = createFakeRegistry();
  const log = recordLog();
  const registrar = createRegistrar({ host: HOST, registry, log, createCheck: scriptedBy(scripted) });
  context.after(() => registrar.stop());
  /** What was asked since the last look. */
  const news = () => registry.history.splice(0);
  return { registry, registrar, log, news };
}

test('the first update also withdraws what an earlier life left and nobody wants now; later ones do not', (t) => {
  const { registrar, registry } = start(t);
  registrar.update([registration('web', { port: 80 })]);
  registrar.update([registration('web', { port: 80 }), registration('db', { port: 5432 })]);
  const at = registry.history.indexOf('withdraw unclaimed');
  assert.ok(at > registry.history.indexOf('claim /services/web 80'));
  assert.equal(registry.history.lastIndexOf('withdraw unclaimed'), at);
});

test('while a service file cannot be read, what an earlier life announced stays: it may be in that file', (t) => {
  const { registrar, registry } = start(t);
  registrar.update([registration('web', { port: 80 })], { isComplete: false });
  registrar.update([registration('web', { port: 80 })], { isComplete: false });
  assert.ok(!registry.history.includes('withdraw unclaimed'));
  registrar.update([registration('web', { port: 80 })]);
  registrar.update([registration('web', { port: 80 })]);
  assert.equal(registry.history.filter((note) => note === 'withdraw unclaimed').length, 1);
});

test('services that did not change are not touched', async (t) => {
  const check = createScriptedCheck('pass');
  const { registrar, registry, news } = start(t, { 80: check });
  const web = () => registration('web', { port: 80, labels: { a: '1' }, checks });
  registrar.update([web()]);
  await eventually(() => registry.standing.size === 1, 'announced');
  news();
  check.result = 'hang';
  await eventually(() => check.underWay === 1, 'a probe hangs');
  registrar.update([web(), registration('db', { port: 5432 })]);
  assert.equal(check.underWay, 1, 'the probe under way goes on');
  assert.deepEqual(news(), ['claim /services/db 5432', 'set /services/db 5432']);
  registrar.update([web()]);
  await eventually(() => !registry.standing.has('/services/db 5432'), 'withdrawn');
  assert.deepEqual(news().slice(0, 1), ['withdraw /services/db 5432']);
});

test('what the registry was told counts as confirmed only when the registry says so', async (t) => {
  const { registrar, registry } = start(t);
  const standing = () => registrar.status().map(({ announced, confirmed }) => ({ announced, confirmed }));
  registry.silence();
  registrar.update([registration('web', { port: 80 })]);
  await eventually(() => standing()[0]?.announced === true, 'told');
  assert.deepEqual(standing(), [{ announced: true, confirmed: false }]);
  registry.answer();
  assert.deepEqual(standing(), [{ announced: true, confirmed: true }]);
});

test('a changed weight is announced without a gap, by the checks that go on', async (t) => {
  const check = createScriptedCheck('pass');
  const { registrar, registry, news } = start(t, { 80: check });
  registrar.update([registration('web', { port: 80, weight: 1, checks })]);
  await eventually(() => registry.standing.size === 1, 'announced');
  news();
  check.result = 'hang';
  await eventually(() => check.underWay === 1, 'a probe hangs');
  registrar.update([registration('web', { port: 80, weight: 5, checks })]);
  assert.deepEqual(news(), ['set /services/web 80']);
  assert.equal(check.underWay, 1, 'the probe under way goes on');
  await pause(0);
  assert.equal(registry.standing.get('/services/web 80')?.weight, 5);
});

test('another way of writing is another claim of the same place, told what the checks that go on know', async (t) => {
  const check = createScriptedCheck('pass');
  const { registrar, registry, news } = start(t, { 80: check });
  registrar.update([registration('web', { port: 80, checks })]);
  await eventually(() => registry.standing.size === 1, 'announced');
  check.result = 'hang';
  await eventually(() => check.underWay === 1, 'a probe hangs');
  news();
  const changed = () =>
    registration('web', { port: 80, node_type: 'persistent', path_encoding: true, ttl: '1m', checks });
  registrar.update([changed()]);
  assert.deepEqual(news(), ['release /services/web 80', 'claim /services/web 80', 'set /services/web 80']);
  assert.deepEqual(registry.options.get('/services/web 80'), {
    format: { kind: 'nerve' },
    nodeType: 'persistent',
    pathEncoding: true,
    ttlMs: 60_000,
  });
  assert.equal(check.underWay, 1, 'the probe under way goes on');
  registrar.update([changed()]);
  assert.deepEqual(news(), []);
});

test('another way of writing that cannot be had leaves the old one in force, and is tried at the next update', async (t) => {
  const { registrar, registry, news, log } = start(t);
  registrar.update([registration('web', { port: 80 })]);
  await eventually(() => registry.standing.size === 1, 'announced');
  const announce = registry.announce.bind(registry);
  registry.announce = (path, place, options) => {
    if (options?.nodeType === 'ephemeral') throw new Error('the name is taken');
    return announce(path, place, options);
  };
  const changed = () => registration('web', { port: 80, node_type: 'ephemeral' });
  registrar.update([changed()]);
  assert.equal(log.lines.at(-1)?.message, 'place is taken, service set aside');
  assert.equal(registry.options.get('/services/web 80')?.nodeType, 'ephemeral_sequential');
  assert.equal(news().at(-1), 'set /services/web 80');
  registry.announce = announce;
  registrar.update([changed()]);
  assert.equal(registry.options.get('/services/web 80')?.nodeType, 'ephemeral');
});

test('a node that only one can have changes hands when the one before has left', async (t) => {
  const { registrar, registry, news } = start(t);
  const only = (port: number) => registration('web', { port, node_type: 'ephemeral' }, '/services/web');
  const announce = registry.announce.bind(registry);
  const holders = new Set<number>();
  registry.announce = (path, place, options) => {
    if (holders.size > 0) throw new TypeError('the node of another instance');
    holders.add(place.port);
    const announcer = announce(path, place, options);
    const release = () => {
      holders.delete(place.port);
      announcer.release();
    };
    return { ...announcer, release };
  };
  registrar.update([only(80)]);
  await eventually(() => registry.standing.has('/services/web 80'), 'announced');
  news();
  registrar.update([only(81)]);
  await eventually(() => registry.standing.has('/services/web 81'), 'announced elsewhere');
  assert.deepEqual(news(), [
    'withdraw /services/web 80',
    'release /services/web 80',
    'claim /services/web 81',
    'set /services/web 81',
  ]);
  assert.deepEqual([...registry.standing.keys()], ['/services/web 81']);
});

test('changed checks leave the announcement alone until they know better', async (t) => {
  const old = createScriptedCheck('pass');
  const fresh = createScriptedCheck('hang');
  const { registrar, registry, news } = start(t, { 80: old, 81: fresh });
  registrar.update([registration('web', { port: 80, checks })]);
  await eventually(() => registry.standing.size === 1, 'announced');
  news();
  registrar.update([registration('web', { port: 80, checks: [{ tcp: { ...FAST, port: 81 } }] })]);
  await eventually(() => fresh.underWay === 1, 'the new check probes');
  await eventually(() => old.underWay === 0, 'the old one ended');
  const { probes } = old;
  await pause(30);
  assert.equal(old.probes, probes);
  assert.deepEqual(news(), []);
  assert.equal(registry.standing.size, 1);
});

test('a removed service is withdrawn, and its place given up once the registry agrees', async (t) => {
  const { registrar, registry, news } = start(t);
  registrar.update([registration('web', { port: 80 })]);
  await pause(0);
  news();
  registry.silence();
  registrar.update([]);
  await pause(10);
  assert.deepEqual(news(), ['withdraw /services/web 80']);
  assert.deepEqual(registrar.status(), []);
  registry.answer();
  await eventually(() => registry.history.includes('release /services/web 80'), 'released');
  assert.equal(registry.standing.size, 0);
});

test('a service that comes back while it is being withdrawn keeps its place', async (t) => {
  const { registrar, registry, news } = start(t);
  const web = registration('web', { port: 80 });
  registrar.update([web]);
  await pause(0);
  news();
  registry.silence();
  registrar.update([]);
  registrar.update([web]);
  registry.answer();
  await pause(20);
  assert.deepEqual(news(), ['withdraw /services/web 80', 'set /services/web 80']);
  assert.equal(registry.standing.size, 1);
});

for (const [what, moved, key] of [
  ['port', registration('web', { port: 81 }), '/services/web 81'],
  ['path', registration('web', { port: 80 }, '/elsewhere/web'), '/elsewhere/web 80'],
] as const) {
  test(`a changed ${what} is announced at the new place before the old one is withdrawn`, async (t) => {
    const { registrar, registry, news } = start(t);
    registrar.update([registration('web', { port: 80 })]);
    await pause(0);
    news();
    registry.silence();
    registrar.update([moved]);
    await pause(10);
    assert.deepEqual(news(), [`claim ${key}`, `set ${key}`], 'the registry has not agreed yet');
    assert.ok(registry.standing.has('/services/web 80'));
    registry.answer();
    await eventually(
      () => registry.history.includes('release /services/web 80'),
      'the old place is given up',
    );
    assert.deepEqual([...registry.standing.keys()], [key]);
  });
}

test('the old place stays, and is still probed, until the service is up at the new one', async (t) => {
  const old = createScriptedCheck('pass');
  const fresh = createScriptedCheck('fail');
  const { registrar, registry } = start(t, { 80: old, 81: fresh });
  registrar.update([registration('web', { port: 80, checks })]);
  await eventually(() => registry.standing.size === 1, 'announced');
  registrar.update([registration('web', { port: 81, checks })]);
  await eventually(() => fresh.probes >= 3, 'the new place is probed');
  assert.deepEqual([...registry.standing.keys()], ['/services/web 80']);
  assert.deepEqual(
    registrar.status().map(({ port, role }) => [port, role]),
    [
      [80, 'outgoing'],
      [81, 'active'],
    ],
  );
  old.result = 'fail';
  await eventually(() => registry.standing.size === 0, 'the old place is down');
  fresh.result = 'pass';
  await eventually(() => registry.history.includes('release /services/web 80'), 'the old place is given up');
  assert.deepEqual([...registry.standing.keys()], ['/services/web 81']);
  assert.equal(registrar.status().length, 1);
});

test('a service that moves back before it was up elsewhere keeps what it had', async (t) => {
  const scripted = { 80: createScriptedCheck('pass'), 81: createScriptedCheck('fail') };
  const { registrar, registry, news } = start(t, scripted);
  registrar.update([registration('web', { port: 80, checks })]);
  await eventually(() => registry.standing.size === 1, 'announced');
  registrar.update([registration('web', { port: 81, checks })]);
  await eventually(() => scripted[81].probes >= 2, 'the new place is probed');
  news();
  registrar.update([registration('web', { port: 80, checks })]);
  await eventually(() => news().includes('release /services/web 81'), 'the other place is given up');
  assert.ok(registry.standing.has('/services/web 80'));
  assert.equal(registrar.status().length, 1);
});

test('a renamed service keeps its place and its announcement', async (t) => {
  const { registrar, registry, news } = start(t);
  registrar.update([registration('web', { port: 80 }, '/services/x')]);
  await pause(0);
  news();
  registrar.update([registration('shop', { port: 80 }, '/services/x')]);
  await pause(20);
  assert.deepEqual(news(), []);
  assert.equal(registrar.status()[0]?.service, 'shop');
  assert.equal(registry.standing.size, 1);
});

test('of two services that want the same place the first gets it, and the other hurts nobody', async (t) => {
  const { registrar, registry, log } = start(t);
  const first = registration('a', { port: 80 }, '/services/x');
  const second = registration('b', { port: 80 }, '/services/x');
  registrar.update([first, second, registration('c', { port: 81 })]);
  await eventually(() => registry.standing.size === 2, 'the others are announced');
  assert.deepEqual(log.lines, [
    {
      level: 'error',
      message: 'place is taken, service set aside',
      service: 'b',
      path: '/services/x',
      port: 80,
      takenBy: 'a',
    },
  ]);
  registrar.update([second]);
  await eventually(() => registrar.status()[0]?.service === 'b', 'the second takes over');
});

test('a place that the registry refuses costs only its service', async (t) => {
  const { registrar, registry, log } = start(t);
  registry.announce('/services/a', { name: 'i-1', host: '10.0.0.5', port: 80 });
  registrar.update([registration('a', { port: 80 }), registration('b', { port: 81 })]);
  await eventually(() => registry.standing.has('/services/b 81'), 'the other is announced');
  assert.equal(log.lines[0]?.['service'], 'a');
});

test('withdrawing everything waits for the registry, and nothing comes back', async (t) => {
  const check = createScriptedCheck('pass');
  const { registrar, registry, log } = start(t, { 80: check });
  registrar.update([registration('web', { port: 80, checks }), registration('db', { port: 5432 })]);
  await eventually(() => registry.standing.size === 2, 'announced');
  registry.silence();
  const withdrawn = registrar.withdrawAll(new AbortController().signal);
  registrar.update([registration('web', { port: 80, checks })]);
  assert.equal(
    await Promise.race([withdrawn.then(() => 'done'), pause(20).then(() => 'waiting')]),
    'waiting',
  );
  registry.answer();
  await withdrawn;
  assert.equal(registry.standing.size, 0);
  const { probes } = check;
  await pause(30);
  assert.equal(check.probes, probes, 'probing has ended');
  assert.deepEqual(
    log.lines.filter(({ level }) => level !== 'info'),
    [],
  );
});

test('withdrawing everything ends with its signal, and says what was not confirmed', async (t) => {
  const { registrar, registry, log } = start(t);
  registrar.update([registration('web', { port: 80 })]);
  await pause(0);
  registry.silence();
  const controller = new AbortController();
  setTimeout(() => controller.abort(), 20);
  await registrar.withdrawAll(controller.signal);
  assert.equal(log.lines.at(-1)?.message, 'withdrawal not confirmed');
  assert.equal(log.lines.at(-1)?.['service'], 'web');
});

test('stopping in the middle of a move or a withdrawal gives everything up and ends', async (t) => {
  const { registrar, registry } = start(t);
  registrar.update([registration('web', { port: 80 }), registration('db', { port: 5432 })]);
  await pause(0);
  registry.silence();
  registrar.update([registration('web', { port: 81 })]);
  await registrar.stop();
  await registrar.stop();
  const released = registry.history.filter((line) => line.startsWith('release')).toSorted();
  assert.deepEqual(released, [
    'release /services/db 5432',
    'release /services/web 80',
    'release /services/web 81',
  ]);
});
