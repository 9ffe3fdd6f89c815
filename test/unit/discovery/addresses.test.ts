import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { type Instance, silentLog, type Snapshot } from '@tandem/core';
import {
  type AddressResolver,
  createAddressResolver,
  publishedBy,
  queryName,
  withAddresses,
} from '@tandem/discovery/testing';
import * as fc from 'fast-check';

import { follow, sourceConformance } from '../../conformance/source.ts';
import { startDnsServer, type Zone } from '../../support/dns-server.ts';
import { eventually } from '../../support/eventually.ts';
import { listen } from '../../support/registries.ts';

function at(host: string, name = host, port = 80): Instance {
  return { name, host, port };
}

/** A source that says what it is told to. */
function scripted(...first: Instance[]) {
  let current: Snapshot | undefined = first.length === 0 ? undefined : { instances: first, rejected: [] };
  const readers = new Set<(snapshot: Snapshot) => void>();
  return {
    source: {
      watch: (signal: AbortSignal) =>
        publishedBy<Snapshot>(signal, async (publish, signal) => {
          readers.add(publish);
          if (current !== undefined) publish(current);
          await once(signal, 'abort');
          readers.delete(publish);
        }),
    },
    readers,
    yields: (...instances: Instance[]) => {
      current = { instances, rejected: [] };
      for (const publish of readers) publish(current);
    },
  };
}

async function watching(t: TestContext, zones: Record<string, Zone>, ...first: Instance[]) {
  const server = await startDnsServer(zones);
  const { log, lines } = listen();
  const { source, yields } = scripted(...first);
  const resolver = createAddressResolver({ nameservers: [server.address], hostsFile: '/nowhere' });
  const watch = follow(withAddresses(source, { resolver, log }));
  t.after(async () => {
    await watch.stop();
    await server.close();
  });
  return { server, yields, watch, lines };
}

async function askedFor(asked: readonly string[], question: string, times: number): Promise<void> {
  await eventually(() => assert.ok(asked.filter((one) => one === question).length >= times));
}

sourceConformance('addresses', async (...members) => {
  const announced = (member: number) => at(`web-${member}`, `i-${member}`);
  const { source, readers, yields } = scripted();
  const server = await startDnsServer();
  let wanted: Instance[] = [];
  let isHidden = members.length === 0;
  const show = () => {
    const zone = (member: number): Zone => (isHidden ? 'servfail' : { a: [`10.0.0.${member}`] });
    for (let member = 1; member < 10; member += 1) server.zones.set(`web-${member}`, zone(member));
  };
  const serve = (...numbers: number[]) => {
    wanted = numbers.map(announced).toSorted((a, b) => (a.name < b.name ? -1 : 1));
    yields(...wanted);
  };
  show();
  if (!isHidden) serve(...members);
  return {
    source: withAddresses(source, {
      resolver: createAddressResolver({ nameservers: [server.address], hostsFile: '/nowhere' }),
      log: silentLog,
    }),
    instanceOf: (member) => at(`10.0.0.${member}`, `i-${member}`),
    serve(...numbers) {
      // While it is away, the source behind it is, too.
      if (isHidden) wanted = numbers.map(announced);
      else serve(...numbers);
    },
    hide() {
      isHidden = true;
      show();
    },
    restore() {
      isHidden = false;
      show();
      yields(...wanted);
    },
    serveWithBroken(...numbers) {
      yields(...numbers.map(announced), at('not a name', 'z'));
    },
    leftovers: () => readers.size,
    close: () => server.close(),
  };
});

