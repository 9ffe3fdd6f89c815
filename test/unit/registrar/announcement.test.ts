import assert from 'node:assert/strict';
import { test } from 'node:test';

import { encodeNerveRecord } from '@tandem/core';
import { announcementOf, RegisterSection } from '@tandem/registrar';

import { HOST } from './support.ts';

const config = RegisterSection.parse({ port: 8080 });

test('an unhealthy service is not announced', () => {
  assert.equal(announcementOf('down', config, HOST), undefined);
});

test('a service of unknown health stays as it is', () => {
  assert.equal(announcementOf('unknown', config, HOST), 'undecided');
});

test('a healthy service is announced under the name and address of its host, and with nothing that nobody said', () => {
  const instance = announcementOf('up', config, HOST);
  assert.deepEqual(instance, { name: 'i-1', host: '10.0.0.5', port: 8080 });
  assert.equal(encodeNerveRecord(instance as never), '{"host":"10.0.0.5","port":8080,"name":"i-1"}');
});

test('weight is announced even if it is zero', () => {
  const weighted = RegisterSection.parse({ port: 8080, weight: 0 });
  assert.deepEqual(announcementOf('up', weighted, HOST), {
    name: 'i-1',
    host: '10.0.0.5',
    port: 8080,
    weight: 0,
  });
});

test('labels of the service win over those of the host', () => {
  const labelled = RegisterSection.parse({ port: 8080, labels: { zone: 'b', version: '2' } });
  const host = { ...HOST, labels: { zone: 'a', region: 'eu' } };
  const instance = announcementOf('up', labelled, host);
  assert.deepEqual(typeof instance === 'object' && instance.labels, {
    zone: 'b',
    region: 'eu',
    version: '2',
  });
});
