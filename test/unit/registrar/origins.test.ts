import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';

import {
  createRegistrar,
  type Finder,
  followAllServices,
  type Found,
  type ServiceRegistration,
} from '@tandem/registrar';
import { mergeServices } from '@tandem/registrar/testing';

import { createScriptedCheck, type ScriptedCheck, scriptedBy } from './scripted.ts';
import { createFakeRegistry, eventually, HOST, recordLog, registration } from './support.ts';

const checks = [{ tcp: { interval: '10ms', timeout: '5s' } }];

function start(context: TestContext, scripted: Readonly<Record<number, ScriptedCheck>> = {}) {
  const registry = createFakeRegistry();
  const registrar = createRegistrar({
    host: HOST,
    registry,
    log: recordLog(),
    createCheck: scriptedBy(scripted),
  });
  context.after(() => registrar.stop());
  return { registry, registrar };
}

function container(
  number: number,
  port: number,
  more: Partial<ServiceRegistration> = {},
): ServiceRegistration {
  return { ...registration('web', { port, checks }), origin: `container web-${number} (abc)`, ...more };
}

test('one of two containers of a service that dies leaves at once, though the other has never been well', async (t) => {
  const [first, second] = [createScriptedCheck('pass'), createScriptedCheck('fail')];
  const { registrar, registry } = start(t, { 80: first, 81: second });
  registrar.update([container(1, 80), container(2, 81)]);
  await eventually(() => registry.standing.has('/services/web 80'), 'announced');
  registrar.update([container(2, 81)]);
  assert.deepEqual(
    registrar.status().map(({ port }) => port),
    [81],
  );
  await eventually(() => registry.standing.size === 0, 'withdrawn');
});

test('a container that moves to another port is announced there before it leaves the old one', async (t) => {
  const [first, second] = [createScriptedCheck('pass'), createScriptedCheck('fail')];
  const { registrar, registry } = start(t, { 80: first, 81: second });
  registrar.update([container(1, 80)]);
  await eventually(() => registry.standing.has('/services/web 80'), 'announced');
  registrar.update([container(1, 81)]);
  assert.deepEqual(
    registrar.status().map(({ port, role }) => [port, role]),
    [
      [80, 'outgoing'],
      [81, 'active'],
    ],
  );
  second.result = 'pass';
  await eventually(() => registry.standing.has('/services/web 81'), 'moved');
  await eventually(() => !registry.standing.has('/services/web 80'), 'left');
});

test('a container and a service file of one service are no move of each other', async (t) => {
  const pass = createScriptedCheck('pass');
  const { registrar, registry } = start(t, { 80: pass, 81: createScriptedCheck('fail') });
  const file = registration('web', { port: 80, checks });
  registrar.update([file]);
  await eventually(() => registry.standing.size === 1, 'announced');
  registrar.update([container(1, 81)]);
  await eventually(() => registry.standing.size === 0, 'withdrawn');
});

test('what its finder says of a service counts as one more check of it', async (t) => {
  const check = createScriptedCheck('pass');
  const { registrar, registry } = start(t, { 80: check });
  const found = (health: 'up' | 'down' | 'unknown') => [
    container(1, 80, { finding: { check: 'container', health } }),
  ];
  registrar.update(found('unknown'));
  await eventually(() => check.probes > 3, 'probed');
  assert.equal(registrar.status()[0]?.health, 'unknown');
  assert.equal(registry.standing.size, 0);
  registrar.update(found('up'));
  await eventually(() => registry.standing.size === 1, 'announced');
  registrar.update(found('down'));
  assert.deepEqual(registrar.status()[0]?.checks.at(-1), { check: 'container', health: 'down' });
  await eventually(() => registry.standing.size === 0, 'withdrawn');
  check.result = 'fail';
  await eventually(() => registrar.status()[0]?.checks[0]?.health === 'down', 'fails, too');
  registrar.update(found('up'));
  assert.equal(registrar.status()[0]?.health, 'down');
});

/** A finder that finds what the test says. */
function scriptedFinder() {
  let say: (found: Found) => void = () => {};
  const finder: Finder = {
    follow: (onFound, signal) =>
      new Promise((resolve) => {
        say = onFound;
        signal.addEventListener('abort', () => resolve(), { once: true });
      }),
  };
  return { finder, finds: (found: Found) => say(found) };
}

test('the whole is complete only when the files were read and every finder has answered', async () => {
  const [one, two] = [scriptedFinder(), scriptedFinder()];
  const updates: [ports: number[], isComplete: boolean][] = [];
  const all = followAllServices({
    finders: [one.finder, two.finder],
    update: (services, { isComplete }) =>
      updates.push([services.map(({ config }) => config.port), isComplete]),
    log: recordLog(),
  });
  one.finds({ registrations: [container(1, 81)], isComplete: true });
  all.takeFiles([registration('db', { port: 80 })], { isComplete: false });
  two.finds({ registrations: [], isComplete: false });
  all.takeFiles([registration('db', { port: 80 })], { isComplete: true });
  two.finds({ registrations: [container(2, 82)], isComplete: true });
  await all.end();
  two.finds({ registrations: [], isComplete: true });
  assert.deepEqual(updates, [
    [[81], false],
    [[80, 81], false],
    [[80, 81], false],
    [[80, 81], false],
    [[80, 81, 82], true],
  ]);
});

test('a finder that breaks keeps what it has found, and costs nobody else anything', async () => {
  const log = recordLog();
  let services: readonly ServiceRegistration[] = [];
  const broken: Finder = {
    follow: (onFound) => {
      onFound({ registrations: [container(1, 81)], isComplete: true });
      return Promise.reject(new Error('boom'));
    },
  };
  const all = followAllServices({
    finders: [broken],
    update: (update) => {
      services = update;
    },
    log,
  });
  all.takeFiles([registration('db', { port: 80 })], { isComplete: true });
  await all.end();
  assert.equal(services.length, 2);
  assert.deepEqual(
    log.lines.map(({ message }) => message),
    ['a finder is broken, keeping what it has found'],
  );
});

test('of what wants one place a service file gets it, and then whoever comes first', () => {
  const file = registration('web', { port: 80 });
  const [one, two, three] = [container(1, 80), container(2, 81), container(3, 81)];
  const merged = mergeServices([[file], [one, two], [three]]);
  assert.deepEqual(merged.registrations, [file, two]);
  assert.deepEqual(
    merged.setAside.map(({ registration, takenBy }) => [registration.origin, takenBy]),
    [
      ['container web-1 (abc)', 'the service file of web'],
      ['container web-3 (abc)', 'container web-2 (abc)'],
    ],
  );
});
