import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { describe, test } from 'node:test';

import { type AddressResolver, createAddressResolver, type DnsAnswer, sleep } from '@tandem/core';
import { createTarget, type Target } from '@tandem/registrar/testing';

import { startDnsServer, type Zone } from '../../support/dns-server.ts';

const NEVER = new AbortController().signal;
const SCHEDULE = { intervalMs: 2_000, timeoutMs: 30_000, rise: 1, fall: 1, initial: 'first_result' as const };

/** A resolver that says what the test wants, and counts how often it was asked. */
function scriptedResolver(answer: DnsAnswer<string>): AddressResolver & {
  answer: DnsAnswer<string> | 'silence';
  asked: number;
} {
  const resolver = {
    answer: answer as DnsAnswer<string> | 'silence',
    asked: 0,
    async resolve(_: string, signal: AbortSignal): Promise<DnsAnswer<string>> {
      resolver.asked += 1;
      if (resolver.answer === 'silence') return sleep(60_000, signal) as Promise<never>;
      return resolver.answer;
    },
  };
  return resolver;
}

function found(records: readonly string[], ttlMs = 60_000): DnsAnswer<string> {
  return { kind: 'found', records, ttlMs };
}

/** The place of `web.example` in a world whose time the test moves. */
function scene(answer: DnsAnswer<string>, timeoutMs = SCHEDULE.timeoutMs) {
  const resolver = scriptedResolver(answer);
  const clock = { now: 0 };
  const target = createTarget(
    { host: 'web.example', schedule: { ...SCHEDULE, timeoutMs } },
    { port: 80, resolver },
    () => clock.now,
  );
  return { resolver, clock, find: () => target(NEVER).then(shown) };
}

function shown(target: Target): string {
  return target.ok ? `${target.host} ${target.port}` : target.reason;
}