describe('hosts with names', () => {
  test('addresses pass at once, as the same objects, and nobody is asked for them', async (t) => {
    const literals = [at('10.0.0.1'), at('2001:db8::1')];
    const { server, watch } = await watching(t, {}, ...literals);
    await watch.shows(...literals);
    for (const [index, instance] of (watch.latest?.instances ?? []).entries())
      assert.equal(instance, literals[index]);
    assert.deepEqual(server.asked, []);
  });

  test('are looked up as well when they come among addresses, or in the place of one', async (t) => {
    const zones = { web: { a: ['10.0.0.9'] }, api: { a: ['10.0.0.8'] } };
    const [a, b, c] = [at('10.0.0.1', 'a'), at('10.0.0.2', 'b'), at('10.0.0.3', 'c')];
    const { yields, watch } = await watching(t, zones, a, b, c);
    await watch.shows(a, b, c);
    yields(a, b, at('web', 'bb'), c);
    await watch.shows(a, b, at('10.0.0.9', 'bb'), c);
    yields(a, c);
    await watch.shows(a, c);
    yields(a, at('api', 'c'));
    await watch.shows(a, at('10.0.0.8', 'c'));
  });

  test('get the lowest of their addresses, by number, and keep it as long as it is among them', async (t) => {
    const { server, watch } = await watching(t, { web: { a: ['10.0.0.30', '10.0.0.4'], ttl: 1 } }, at('web'));
    await watch.shows(at('10.0.0.4', 'web'));
    server.zones.set('web', { a: ['10.0.0.3', '10.0.0.4'], ttl: 1 });
    await askedFor(server.asked, 'A web', 3);
    assert.equal(watch.snapshots.length, 1);
    server.zones.set('web', { a: ['10.0.0.5', '10.0.0.30'], ttl: 1 });
    await watch.shows(at('10.0.0.5', 'web'));
  });

  test('keep their address whatever is answered later, and it is said once', async (t) => {
    const { server, watch, lines } = await watching(t, { web: { a: ['10.0.0.1'], ttl: 0 } }, at('web'));
    await watch.shows(at('10.0.0.1', 'web'));
    for (const trouble of ['servfail', 'nxdomain'] as const) {
      server.zones.set('web', trouble);
      await askedFor(server.asked, 'A web', server.asked.length + 1);
    }
    await sleep(50);
    assert.equal(watch.snapshots.length, 1);
    assert.deepEqual(
      lines.map(({ facts }) => facts),
      [{ names: ['web'] }],
    );
    server.zones.set('web', { a: ['10.0.0.2'] });
    await watch.shows(at('10.0.0.2', 'web'));
    assert.equal(lines.length, 2);
  });

  test('that have never been answered are set aside with the reason until they are', async (t) => {
    const { server, watch } = await watching(
      t,
      { web: { a: ['10.0.0.1'] }, lost: 'servfail' },
      at('lost'),
      at('missing'),
      at('web'),
    );
    await watch.shows(at('10.0.0.1', 'web'));
    await eventually(() =>
      assert.deepEqual(watch.latest?.rejected, [
        { place: 'lost_lost:80', reason: 'the nameserver has failed' },
        { place: 'missing_missing:80', reason: 'the name does not exist' },
      ]),
    );
    server.zones.set('lost', { a: ['10.0.0.2'] });
    await watch.shows(at('10.0.0.1', 'web'), at('10.0.0.2', 'lost'));
    assert.equal(watch.latest?.rejected.length, 1);
  });

  test('one takes the place of another without a gap', async (t) => {
    const zones = { web: { a: ['10.0.0.1'] }, other: { a: ['10.0.0.2'] } };
    const { yields, watch } = await watching(t, zones, at('web'));
    await watch.shows(at('10.0.0.1', 'web'));
    yields(at('other'));
    await watch.shows(at('10.0.0.2', 'other'));
    assert.equal(watch.snapshots.length, 2);
  });

  test('whose nameserver is away say nothing, until it is back', async (t) => {
    const { server, watch } = await watching(
      t,
      { web: 'servfail', other: 'refused' },
      at('web'),
      at('other'),
    );
    await askedFor(server.asked, 'A web', 3);
    assert.equal(watch.latest, undefined);
    server.zones.set('web', { a: ['10.0.0.1'] });
    server.zones.set('other', 'nxdomain');
    await eventually(() => assert.equal(watch.latest?.instances.length, 1));
  });

  test('one that is never answered delays nobody else', async () => {
    const resolver: AddressResolver = {
      async resolve(name, signal) {
        if (name === 'hangs') await once(signal, 'abort');
        return { kind: 'found', records: [name === 'web' ? '10.0.0.1' : '10.0.0.2'], ttlMs: 60_000 };
      },
    };
    const { source, yields } = scripted(at('10.0.0.9'), at('hangs'), at('web'));
    await using watch = follow(withAddresses(source, { resolver, log: silentLog }));
    await watch.shows(at('10.0.0.9'), at('10.0.0.1', 'web'));
    yields(at('10.0.0.9'), at('hangs'), at('other'), at('web'));
    await watch.shows(at('10.0.0.9'), at('10.0.0.2', 'other'), at('10.0.0.1', 'web'));
  });

  test('the first snapshot comes with all that can be told soon, not name by name', async (t) => {
    const names = Array.from({ length: 200 }, (_, index) => `web-${index}`);
    const zones = Object.fromEntries(names.map((name, index) => [name, { a: [`10.0.1.${index}`] }]));
    const { watch } = await watching(t, zones, ...names.map((name) => at(name)));
    await eventually(() => assert.equal(watch.latest?.instances.length, 200));
    assert.ok(watch.snapshots.length < 10, `${watch.snapshots.length} snapshots`);
  });

  test('are not asked for any more when nobody announces them', async (t) => {
    const { server, yields, watch } = await watching(t, { web: { a: ['10.0.0.1'], ttl: 0 } }, at('web'));
    await watch.shows(at('10.0.0.1', 'web'));
    yields(at('10.0.0.9'));
    await watch.shows(at('10.0.0.9'));
    const { length } = server.asked;
    await sleep(1_300);
    assert.equal(server.asked.length, length);
  });

  test('two of one host and port are one instance', async (t) => {
    const zones = { a: { a: ['10.0.0.1'] }, b: { a: ['10.0.0.1'] } };
    const { watch } = await watching(t, zones, at('10.0.0.1', 'i'), at('a', 'i'), at('b', 'i'));
    await watch.shows(at('10.0.0.1', 'i'));
    assert.deepEqual(watch.latest?.rejected, []);
  });

  test('what is not a name is never asked for', async (t) => {
    const hostile = [
      'a b',
      'a\nb',
      'web;rm',
      '$(web)',
      '../web',
      '-web',
      'web..com',
      '',
      '1.2.3',
      '0x7f000001',
      '127.1',
      '[::1]',
      'ünicode',
      'x'.repeat(64),
      `${'x.'.repeat(130)}com`,
    ];
    const { server, watch } = await watching(t, {}, ...hostile.map((host, index) => at(host, `i-${index}`)));
    await watch.shows();
    assert.equal(watch.latest?.rejected.length, hostile.length);
    assert.deepEqual(server.asked, []);
  });

  test('a resolver that breaks its promise costs a name its answer, not the watch', async () => {
    const resolver: AddressResolver = { resolve: () => Promise.reject(new Error('out of order')) };
    const { source } = scripted(at('10.0.0.1'), at('web'));
    await using watch = follow(withAddresses(source, { resolver, log: silentLog }));
    await watch.shows(at('10.0.0.1'));
    assert.deepEqual(watch.latest?.rejected, [{ place: 'web_web:80', reason: 'out of order' }]);
  });

  test('what ends or fails behind it ends or fails before it', async () => {
    const resolver = createAddressResolver();
    const failing = {
      async *watch() {
        yield { instances: [at('10.0.0.1')], rejected: [] };
        await sleep(20);
        throw new Error('the source is broken');
      },
    };
    const watch = follow(withAddresses(failing, { resolver, log: silentLog }));
    await eventually(() => assert.equal(watch.isOver, true));
    await assert.rejects(watch.stop(), /the source is broken/);
  });
});

