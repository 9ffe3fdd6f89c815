import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { compareInstances } from '@tandem/core';
import { readTasks, resolveSourceFiles, SourceSection, type TaskQuery } from '@tandem/discovery/testing';
import * as fc from 'fast-check';

import { type Task, taskOf } from '../../support/marathon-api.ts';

function read(tasks: unknown, query: Partial<TaskQuery> = {}) {
  return readTasks({ tasks }, { portIndex: 0, requireHealthy: true, ...query });
}

/** Where the task is, or why it is not. */
function outcomeOf(changes: Task, query: Partial<TaskQuery> = {}): string {
  const { instances, rejected } = read([taskOf(1, changes)], query) ?? assert.fail('it is a list');
  const [instance] = instances;
  if (instance !== undefined) return `${instance.host}:${instance.port}`;
  return rejected[0]?.reason ?? 'passed over';
}

describe('tasks of Marathon', () => {
  test('are called as their host, and reached by the chosen port', () => {
    assert.deepEqual(read([taskOf(2), taskOf(1)]), {
      instances: [
        { name: '10.0.0.1', host: '10.0.0.1', port: 31_001 },
        { name: '10.0.0.2', host: '10.0.0.2', port: 31_002 },
      ],
      rejected: [],
    });
    assert.equal(outcomeOf({}, { portIndex: 1 }), '10.0.0.1:32001');
    assert.equal(outcomeOf({ host: 'agent-1.example.com' }), 'agent-1.example.com:31001');
  });

  test('join when they have started, and leave when they are ending', () => {
    for (const changes of [
      { startedAt: undefined },
      { startedAt: null },
      { startedAt: '' },
      { startedAt: 7 },
    ])
      assert.equal(outcomeOf(changes), 'passed over');
    for (const state of ['TASK_KILLING', 'TASK_STAGING', 'TASK_FAILED', 'TASK_LOST'])
      assert.equal(outcomeOf({ state }), 'passed over');
    for (const state of ['TASK_RUNNING', 'TASK_UNREACHABLE', undefined])
      assert.equal(outcomeOf({ state }), '10.0.0.1:31001');
  });

  test('have to be alive by every check that has said something', () => {
    for (const healthCheckResults of [
      undefined,
      null,
      [],
      [{ alive: true }],
      [{ alive: true }, { alive: true }],
    ])
      assert.equal(outcomeOf({ healthCheckResults }), '10.0.0.1:31001');
    for (const healthCheckResults of [
      [{ alive: false }],
      [{ alive: true }, null],
      [{}],
      [{ alive: 'true' }],
    ]) {
      assert.equal(outcomeOf({ healthCheckResults }), 'passed over');
      assert.equal(outcomeOf({ healthCheckResults }, { requireHealthy: false }), '10.0.0.1:31001');
    }
  });

  test('cost themselves only when they cannot be instances', () => {
    assert.equal(outcomeOf({}, { portIndex: 2 }), 'has no port with index 2');
    for (const ports of [undefined, [], ['31001'], [0], [65_536], [1.5], 'x'])
      assert.equal(outcomeOf({ ports }), 'has no port with index 0');
    for (const host of [undefined, '', 7, 'a b', 'a\nserver evil', '$HOME'])
      assert.equal(outcomeOf({ host }), 'host is missing or not the name of one');
    assert.deepEqual(
      read([null, taskOf(1, { ports: [] }), taskOf(2, { ports: [], id: 'a\nb' }), taskOf(3)])?.rejected,
      [
        { place: 'task 0', reason: 'is not an object' },
        { place: 'shop_web.instance-00000001._app.1', reason: 'has no port with index 0' },
        { place: 'task 2', reason: 'has no port with index 0' },
      ],
    );
  });

  test('what is no list of tasks is nothing at all, rather than no tasks', () => {
    for (const answer of [
      undefined,
      null,
      [],
      'x',
      {},
      { tasks: null },
      { tasks: {} },
      { tasks: Array.from({ length: 20_000 }) },
    ])
      assert.equal(readTasks(answer, { portIndex: 0, requireHealthy: true }), undefined);
    assert.deepEqual(read([]), { instances: [], rejected: [] });
  });

  test('whatever a master says, the snapshot is in order and made of harmless text', () => {
    const json = fc.jsonValue({ maxDepth: 2 });
    const field = (good: fc.Arbitrary<unknown>) => fc.oneof({ weight: 3, arbitrary: good }, json);
    const task = fc.record(
      {
        id: json,
        host: field(fc.oneof(fc.constantFrom('10.0.0.1', 'agent'), fc.string({ unit: 'binary' }))),
        ports: field(fc.array(field(fc.integer({ min: -1, max: 65_537 })))),
        startedAt: field(fc.constant('2026-01-01T00:00:00.000Z')),
        healthCheckResults: field(fc.array(fc.record({ alive: fc.boolean() }))),
      },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(fc.array(field(task), { maxLength: 12 }), (tasks) => {
        const { instances, rejected } = read(tasks) ?? assert.fail('it is a list');
        for (const [index, { name, host, port }] of instances.entries()) {
          assert.match(host, /^[A-Za-z0-9_.:-]+$/);
          assert.equal(name, host);
          assert.ok(Number.isInteger(port) && port >= 1 && port <= 65_535);
          const next = instances[index + 1];
          if (next !== undefined) assert.ok(compareInstances({ name, host, port }, next) < 0);
        }
        for (const { place } of rejected) assert.match(place, /^[\x20-\x7e]{1,128}$/);
        assert.ok(instances.length + rejected.length <= tasks.length);
      }),
      { numRuns: 300 },
    );
  });
});

