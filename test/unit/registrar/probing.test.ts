import assert from 'node:assert/strict';
import net from 'node:net';
import { test, type TestContext } from 'node:test';

import {
  type Check,
  type Clock,
  createRegistrar,
  type Registrar,
  type ServiceRegistration,
} from '@tandem/registrar';

import { createScriptedCheck, type ScriptedCheck, scriptedBy } from './scripted.ts';
import {
  createFakeRegistry,
  eventually,
  freePort,
  HOST,
  pause,
  recordLog,
  registration,
  startServer,
} from './support.ts';

const FAST = { interval: '10ms', timeout: '5s' };

function run(
  context: TestContext,
  services: readonly ServiceRegistration[],
  checks?: Readonly<Record<number, ScriptedCheck>>,
  registry = createFakeRegistry(),
) {
  const log = recordLog();
  const scripted = checks === undefined ? {} : { createCheck: scriptedBy(checks) };
  const registrar: Registrar = createRegistrar({ host: HOST, registry, log, ...scripted });
  context.after(() => registrar.stop());
  registrar.update(services);
  return { registrar, registry, log };
}

test('a service is announced when its first probe passes, withdrawn when it dies and announced again', async (t) => {
  const server = await startServer(net.createServer());
  const { port } = server;
  const { registry } = run(t, [registration('web', { port, checks: [{ tcp: FAST }] })]);
  const key = `/services/web ${port}`;
  await eventually(() => registry.standing.has(key), 'announced');
  assert.deepEqual(registry.standing.get(key), { name: 'i-1', host: '10.0.0.5', port });
  await server.close();
  await eventually(() => !registry.standing.has(key), 'withdrawn');
  const again = net.createServer();
  await new Promise<void>((resolve) => {
    again.listen(port, '127.0.0.1', resolve);
  });
  await eventually(() => registry.standing.has(key), 'announced again');
  again.close();
});

test('the registry hears of changes only', async (t) => {
  const check = createScriptedCheck('pass');
  const { registry } = run(t, [registration('web', { port: 80, checks: [{ tcp: FAST }] })], { 80: check });
  await eventually(() => check.probes >= 5, 'five probes');
  check.result = 'fail';
  await eventually(() => !registry.standing.has('/services/web 80'), 'withdrawn');
  const { probes } = check;
  await eventually(() => check.probes >= probes + 3, 'three more probes');
  const asked = registry.history.filter((line) => line.startsWith('set') || line.startsWith('withdraw /'));
  assert.deepEqual(asked, ['set /services/web 80', 'withdraw /services/web 80']);
});

test('rise and fall decide how many results in a row it takes', async (t) => {
  const check = createScriptedCheck('pass');
  const checks = [{ tcp: { ...FAST, rise: 2, fall: 3 } }];
  const { registry, log } = run(t, [registration('web', { port: 80, checks })], { 80: check });
  await eventually(() => registry.standing.size === 1, 'announced');
  check.result = 'fail';
  const before = check.probes;
  await eventually(() => registry.standing.size === 0, 'withdrawn');
  assert.ok(check.probes >= before + 3);
  assert.deepEqual(
    log.lines.map(({ health }) => health),
    ['up', 'down'],
  );
});

test('changes of health are logged with service, check and reason, and nothing else is', async (t) => {
  const port = await freePort();
  const { log, registrar } = run(t, [registration('web', { port, checks: [{ tcp: FAST }] })]);
  await eventually(() => log.lines.length > 0, 'a log line');
  await pause(50);
  const facts = { service: 'web', check: 'checks[0].tcp', health: 'down', reason: 'connection refused' };
  assert.deepEqual(log.lines, [{ level: 'info', message: 'health changed', ...facts }]);
  const [{ lastProbeMs, ...check } = {}] = registrar.status()[0]?.checks ?? [];
  assert.deepEqual(check, { check: 'checks[0].tcp', health: 'down', reason: 'connection refused' });
  assert.ok(lastProbeMs !== undefined && lastProbeMs >= 0);
});

test('a service needs all of its checks', async (t) => {
  const checks = { 1: createScriptedCheck('pass'), 2: createScriptedCheck('fail') };
  const list = [{ tcp: { ...FAST, port: 1 } }, { tcp: { ...FAST, port: 2 } }];
  const { registry } = run(t, [registration('web', { port: 80, checks: list })], checks);
  await eventually(() => checks[2].probes > 2, 'probes');
  assert.equal(registry.standing.size, 0);
  checks[2].result = 'pass';
  await eventually(() => registry.standing.size === 1, 'announced');
});