describe('the resolver of hosts', () => {
  const { signal } = new AbortController();

  test('knows what the file of hosts says, as it is today, before it asks anybody', async (t) => {
    const directory = mkdtempSync(path.join(tmpdir(), 'tandem-hosts-'));
    const hostsFile = path.join(directory, 'hosts');
    writeFileSync(hostsFile, '# nothing\n10.0.0.1 Web web.example.com # more\n::1 web six\nbroken web\n');
    const server = await startDnsServer({ other: { a: ['10.0.0.9'], ttl: 7 } });
    t.after(async () => {
      rmSync(directory, { recursive: true });
      await server.close();
    });
    const resolver = createAddressResolver({ nameservers: [server.address], hostsFile });
    // Those who come while it is being read for the first time wait for it.
    for (const { kind } of await Promise.all([1, 2, 3].map(() => resolver.resolve('web', signal))))
      assert.equal(kind, 'found');
    const addressesOf = async (name: string) => {
      const answer = await resolver.resolve(name, signal);
      return answer.kind === 'found' ? answer.records : answer.reason;
    };
    assert.deepEqual(await addressesOf('web'), ['10.0.0.1']);
    assert.deepEqual(await addressesOf('web.example.com'), ['10.0.0.1']);
    assert.deepEqual(await addressesOf('six'), ['::1']);
    assert.deepEqual(await addressesOf('localhost'), ['127.0.0.1']);
    assert.deepEqual(server.asked, []);
    assert.deepEqual(await resolver.resolve('other', signal), {
      kind: 'found',
      records: ['10.0.0.9'],
      ttlMs: 7_000,
    });
    assert.equal(await addressesOf('missing'), 'the name does not exist');
    writeFileSync(hostsFile, '10.0.0.77 web\n');
    await eventually(async () => assert.deepEqual(await addressesOf('web'), ['10.0.0.77']));
    rmSync(hostsFile);
    await sleep(1_100);
    assert.deepEqual(await addressesOf('web'), ['10.0.0.77']);
  });

  test('a lookup ends with its signal', async (t) => {
    const server = await startDnsServer({ hangs: 'silence' });
    t.after(() => server.close());
    const resolver = createAddressResolver({ nameservers: [server.address], hostsFile: '/nowhere' });
    const controller = new AbortController();
    // More than are asked for at a time.
    const lookups = Array.from({ length: 100 }, () => resolver.resolve('hangs', controller.signal));
    await eventually(() => assert.ok(server.asked.length > 0));
    controller.abort(new Error('enough'));
    for (const result of await Promise.allSettled(lookups))
      assert.match(result.status === 'rejected' ? String(result.reason) : '', /enough/);
    assert.deepEqual((await resolver.resolve('localhost', signal)).kind, 'found');
  });

  test('a thousand names are asked for, a few at a time', async (t) => {
    const server = await startDnsServer({ web: { a: ['10.0.0.1'] } });
    t.after(() => server.close());
    const resolver = createAddressResolver({ nameservers: [server.address], hostsFile: '/nowhere' });
    const answers = await Promise.all(Array.from({ length: 1_000 }, () => resolver.resolve('web', signal)));
    assert.ok(answers.every(({ kind }) => kind === 'found'));
  });

  test('a name that is asked for is one, and asking for it again is the same', () => {
    const label = fc.stringMatching(/^[A-Za-z0-9_-]{1,10}$/);
    const names = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.array(label, { minLength: 1, maxLength: 4 }).map((labels) => labels.join('.')),
    );
    fc.assert(
      fc.property(names, (text) => {
        const name = queryName(text);
        if (name === undefined) return;
        assert.match(name, /^[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?$/);
        assert.equal(queryName(name), name);
        assert.ok(
          name.length <= 253 && name.split('.').every((label) => label.length > 0 && label.length < 64),
        );
        assert.doesNotMatch(name, /^[0-9.]+$/);
      }),
    );
    assert.equal(queryName('Web.Example.COM.'), 'web.example.com');
    assert.equal(queryName('10-0-0-1.pod'), '10-0-0-1.pod');
  });
});