describe('the place that a network check probes', () => {
  test('is a literal as it stands, whatever its family; nobody is asked', async () => {
    const resolver = scriptedResolver(found([]));
    for (const host of ['127.0.0.1', '::1', 'fe80::1%lo']) {
      const target = createTarget({ host, schedule: SCHEDULE }, { port: 80, resolver });
      assert.equal(shown(await target(NEVER)), `${host} 80`);
    }
    assert.equal(resolver.asked, 0);
  });

  test('has a port of its own, or that of the service', async () => {
    const deps = { port: 80, resolver: scriptedResolver(found([])) };
    const target = createTarget({ host: '::1', port: 81, schedule: SCHEDULE }, deps);
    assert.equal(shown(await target(NEVER)), '::1 81');
  });

  test('is the address that the DNS gives, for as long as the DNS says', async () => {
    const { resolver, clock, find } = scene(found(['10.0.0.1'], 60_000));
    assert.equal(await find(), '10.0.0.1 80');
    resolver.answer = found(['10.0.0.2'], 60_000);
    clock.now = 59_999;
    assert.equal(await find(), '10.0.0.1 80');
    assert.equal(resolver.asked, 1);
    clock.now = 60_000;
    assert.equal(await find(), '10.0.0.2 80');
    assert.equal(resolver.asked, 2);
  });

  test('is asked for again after a second at the soonest, and five minutes at the latest', async () => {
    const { resolver, clock, find } = scene(found(['10.0.0.1'], 0));
    await find();
    clock.now = 999;
    await find();
    assert.equal(resolver.asked, 1);
    clock.now = 1_000;
    resolver.answer = found(['10.0.0.1'], 1e9);
    await find();
    clock.now = 301_000;
    await find();
    assert.equal(resolver.asked, 3);
  });

  test('stays while the name stands for it, among others, too', async () => {
    const { resolver, clock, find } = scene(found(['10.0.0.9', '10.0.0.10', '::1']));
    assert.equal(await find(), '10.0.0.9 80');
    clock.now = 60_000;
    resolver.answer = found(['10.0.0.1', '10.0.0.9']);
    assert.equal(await find(), '10.0.0.9 80');
  });

  test('stays while nameservers fail, and they are left alone for a while', async () => {
    const { resolver, clock, find } = scene(found(['10.0.0.1']));
    await find();
    resolver.answer = { kind: 'failed', reason: 'the nameserver has failed' };
    for (clock.now = 60_000; clock.now < 120_000; clock.now += 500) assert.equal(await find(), '10.0.0.1 80');
    assert.equal(resolver.asked, 1 + 12);
  });

  test('goes with the name when that is gone, but not at the first word of it', async () => {
    const { resolver, clock, find } = scene(found(['10.0.0.1']));
    await find();
    clock.now = 60_000;
    resolver.answer = { kind: 'none', reason: 'the name does not exist' };
    assert.equal(await find(), '10.0.0.1 80');
    clock.now += 1_000;
    assert.equal(await find(), 'the name web.example does not resolve: the name does not exist');
    resolver.answer = found(['10.0.0.2']);
    clock.now += 1_000;
    assert.equal(await find(), '10.0.0.2 80');
  });

  test('is not known without an answer, and the probe says why before its own time is up', async () => {
    const { resolver, clock, find } = scene({ kind: 'failed', reason: 'no nameserver can be reached' }, 100);
    assert.equal(await find(), 'the name web.example does not resolve: no nameserver can be reached');
    resolver.answer = 'silence';
    clock.now = 250;
    assert.equal(
      await find(),
      'the name web.example does not resolve: no nameserver has answered within 90ms',
    );
  });

  test('is the old one again when nameservers fall silent, while there is time left to probe it', async () => {
    const { resolver, clock, find } = scene(found(['10.0.0.1']), 100);
    await find();
    resolver.answer = 'silence';
    clock.now = 60_000;
    assert.equal(await find(), '10.0.0.1 80');
    assert.equal(await find(), '10.0.0.1 80');
    assert.equal(resolver.asked, 2);
  });

  test('leaves nothing on the signal of the probe, whose end ends it at once', async () => {
    const { resolver } = scene(found([]));
    resolver.answer = 'silence';
    const target = createTarget({ host: 'web.example', schedule: SCHEDULE }, { port: 80, resolver });
    const controller = new AbortController();
    const finding = target(controller.signal);
    controller.abort();
    assert.equal(shown(await finding), 'called off');
    assert.equal(getEventListeners(controller.signal, 'abort').length, 0);
  });

  test('comes from the DNS itself, IPv6 where there is nothing else', async () => {
    const zones: Record<string, Zone> = {
      'four.example': { a: ['10.0.0.1'], aaaa: ['fd00::1'] },
      'six.example': { aaaa: ['fd00::1'] },
    };
    const dns = await startDnsServer(zones);
    const resolver = createAddressResolver({ nameservers: [dns.address], hostsFile: '/nonexistent' });
    const find = (host: string) =>
      createTarget({ host, schedule: SCHEDULE }, { port: 80, resolver })(NEVER).then(shown);
    assert.equal(await find('four.example'), '10.0.0.1 80');
    assert.equal(await find('six.example'), 'fd00::1 80');
    assert.equal(await find('localhost'), '127.0.0.1 80');
    assert.match(await find('other.example'), /does not resolve: the name does not exist/);
    await dns.close();
  });

  test('is found while hundreds of other names are met with silence', async () => {
    const others = Array.from({ length: 300 }, (_, index) => `other${index}.example`);
    const dns = await startDnsServer({ 'web.example': { a: ['10.0.0.1'] } });
    for (const name of others) dns.zones.set(name, 'refused');
    const resolver = createAddressResolver({ nameservers: [dns.address], hostsFile: '/nonexistent' });
    const clock = { now: 0 };
    const targetOf = (host: string) =>
      createTarget({ host, schedule: SCHEDULE }, { port: 80, resolver }, () => clock.now);
    const targets = others.map(targetOf);
    await Promise.all(targets.map((target) => target(NEVER)));
    for (const name of others) dns.zones.set(name, 'silence');
    clock.now = 1_000;
    const controller = new AbortController();
    let ended = 0;
    const waiting = targets.map((target) => target(controller.signal).then(() => (ended += 1)));
    assert.equal(shown(await targetOf('web.example')(NEVER)), '10.0.0.1 80');
    assert.equal(ended, 0);
    controller.abort();
    await Promise.all(waiting);
    await dns.close();
  });
});