describe('marathon in a service file', () => {
  function optionsOf(marathon: unknown) {
    const parsed = SourceSection.safeParse({ marathon });
    return parsed.data?.kind === 'marathon' ? parsed.data.options : undefined;
  }

  test('the app stands in the path, with and without its first slash', () => {
    const url = 'http://marathon.test:8080/';
    assert.deepEqual(optionsOf({ url, app: '/shop/web' })?.urls, ['http://marathon.test:8080']);
    for (const app of ['/shop/web', 'shop/web'])
      assert.equal(optionsOf({ url, app })?.tasksPath, '/v2/apps/shop/web/tasks');
    assert.equal(optionsOf({ url, app: 'web', api_path: '/m/%{app}/tasks' })?.tasksPath, '/m/web/tasks');
    assert.deepEqual(optionsOf({ url: [url, 'https://b/m'], app: 'web' })?.urls, [
      'http://marathon.test:8080',
      'https://b/m',
    ]);
  });

  test('files are named from where the service file stands', () => {
    const section = {
      marathon: { url: 'https://m', app: 'web', credentials_file: 'a.auth', tls: { ca_file: 'ca.pem' } },
    };
    const resolved = resolveSourceFiles(SourceSection.parse(section), (file) => `/etc/${file}`);
    const options = resolved.kind === 'marathon' ? resolved.options : undefined;
    assert.equal(options?.credentialsFile, '/etc/a.auth');
    assert.equal(options?.tls?.caFile, '/etc/ca.pem');
    assert.equal(options?.tls?.certFile, undefined);
  });

  test('what would lead elsewhere is refused', () => {
    const good = { url: 'http://marathon.test:8080', app: 'web' };
    assert.notEqual(optionsOf(good), undefined);
    for (const wrong of [
      { ...good, url: 'marathon.test' },
      { ...good, url: 'file:///etc/passwd' },
      { ...good, url: 'http://user:secret@marathon.test' },
      { ...good, url: 'http://marathon.test/?x=1' },
      { ...good, url: [] },
      { ...good, app: '../other' },
      { ...good, app: 'a/../b' },
      { ...good, app: 'web?x' },
      { ...good, app: '' },
      { ...good, api_path: '/v2/apps/tasks' },
      { ...good, api_path: 'v2/{app}' },
      { ...good, api_path: '/v2/{app}?x' },
      { ...good, credentials_file: '' },
      { ...good, port_index: -1 },
    ])
      assert.equal(optionsOf(wrong), undefined, JSON.stringify(wrong));
  });
});
