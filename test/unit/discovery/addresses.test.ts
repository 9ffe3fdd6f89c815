import assert from 'node:assert/strict';
import { once, setMaxListeners } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import {
  type AddressResolver,
  createAddressResolver,
  createTurns,
  type Instance,
  queryName,
  type Rank,
  silentLog,
  type Snapshot,
} from '@tandem/core';
import { createAddressMemory, publishedBy, withAddresses } from '@tandem/discovery/testing';
import * as fc from 'fast-check';

import { follow, sourceConformance } from '../../conformance/source.ts';
import { startDnsServer, type Zone } from '../../support/dns-server.ts';
import { eventually } from '../../support/eventually.ts';
import { listen } from '../../support/registries.ts';
import { inDirectory } from '../../support/directory.ts';

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

describe('hosts with names', { concurrency: 4 }, () => {
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

describe('many names that nobody answers', () => {
  test('keep no other service waiting', { timeout: 60_000 }, async (t) => {
    const dead = Array.from({ length: 300 }, (_, index) => `dead-${index}`);
    const zones: Record<string, Zone> = { 'fast.example': { a: ['10.0.0.2'] } };
    for (const name of dead) zones[name] = 'silence';
    const server = await startDnsServer(zones);
    const resolver = createAddressResolver({ nameservers: [server.address], hostsFile: '/nowhere' });
    const hog = scripted(...dead.map((name) => at(name)));
    const a = follow(withAddresses(hog.source, { resolver, log: silentLog }));
    t.after(async () => {
      await a.stop();
      await server.close();
    });
    await eventually(() => assert.ok(server.asked.length >= 64));
    const { source } = scripted(at('10.0.0.1'), at('fast.example', 'fast'));
    await using b = follow(withAddresses(source, { resolver, log: silentLog }));
    await b.shows(at('10.0.0.1'), at('10.0.0.2', 'fast'));
    assert.equal(b.snapshots.length, 1, 'in the first snapshot');
  });

  test('are said to be set aside while they are waited for, also among those that are answered', async (t) => {
    const { watch } = await watching(
      t,
      { web: { a: ['10.0.0.1'] }, hangs: 'silence' },
      at('hangs'),
      at('web'),
    );
    await watch.shows(at('10.0.0.1', 'web'));
    assert.deepEqual(watch.latest?.rejected, [
      { place: 'hangs_hangs:80', reason: 'no nameserver has answered yet' },
    ]);
  });

  test('cost no more for each when there are more of them', async () => {
    const costOf = async (count: number) => {
      const answers = new Map<string, (answer: { kind: 'failed'; reason: string }) => void>();
      const resolver: AddressResolver = {
        resolve: (name) => new Promise((resolve) => answers.set(name, resolve)),
      };
      const { source } = scripted(...Array.from({ length: count }, (_, index) => at(`web-${index}`)));
      await using _ = follow(withAddresses(source, { resolver, log: silentLog }));
      await eventually(() => assert.equal(answers.size, count));
      const before = process.cpuUsage();
      for (const answer of [...answers.values()].slice(0, -1)) answer({ kind: 'failed', reason: 'no' });
      await sleep(50);
      const { user, system } = process.cpuUsage(before);
      for (const answer of answers.values()) answer({ kind: 'failed', reason: 'no' });
      return user + system;
    };
    await costOf(500);
    const few = await costOf(1_000);
    const many = await costOf(16_000);
    assert.ok(many < Math.max(few, 10_000) * 100, `${few} us for a thousand, ${many} us for sixteen`);
  });
});

describe('turns', () => {
  const { signal } = new AbortController();
  setMaxListeners(0, signal);
  const settle = () => sleep(1);

  test('are never all taken by those who came first, and go to whoever has the fewest', async () => {
    const turns = createTurns(12);
    const [a, b, c] = [{}, {}, {}];
    const inside: object[] = [];
    const leavers: (() => void)[] = [];
    const ask = (by: object, times: number) => {
      for (let time = 0; time < times; time += 1)
        void (async () => {
          const leave = await turns({ by, rank: 'known' }, signal);
          inside.push(by);
          leavers.push(leave);
        })();
    };
    const taken = (by: object) => inside.filter((one) => one === by).length;
    ask(a, 100);
    await settle();
    assert.equal(taken(a), 6);
    ask(b, 100);
    await settle();
    assert.equal(taken(b), 3);
    ask(c, 1);
    await settle();
    assert.equal(taken(c), 1);
    while (leavers.length > 0) {
      leavers.shift()?.();
      await settle();
    }
    assert.deepEqual([taken(a), taken(b), taken(c)], [100, 100, 1]);
  });

  test('go first to what is new, and last to what has failed', async () => {
    const turns = createTurns(2);
    const by = {};
    const leave = await turns({ by, rank: 'known' }, signal);
    const order: string[] = [];
    const done = (['failing', 'known', 'new', 'failing', 'new'] as Rank[]).map(async (rank) => {
      const leave = await turns({ by, rank }, signal);
      order.push(rank);
      leave();
    });
    leave();
    await Promise.all(done);
    assert.deepEqual(order, ['new', 'new', 'known', 'failing', 'failing']);
  });

  test('that are not wanted any more are nobody’s', async () => {
    const turns = createTurns(2);
    const by = {};
    const leave = await turns({ by, rank: 'known' }, signal);
    const controller = new AbortController();
    const given = turns({ by, rank: 'known' }, controller.signal);
    const next = turns({ by, rank: 'known' }, signal);
    controller.abort(new Error('enough'));
    await assert.rejects(given, /enough/);
    leave();
    (await next)();
  });

  test('are all given, and never more than there are, whoever comes, leaves and loses patience', () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ by: fc.nat(4), patience: fc.nat(3) }), { maxLength: 40 }),
        fc.integer({ min: 1, max: 6 }),
        async (claims, limit) => {
          const turns = createTurns(limit);
          const owners = Array.from({ length: 5 }, () => ({}));
          let inside = 0;
          let most = 0;
          await Promise.all(
            claims.map(async ({ by, patience }) => {
              const controller = new AbortController();
              if (patience === 0) setImmediate(() => controller.abort());
              try {
                const leave = await turns({ by: owners[by] ?? {}, rank: 'known' }, controller.signal);
                inside += 1;
                most = Math.max(most, inside);
                await new Promise(setImmediate);
                inside -= 1;
                leave();
              } catch {
                assert.ok(controller.signal.aborted);
              }
            }),
          );
          assert.ok(most <= limit);
          assert.equal(inside, 0);
        },
      ),
      { numRuns: 100 },
    ));
});