test('a service without checks is announced at once', (t) => {
  const { registry } = run(t, [registration('web', { port: 80 })]);
  assert.deepEqual(registry.history, [
    'claim /services/web 80',
    'set /services/web 80',
    'withdraw unclaimed',
  ]);
});

test('what an earlier life announced stands untouched while the health is unknown', async (t) => {
  const old = { name: 'i-1', host: '10.0.0.5', port: 80, weight: 1 };
  const check = createScriptedCheck('hang');
  const registry = createFakeRegistry(new Map([['/services/web 80', old]]));
  const service = registration('web', { port: 80, checks: [{ tcp: FAST }] });
  const { registrar } = run(t, [service], { 80: check }, registry);
  await eventually(() => check.underWay === 1, 'a probe');
  assert.equal(registrar.status()[0]?.health, 'unknown');
  assert.deepEqual(registry.standing.get('/services/web 80'), old);
});

test('what an earlier life announced survives failures that are too few to be down', async (t) => {
  const old = { name: 'i-1', host: '10.0.0.5', port: 80 };
  const registry = createFakeRegistry(new Map([['/services/web 80', old]]));
  const check = createScriptedCheck('pass');
  const results = [false, false];
  const script: Check = {
    kind: 'script',
    async probe(signal) {
      await check.probe(signal);
      return results.shift() === false ? { ok: false, reason: 'scripted' } : { ok: true };
    },
  };
  const registrar = createRegistrar({ host: HOST, registry, log: recordLog(), createCheck: () => script });
  t.after(() => registrar.stop());
  registrar.update([registration('web', { port: 80, checks: [{ tcp: { ...FAST, rise: 2, fall: 3 } }] })]);
  await eventually(() => registrar.status()[0]?.health === 'up', 'up');
  assert.ok(!registry.history.includes('withdraw /services/web 80'));
  assert.ok(check.probes >= 4, 'two failures, then as many passes as it takes');
});

test('what an earlier life announced goes once enough probes have failed', async (t) => {
  const old = { name: 'i-1', host: '10.0.0.5', port: 80 };
  const registry = createFakeRegistry(new Map([['/services/web 80', old]]));
  const check = createScriptedCheck('fail');
  run(
    t,
    [registration('web', { port: 80, checks: [{ tcp: { ...FAST, fall: 3 } }] })],
    { 80: check },
    registry,
  );
  await eventually(() => registry.standing.size === 0, 'withdrawn');
  assert.ok(check.probes >= 3);
});

test('probes of one check never overlap, and a slow one does not delay the next beyond its own end', async (t) => {
  const check = createScriptedCheck('pass', 30);
  run(t, [registration('web', { port: 80, checks: [{ tcp: FAST }] })], { 80: check });
  await eventually(() => check.probes >= 4, 'four probes');
  assert.equal(check.concurrent, 1);
});

test('the interval counts from the start of a probe to the start of the next', async (t) => {
  let now = 1000;
  const pauses: number[] = [];
  const clock: Clock = {
    now: () => now,
    after(ms, task) {
      // Other timers than that of the next probe: limits, and the watch over stalls.
      if (ms >= 500) return () => {};
      const timer = setImmediate(() => {
        pauses.push(ms);
        now += ms;
        task();
      });
      return () => clearImmediate(timer);
    },
    wallNow: () => 0,
    // No longer and no shorter than the interval.
    random: () => 0.5,
  };
  const durations = [60, 0, 79, 80, 500, 1];
  const check = createScriptedCheck('pass');
  const timed: Check = {
    kind: 'timed',
    async probe(signal) {
      const result = await check.probe(signal);
      now += durations.shift() ?? 0;
      return result;
    },
  };
  const service = registration('web', { port: 80, checks: [{ tcp: { interval: '80ms', timeout: '5s' } }] });
  const registrar = createRegistrar({
    host: HOST,
    registry: createFakeRegistry(),
    log: recordLog(),
    clock,
    createCheck: () => timed,
  });
  t.after(() => registrar.stop());
  registrar.update([service]);
  await eventually(() => durations.length === 0 && pauses.length >= 6, 'six probes');
  // The two that took the whole interval or more are followed by the next at once.
  assert.deepEqual(pauses.slice(0, 6), [20, 80, 1, 0, 0, 79]);
});

