import assert from 'node:assert/strict';
import { test } from 'node:test';

import { encodeNerveRecord } from '@tandem/core';
import { announcementOf, ORDINARY, RegisterSection, type Verdict } from '@tandem/registrar';

import { HOST } from './support.ts';

const UP: Verdict = { health: 'up', isFirm: true };
const DOWN: Verdict = { health: 'down', isFirm: true };
const config = RegisterSection.parse({ port: 8080 });

test('an unhealthy service is not announced', () => {
  assert.equal(announcementOf(DOWN, config, HOST), undefined);
});

test('a service of unknown health stays as it is', () => {
  assert.equal(announcementOf({ health: 'unknown', isFirm: false }, config, HOST), 'undecided');
});

test('a service that is down by too few failures stays as it is', () => {
  assert.equal(announcementOf({ health: 'down', isFirm: false }, config, HOST), 'undecided');
});

test('who is drained or held is not announced, whatever the checks say and before they say anything', () => {
  for (const verdict of [UP, DOWN, { health: 'unknown', isFirm: false } as const]) {
    assert.equal(announcementOf(verdict, config, HOST, { ...ORDINARY, isDrained: true }), undefined);
    assert.equal(announcementOf(verdict, config, HOST, { ...ORDINARY, isHeld: true }), undefined);
  }
});

test('as long as nobody knows whether it is drained, a healthy service stays as it is, and a dead one goes', () => {
  const circumstances = { ...ORDINARY, isDrained: 'undecided' } as const;
  assert.equal(announcementOf(UP, config, HOST, circumstances), 'undecided');
  assert.equal(announcementOf(DOWN, config, HOST, circumstances), undefined);
});

test('the weight of an operator wins over the configuration, and is what a slow start grows to', () => {
  const weighted = RegisterSection.parse({ port: 8080, weight: 100, slow_start: '9s' });
  const weightOf = (weight: number | undefined, elapsedMs: number) => {
    const slowStart = { durationMs: 9_000, elapsedMs };
    const instance = announcementOf(UP, weighted, HOST, { ...ORDINARY, weight, slowStart });
    return typeof instance === 'object' ? instance.weight : instance;
  };
  assert.deepEqual(
    [0, 999, 1_000, 8_999, 9_000].map((elapsedMs) => weightOf(undefined, elapsedMs)),
    [10, 10, 20, 90, 100],
  );
  assert.deepEqual(
    [0, 9_000].map((elapsedMs) => weightOf(5, elapsedMs)),
    [1, 5],
  );
  assert.equal(weightOf(0, 0), 0);
});

test('server options are announced as they stand', () => {
  const options = RegisterSection.parse({ port: 8080, haproxy_server_options: 'check  inter 2s' });
  const instance = announcementOf(UP, options, HOST);
  assert.equal(typeof instance === 'object' && instance.haproxyServerOptions, 'check  inter 2s');
});

test('a healthy service is announced under the name and address of its host, and with nothing that nobody said', () => {
  const instance = announcementOf(UP, config, HOST);
  assert.deepEqual(instance, { name: 'i-1', host: '10.0.0.5', port: 8080 });
  assert.equal(encodeNerveRecord(instance as never), '{"host":"10.0.0.5","port":8080,"name":"i-1"}');
});

test('weight is announced even if it is zero', () => {
  const weighted = RegisterSection.parse({ port: 8080, weight: 0 });
  assert.deepEqual(announcementOf(UP, weighted, HOST), {
    name: 'i-1',
    host: '10.0.0.5',
    port: 8080,
    weight: 0,
  });
});

test('labels of the service win over those of the host', () => {
  const labelled = RegisterSection.parse({ port: 8080, labels: { zone: 'b', version: '2' } });
  const host = { ...HOST, labels: { zone: 'a', region: 'eu' } };
  const instance = announcementOf(UP, labelled, host);
  assert.deepEqual(typeof instance === 'object' && instance.labels, {
    zone: 'b',
    region: 'eu',
    version: '2',
  });
});