describe('addresses that are remembered', { concurrency: 4 }, () => {
  const web = at('web.example', 'web');

  test('are used after a restart by names that nobody answers, and give way to what is answered', (t) =>
    inDirectory(async (directory) => {
      const file = path.join(directory, 'addresses.json');
      const server = await startDnsServer({
        'web.example': { a: ['10.0.0.1', '10.0.0.7'] },
        'lost.example': { a: ['10.0.0.2'] },
        'gone.example': { a: ['10.0.0.3'] },
      });
      t.after(() => server.close());
      const resolver = createAddressResolver({ nameservers: [server.address], hostsFile: '/nowhere' });
      const all = [at('gone.example', 'gone'), at('lost.example', 'lost'), web];
      const live = async (check: (watch: ReturnType<typeof follow>) => Promise<void>) => {
        const memory = createAddressMemory({ file, log: silentLog });
        const watch = follow(withAddresses(scripted(...all).source, { resolver, memory, log: silentLog }));
        try {
          await check(watch);
        } finally {
          await watch.stop();
          await memory.close();
        }
      };
      const whole = [at('10.0.0.3', 'gone'), at('10.0.0.2', 'lost'), at('10.0.0.1', 'web')];
      await live((watch) => watch.shows(...whole));
      server.zones.set('web.example', 'servfail');
      server.zones.set('lost.example', 'silence');
      server.zones.set('gone.example', 'nxdomain');
      await live(async (watch) => {
        await watch.shows(...whole);
        assert.equal(watch.snapshots.length, 1, 'nothing was ever missing');
      });
      // It stands for several, and keeps the one that it had.
      server.zones.set('web.example', { a: ['10.0.0.0', '10.0.0.1'] });
      await live(async (watch) => {
        await watch.shows(...whole);
        server.zones.set('lost.example', { a: ['10.0.0.22'] });
        server.zones.set('gone.example', { a: ['10.0.0.33'] });
        await watch.shows(at('10.0.0.33', 'gone'), at('10.0.0.22', 'lost'), at('10.0.0.1', 'web'));
      });
    }));

  test('a name that fails at first has a second try before its instance is set aside', async (t) => {
    const { server, watch } = await watching(t, { 'web.example': 'servfail' }, at('10.0.0.9'), web);
    await askedFor(server.asked, 'A web.example', 1);
    server.zones.set('web.example', { a: ['10.0.0.1'] });
    await watch.shows(at('10.0.0.9'), at('10.0.0.1', 'web'));
    assert.equal(watch.snapshots.length, 1);
  });

  test('are those of a day, of names and addresses only, and so many', () =>
    inDirectory(async (directory) => {
      const file = path.join(directory, 'addresses.json');
      let now = 1_700_000_000_000;
      const open = () => createAddressMemory({ file, log: silentLog, now: () => now });
      const first = open();
      for (let index = 0; index < 10_001; index += 1) first.remember(`n-${index}`, '10.0.0.1');
      first.remember('__proto__', '10.0.0.2');
      await first.close();
      const second = open();
      await second.load();
      assert.equal(second.recall('n-0'), undefined);
      assert.equal(second.recall('n-10000'), '10.0.0.1');
      assert.equal(second.recall('__proto__'), '10.0.0.2');
      now += 23 * 3_600_000;
      second.remember('n-5000', '10.0.0.1');
      now += 2 * 3_600_000;
      assert.equal(second.recall('n-10000'), undefined);
      assert.equal(second.recall('n-5000'), '10.0.0.1');
      await second.close();
      assert.equal(readFileSync(file, 'utf8').split('10.0.0.1').length, 2);
      writeFileSync(
        file,
        JSON.stringify({
          version: 1,
          names: [
            ['a b', '10.0.0.1', now],
            ['web', '${X}', now],
          ],
        }),
      );
      const third = open();
      await third.load();
      assert.equal(third.recall('a b'), undefined);
      assert.equal(third.recall('web'), undefined);
    }));

  test('that cannot be read or written are said once, and cost nothing else', () =>
    inDirectory(async (directory) => {
      const { log, lines } = listen();
      const file = path.join(directory, 'gone', 'addresses.json');
      const memory = createAddressMemory({ file, log });
      await memory.load();
      assert.deepEqual(lines, []);
      memory.remember('web', '10.0.0.1');
      await eventually(() => assert.equal(lines.length, 1));
      assert.equal(memory.recall('web'), '10.0.0.1');
      await memory.close();
      assert.equal(existsSync(file), false);
      writeFileSync(path.join(directory, 'half'), '{"version":1,"nam');
      const half = createAddressMemory({ file: path.join(directory, 'half'), log });
      await half.load();
      assert.equal(half.recall('web'), undefined);
      assert.equal(lines.length, 2);
    }));
});