test('a hanging probe has failed at its time limit, even if it does not listen to its signal', async (t) => {
  const checks = { 1: createScriptedCheck('hang'), 2: createScriptedCheck('ignore') };
  const limits = { interval: '10ms', timeout: '30ms' };
  const list = [{ tcp: { ...limits, port: 1 } }, { tcp: { ...limits, port: 2 } }];
  const { registrar } = run(t, [registration('web', { port: 80, checks: list })], checks);
  await eventually(
    () => registrar.status()[0]?.checks.every(({ health }) => health === 'down') === true,
    'down',
  );
  for (const { reason } of registrar.status()[0]?.checks ?? []) assert.equal(reason, 'timed out after 30 ms');
});

test('a stall of the registrar itself is not taken for a failure of the service', async (t) => {
  const server = await startServer(net.createServer());
  const { port } = server;
  const limits = { interval: '1s', timeout: '20ms' };
  const { registrar } = run(t, [registration('web', { port, checks: [{ tcp: limits }] })]);
  await Promise.resolve();
  const stallsUntil = Date.now() + 60;
  while (Date.now() < stallsUntil);
  await eventually(() => registrar.status()[0]?.health !== 'unknown', 'a result');
  assert.equal(registrar.status()[0]?.health, 'up');
  await registrar.stop();
  await server.close();
});

test('getting ready takes nothing from the time of a probe', async (t) => {
  let asked = 0;
  const slow: Check = {
    kind: 'slow',
    prepare() {
      asked += 1;
      return pause(60);
    },
    probe: () => Promise.resolve({ ok: true }),
  };
  const registrar = createRegistrar({
    host: HOST,
    registry: createFakeRegistry(),
    log: recordLog(),
    createCheck: () => slow,
  });
  t.after(() => registrar.stop());
  registrar.update([
    registration('web', { port: 80, checks: [{ tcp: { interval: '10s', timeout: '20ms' } }] }),
  ]);
  await eventually(() => registrar.status()[0]?.health === 'up', 'up');
  assert.equal(asked, 1);
});

test('a check that explodes costs its own service its health, and nobody else anything', async (t) => {
  const checks = { 1: createScriptedCheck('explode'), 2: createScriptedCheck('pass') };
  const { registry, registrar, log } = run(
    t,
    [
      registration('broken', { port: 1, checks: [{ tcp: FAST }] }),
      registration('sound', { port: 2, checks: [{ tcp: FAST }] }),
    ],
    checks,
  );
  await eventually(() => checks[1].probes >= 3 && checks[2].probes >= 3, 'both go on');
  assert.deepEqual([...registry.standing.keys()], ['/services/sound 2']);
  assert.equal(registrar.status()[0]?.checks[0]?.reason, 'the check is broken: boom');
  assert.equal(log.lines.filter(({ level }) => level === 'error').length, 1, 'told once, not at every probe');
});

test('a hanging command delays no other check', async (t) => {
  const server = await startServer(net.createServer());
  const hanging = { command: ['/bin/sh', '-c', 'sleep 60'], interval: '10ms', timeout: '60s' };
  const { registrar, registry } = run(t, [
    registration('stuck', { port: 1, checks: [{ command: hanging }] }),
    registration('sound', { port: server.port, checks: [{ tcp: FAST }] }),
  ]);
  await eventually(() => server.accepted() >= 5, 'five probes of the other');
  assert.deepEqual([...registry.standing.keys()], [`/services/sound ${server.port}`]);
  assert.equal(registrar.status()[0]?.health, 'unknown');
  await registrar.stop();
  await server.close();
});

test('a command that fails tells its output as the reason', async (t) => {
  const command = ['/bin/sh', '-c', 'echo disk full; exit 2'];
  const { log } = run(t, [
    registration('db', { port: 1, checks: [{ command: { command, timeout: '30s' } }] }),
  ]);
  await eventually(() => log.lines.length > 0, 'a log line');
  assert.equal(log.lines[0]?.['reason'], 'exit status 2: disk full');
});

test('stopping ends every probe and leaves the registry as it is', async () => {
  const check = createScriptedCheck('pass');
  const registry = createFakeRegistry();
  const registrar = createRegistrar({
    host: HOST,
    registry,
    log: recordLog(),
    createCheck: scriptedBy({ 80: check }),
  });
  registrar.update([registration('web', { port: 80, checks: [{ tcp: FAST }] })]);
  await eventually(() => registry.standing.size === 1, 'announced');
  check.result = 'hang';
  await eventually(() => check.underWay === 1, 'a probe hangs');
  await registrar.stop();
  assert.equal(check.underWay, 0);
  const { probes } = check;
  await pause(40);
  assert.equal(check.probes, probes);
  assert.equal(registry.standing.size, 1);
  assert.equal(registry.history.at(-1), 'release /services/web 80');
});
