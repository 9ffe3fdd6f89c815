import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';

import type { AddressResolver, DnsAnswer } from '@tandem/core';
import { chooseAddress } from '@tandem/registrar/testing';

import { createScriptedCheck } from './scripted.ts';
import { enter, type Scene } from './scene.ts';
import { createFakeRegistry, HOST, registration } from './support.ts';

const NAMED = { ...HOST, address: 'web-1.example.net' };

function found(...records: string[]): DnsAnswer<string> {
  return { kind: 'found', records, ttlMs: 5_000 };
}

/** Names as the test has them; what is not there is not known to anybody. */
function createNames(answers: Record<string, DnsAnswer<string>>): AddressResolver & { asked: number } {
  const names = {
    asked: 0,
    resolve(name: string) {
      names.asked += 1;
      return Promise.resolve(answers[name] ?? ({ kind: 'failed', reason: 'no server answers' } as const));
    },
  };
  return names;
}

function hosts({ registry }: Scene): string[] {
  return [...registry.standing.values()].map(({ name, host }) => `${name} ${host}`).toSorted();
}

test('an instance has the name and the address that its service says, and else those of the host', async (t) => {
  const scene = await enter(t);
  scene.registrar.update([
    registration('a', { port: 1 }),
    registration('b', { port: 2, address: '10.9.9.9', instance_id: 'i-1-blue' }),
  ]);
  await scene.clock.advance(100);
  assert.deepEqual(hosts(scene), ['i-1 10.0.0.5', 'i-1-blue 10.9.9.9']);
  const [, second] = scene.registrar.status();
  assert.deepEqual([second?.name, second?.host], ['i-1-blue', '10.9.9.9']);
});

test('another address or instance id is announced before the one before it goes', async (t) => {
  const scene = await enter(t);
  const { registrar, clock } = scene;
  // The fake tells places apart by path and port, so each has a path of its own.
  registrar.update([registration('a', { port: 1 }, '/a1')]);
  await clock.advance(100);
  scene.news();
  registrar.update([registration('a', { port: 1, address: '10.9.9.9' }, '/a2')]);
  await clock.advance(100);
  assert.deepEqual(scene.news(), ['claim /a2 1', 'set /a2 1', 'withdraw /a1 1', 'release /a1 1']);
  assert.deepEqual(hosts(scene), ['i-1 10.9.9.9']);
});

test('until the name of the host is found nothing is announced or withdrawn, and nobody else waits', async (t) => {
  const answers: Record<string, DnsAnswer<string>> = {};
  const resolver = createNames(answers);
  const scene = await enter(t, { host: NAMED, resolver });
  const { registrar, registry, clock } = scene;
  registrar.update([registration('a', { port: 1 }), registration('b', { port: 2, address: '10.9.9.9' })]);
  await clock.advance(60_000);
  assert.deepEqual(hosts(scene), ['i-1 10.9.9.9']);
  assert.ok(!registry.history.includes('withdraw unclaimed'), 'it may be what an earlier life had announced');
  assert.equal(scene.said('cannot find the address of a host, what is announced by it stays as it is'), 1);
  assert.ok(resolver.asked >= 3 && resolver.asked < 60);
  const waiting = registrar.status().find(({ service }) => service === 'a');
  assert.equal(waiting?.role, 'waiting');
  assert.equal(waiting.waitsFor, 'the address of web-1.example.net');
  assert.equal(waiting.host, 'web-1.example.net');
  answers['web-1.example.net'] = found('10.0.0.7');
  await clock.advance(30_000);
  assert.deepEqual(hosts(scene), ['i-1 10.0.0.7', 'i-1 10.9.9.9']);
  assert.ok(registry.history.includes('withdraw unclaimed'));
});

test('a name that stands for another address moves the service there; an outage of the DNS moves nothing', async (t) => {
  const answers: Record<string, DnsAnswer<string>> = { 'web-1.example.net': found('10.0.0.7', '10.0.0.8') };
  const scene = await enter(t, {
    host: NAMED,
    resolver: createNames(answers),
    checks: { 1: createScriptedCheck('pass') },
  });
  const { registrar, clock } = scene;
  registrar.update([registration('a', { port: 1, checks: [{ tcp: { interval: '1s' } }] })]);
  await clock.advance(100);
  assert.deepEqual(hosts(scene), ['i-1 10.0.0.7']);
  answers['web-1.example.net'] = { kind: 'none', reason: 'there is no such name' };
  await clock.advance(60_000);
  assert.deepEqual(hosts(scene), ['i-1 10.0.0.7']);
  answers['web-1.example.net'] = found('10.0.0.8', '10.0.0.9');
  await clock.advance(60_000);
  assert.deepEqual(hosts(scene), ['i-1 10.0.0.8']);
  assert.equal(registrar.status().length, 1);
});

test('a restart while the DNS is down goes on under the address that was known', async (t) => {
  const stateDir = await mkdtemp(path.join(tmpdir(), 'tandem-addresses-'));
  t.after(() => rm(stateDir, { recursive: true }));
  const answers: Record<string, DnsAnswer<string>> = { 'web-1.example.net': found('10.0.0.7') };
  const registry = createFakeRegistry();
  const options = { host: NAMED, resolver: createNames(answers), stateDir, registry };
  const first = await enter(t, options);
  first.registrar.update([registration('a', { port: 1 })]);
  await first.clock.advance(100);
  await first.registrar.stop();
  answers['web-1.example.net'] = { kind: 'failed', reason: 'no server answers' };
  registry.history.splice(0);
  const second = await enter(t, options);
  second.registrar.update([registration('a', { port: 1 })]);
  await second.clock.advance(100);
  assert.deepEqual(second.news(), ['claim /services/a 1', 'set /services/a 1', 'withdraw unclaimed']);
  assert.deepEqual(hosts(second), ['i-1 10.0.0.7']);
});

test('of several addresses the same one is taken again and again; loopback ones are of no use to others', () => {
  const choose = (current: string | undefined, ...records: string[]) => {
    const choice = chooseAddress(found(...records), current);
    return choice.ok ? choice.address : undefined;
  };
  assert.equal(choose(undefined, '10.0.0.8', '10.0.0.7'), '10.0.0.7');
  assert.equal(choose('10.0.0.8', '10.0.0.7', '10.0.0.8'), '10.0.0.8');
  assert.equal(choose('10.0.0.8', '10.0.0.7'), '10.0.0.7');
  assert.equal(choose(undefined, '127.0.1.1', '10.0.0.7'), '10.0.0.7');
  assert.equal(choose(undefined, '2001:db8::1'), '2001:db8::1');
  for (const useless of ['0.0.0.0', '::', '::1', 'fe80::1', '::ffff:127.0.0.1'])
    assert.equal(choose(undefined, useless), undefined);
  assert.deepEqual(chooseAddress(found('127.0.1.1', '::1'), '127.0.1.1'), {
    ok: false,
    reason: 'it stands for 127.0.1.1, ::1, which no other host can use',
  });
});
