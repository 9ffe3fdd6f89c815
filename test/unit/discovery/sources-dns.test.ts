import assert from 'node:assert/strict';
import { describe, test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { type Instance, type Log, parseYaml, silentLog } from '@tandem/core';
import { createSource, type Source, SourceSection } from '@tandem/discovery/testing';
import { openRegistry, RegistrySection } from '@tandem/registry';

import { follow, sourceConformance, type SourceSubject } from '../../conformance/source.ts';
import { type DnsServer, startDnsServer, type Zone } from '../../support/dns-server.ts';
import { eventually } from '../../support/eventually.ts';
import { listen } from '../../support/registries.ts';

async function sourceOf(section: object, log: Log = silentLog): Promise<Source> {
  const registry = await openRegistry(RegistrySection.parse({ memory: {} }), { log: silentLog });
  const scene = {
    registry,
    path: '/services/web',
    format: { kind: 'nerve' },
    hostName: 'host-1',
    log,
  } as const;
  const fast = { min_ttl: '100ms', max_ttl: '200ms', timeout: '500ms' };
  return createSource(SourceSection.parse({ dns: { ...fast, ...section } }), scene);
}

const WEB = 'web.example.com';

function at(host: string, name = WEB, port = 80): Instance {
  return { name, host, port };
}

function timers(): number {
  return process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
}

/** By addresses of one name. */
async function hostSubject(...first: number[]): Promise<SourceSubject> {
  const server = await startDnsServer();
  const before = timers();
  const zoneOf = (members: number[]): Zone => ({ a: members.map((member) => `10.0.0.${member}`) });
  let zone = zoneOf(first);
  let isHidden = first.length === 0;
  const show = () => void server.zones.set(WEB, isHidden ? 'servfail' : zone);
  show();
  return {
    source: await sourceOf({ names: [{ host: WEB, port: 80 }], nameservers: [server.address] }),
    instanceOf: (member) => at(`10.0.0.${member}`),
    serve(...members) {
      zone = zoneOf(members);
      show();
    },
    hide() {
      isHidden = true;
      show();
    },
    restore() {
      isHidden = false;
      show();
    },
    serveWithBroken: () => assert.fail('an address is an address'),
    leftovers: () => Math.max(0, timers() - before),
    close: () => server.close(),
  };
}

/** By SRV records; away is a server that says nothing. */
async function srvSubject(...first: number[]): Promise<SourceSubject> {
  const server = await startDnsServer();
  const before = timers();
  const targetOf = (member: number) => `i-${member}.example.com`;
  let isHidden = first.length === 0;
  let zone: Zone = {};
  const show = () => void server.zones.set('_http._tcp.web', isHidden ? 'silence' : zone);
  const serve = (members: number[]) => {
    zone = {
      srv: members.map((member) => ({ target: targetOf(member), port: 8000 + member, weight: member })),
    };
    show();
  };
  for (let member = 1; member < 10; member += 1)
    server.zones.set(targetOf(member), { a: [`10.0.0.${member}`] });
  serve(first);
  return {
    source: await sourceOf({
      names: [{ srv: '_http._tcp.web', labels: { zone: 'a' } }],
      nameservers: [server.address],
    }),
    instanceOf: (member) => ({
      ...at(`10.0.0.${member}`, targetOf(member), 8000 + member),
      weight: member,
      labels: { zone: 'a' },
    }),
    serve: (...members) => serve(members),
    hide() {
      isHidden = true;
      show();
    },
    restore() {
      isHidden = false;
      show();
    },
    serveWithBroken(...members) {
      server.zones.set('lost.example.com', 'servfail');
      zone = {
        srv: [
          { target: 'lost.example.com', port: 80 },
          { target: 'bad name!', port: 80 },
          ...members.map((member) => ({ target: targetOf(member), port: 8000 + member, weight: member })),
        ],
      };
      show();
    },
    leftovers: () => Math.max(0, timers() - before),
    close: () => server.close(),
  };
}

sourceConformance('dns (addresses)', hostSubject, { broken: 'an address is an address' });
sourceConformance('dns (services)', srvSubject);

async function watching(t: TestContext, zones: Record<string, Zone>, section: object) {
  const server = await startDnsServer(zones);
  const { log, lines } = listen();
  const watch = follow(await sourceOf({ nameservers: [server.address], ...section }, log));
  t.after(async () => {
    await watch.stop();
    await server.close();
  });
  return { server, watch, lines };
}

async function askedAgain(server: DnsServer, times: number): Promise<void> {
  const before = server.asked.length;
  await eventually(() => assert.ok(server.asked.length >= before + times));
}

describe('names as a source', { concurrency: 4 }, () => {
  test('of a host with both families the first is taken, unless the other is wanted', async (t) => {
    const zones = { [WEB]: { a: ['10.0.0.1'], aaaa: ['2001:db8::1'] }, six: { aaaa: ['2001:db8::6'] } };
    for (const [family, expected] of [
      ['any', [at('10.0.0.1'), at('2001:db8::6', 'six')]],
      ['ipv4', [at('10.0.0.1')]],
      ['ipv6', [at('2001:db8::1'), at('2001:db8::6', 'six')]],
      ['both', [at('10.0.0.1'), at('2001:db8::1'), at('2001:db8::6', 'six')]],
    ] as const) {
      const names = [WEB, 'six'].map((host) => ({ host, port: 80 }));
      const { watch } = await watching(t, zones, { names, family });
      await watch.shows(...expected);
      assert.equal(watch.snapshots.length, 1);
    }
  });

  test('several are one, and nothing is said before every one of them has been answered', async (t) => {
    const names = [
      { host: WEB, port: 80, weight: 3 },
      { host: 'other', port: 81 },
      { host: '10.0.0.9', port: 82 },
    ];
    const { server, watch, lines } = await watching(
      t,
      { [WEB]: { a: ['10.0.0.1'] }, other: 'refused' },
      { names, timeout: '5s' },
    );
    await askedAgain(server, 6);
    assert.equal(watch.latest, undefined);
    server.zones.set('other', { a: ['10.0.0.1'] });
    const literal = { name: '', host: '10.0.0.9', port: 82 };
    await watch.shows({ ...at('10.0.0.1'), weight: 3 }, at('10.0.0.1', 'other', 81), literal);
    assert.equal(watch.snapshots.length, 1);
    assert.deepEqual(
      lines.map(({ message, facts }) => [message, facts]),
      [
        [
          'a name is not answered, keeping what it last stood for',
          { name: 'other', reason: 'the nameserver refuses to answer' },
        ],
        ['a name is answered again', { name: 'other' }],
      ],
    );
  });

  test('one that fails, in whatever way, keeps what it stood for, while the others go on', async (t) => {
    const names = [WEB, 'other'].map((host) => ({ host, port: 80 }));
    const zones = { [WEB]: { a: ['10.0.0.1'] }, other: { a: ['10.0.1.1'] } };
    const { server, watch } = await watching(t, zones, { names });
    await watch.shows(at('10.0.0.1'), at('10.0.1.1', 'other'));
    for (const [index, trouble] of (['servfail', 'refused', 'silence', 'garbage'] as const).entries()) {
      server.zones.set(WEB, trouble);
      await askedAgain(server, 8);
      server.zones.set('other', { a: [`10.0.1.${index + 2}`] });
      await watch.shows(at('10.0.0.1'), at(`10.0.1.${index + 2}`, 'other'));
    }
    for (const { instances } of watch.snapshots) assert.equal(instances.length, 2);
  });

  test('a nameserver that goes away takes nothing with it', async (t) => {
    const { server, watch, lines } = await watching(
      t,
      { [WEB]: { a: ['10.0.0.1'] } },
      { names: [{ host: WEB, port: 80 }] },
    );
    await watch.shows(at('10.0.0.1'));
    await server.close();
    await eventually(() => assert.equal(lines.length, 1));
    await sleep(300);
    assert.equal(watch.snapshots.length, 1);
    assert.equal(lines.length, 1);
  });

  test('that a name does not exist, or has no addresses, counts when it is said twice in a row', async (t) => {
    const { server, watch } = await watching(
      t,
      { [WEB]: { a: ['10.0.0.1'] } },
      { names: [{ host: WEB, port: 80 }], family: 'ipv4' },
    );
    for (const nothing of ['nxdomain', {}] as const) {
      server.zones.set(WEB, { a: ['10.0.0.1'] });
      await watch.shows(at('10.0.0.1'));
      const before = server.asked.length;
      server.zones.set(WEB, nothing);
      await watch.shows();
      assert.ok(server.asked.length >= before + 2);
    }
  });

  test('said once it is nothing', async (t) => {
    const { server, watch } = await watching(
      t,
      { [WEB]: { a: ['10.0.0.1'] } },
      { names: [{ host: WEB, port: 80 }], family: 'ipv4', min_ttl: '300ms', max_ttl: '300ms' },
    );
    await watch.shows(at('10.0.0.1'));
    server.zones.set(WEB, 'nxdomain');
    await askedAgain(server, 1);
    server.zones.set(WEB, { a: ['10.0.0.1', '10.0.0.2'] });
    await watch.shows(at('10.0.0.1'), at('10.0.0.2'));
    assert.deepEqual(
      watch.snapshots.map(({ instances }) => instances.length),
      [1, 2],
    );
  });

  test('are asked again when the TTL has run out, within what is configured', async (t) => {
    const zones: Record<string, Zone> = {
      never: { a: ['10.0.0.1'], ttl: 0 },
      long: { a: ['10.0.0.2'], ttl: 86_400 },
      exact: { a: ['10.0.0.3'], ttl: 1 },
    };
    const server = await startDnsServer(zones);
    t.after(() => server.close());
    const countOf = (name: string) => server.asked.filter((asked) => asked.endsWith(` ${name}`)).length;
    const names = Object.keys(zones).map((host) => ({ host, port: 80 }));
    // Nobody is asked twice for being slow.
    const limits = { min_ttl: '200ms', max_ttl: '1m', timeout: '10s', nameservers: [server.address] };
    await using watch = follow(await sourceOf({ names, ...limits }));
    await eventually(() => assert.ok(countOf('exact') >= 3));
    assert.ok(countOf('never') > countOf('exact'), server.asked.join());
    assert.ok(countOf('never') <= 2 + Math.ceil(15_000 / 200));
    assert.equal(countOf('long'), 1);
    assert.equal(watch.snapshots.length, 1);
  });

  test('nobody is asked any more when the watch has ended', async (t) => {
    const server = await startDnsServer({ [WEB]: { a: ['10.0.0.1'] }, slow: 'silence' });
    t.after(() => server.close());
    const names = [WEB, 'slow'].map((host) => ({ host, port: 80 }));
    const watch = follow(await sourceOf({ names, nameservers: [server.address], timeout: '10s' }));
    await eventually(() => assert.ok(server.asked.includes('A slow')));
    const before = performance.now();
    await watch.stop();
    assert.ok(performance.now() - before < 5_000);
    const { length } = server.asked;
    await sleep(400);
    assert.equal(server.asked.length, length);
  });
});

describe('service records', () => {
  const names = [{ srv: '_http._tcp.web' }];
  const hosts: Record<string, Zone> = {
    a: { a: ['10.0.0.1'] },
    b: { a: ['10.0.0.2'] },
    c: { a: ['10.0.0.3'] },
  };

  test('the most preferred priority counts alone, the next one when nothing of it is anywhere', async (t) => {
    const srv = [
      { target: 'a', port: 80, priority: 10 },
      { target: 'b', port: 80, priority: 20 },
      { target: 'c', port: 80, priority: 10 },
    ];
    const { server, watch } = await watching(t, { ...hosts, '_http._tcp.web': { srv } }, { names });
    await watch.shows(at('10.0.0.1', 'a'), at('10.0.0.3', 'c'));
    server.zones.delete('a');
    await watch.shows(at('10.0.0.3', 'c'));
    server.zones.delete('c');
    await watch.shows(at('10.0.0.2', 'b'));
  });

  test('weights are those of HAProxy: in proportion, none of them zero, none over 256', async (t) => {
    const srv = (...weights: number[]) => ({
      srv: weights.map((weight, index) => ({ target: 'abc'[index] ?? '', port: 80, weight })),
    });
    const { server, watch } = await watching(t, { ...hosts, '_http._tcp.web': srv(0, 0, 0) }, { names });
    const weights = () => watch.latest?.instances.map(({ weight }) => weight);
    await eventually(() => assert.deepEqual(weights(), [undefined, undefined, undefined]));
    for (const [given, expected] of [
      [
        [1, 2, 3],
        [1, 2, 3],
      ],
      [
        [0, 100, 256],
        [1, 100, 256],
      ],
      [
        [65_535, 32_768, 1],
        [256, 128, 1],
      ],
    ] as const) {
      server.zones.set('_http._tcp.web', srv(...given));
      await eventually(() => assert.deepEqual(weights(), expected));
    }
  });

  test('a target that is not answered keeps its addresses, also when others come and go', async (t) => {
    const srv = (...targets: string[]) => ({ srv: targets.map((target) => ({ target, port: 80 })) });
    const { server, watch } = await watching(t, { ...hosts, '_http._tcp.web': srv('a', 'b') }, { names });
    await watch.shows(at('10.0.0.1', 'a'), at('10.0.0.2', 'b'));
    server.zones.set('a', 'servfail');
    server.zones.set('_http._tcp.web', srv('a', 'c'));
    await watch.shows(at('10.0.0.1', 'a'), at('10.0.0.3', 'c'));
    assert.deepEqual(watch.latest?.rejected, []);
  });

  test('a service that is decidedly nowhere has no instances', async (t) => {
    const zone = { srv: [{ target: '.', port: 0 }] };
    const { watch } = await watching(t, { '_http._tcp.web': zone }, { names });
    await watch.shows();
  });
});

describe('the configuration of names', () => {
  const problemOf = (text: string) => {
    const loaded = parseYaml(`dns: ${text}`, 'web.yaml', SourceSection);
    return loaded.ok ? '' : loaded.problems.map(({ path, reason }) => `${path}: ${reason}`).join('\n');
  };

  test('mistakes are told where they are', () => {
    assert.equal(problemOf('{ names: [{ host: web, port: 80 }, { srv: _http._tcp.web }] }'), '');
    assert.match(problemOf('{ names: [] }'), /dns.names: must be at least 1/);
    for (const entry of ['{ host: web }', '{ srv: web, port: 80 }', '{}', '{ srv: web, weight: 3 }'])
      assert.match(
        problemOf(`{ names: [${entry}] }`),
        /dns.names\[0\]: must have either host and port, or srv/,
      );
    for (const host of [
      '"a b"',
      '"web;x"',
      '-web',
      '1.2.3',
      '0x7f.0x1',
      '""',
      '"a..b"',
      `"${'x'.repeat(64)}"`,
    ])
      assert.match(problemOf(`{ names: [{ host: ${host}, port: 80 }] }`), /must be the name of a host/, host);
    for (const server of ['web', '10.0.0.1:0', '10.0.0.1:99999', '"[::1]"', '"[10.0.0.1]:53"', '"::1:"'])
      assert.match(
        problemOf(`{ names: [{ host: web, port: 80 }], nameservers: [${server}] }`),
        /nameservers\[0\]: must be an address/,
        server,
      );
    for (const server of ['10.0.0.1', '10.0.0.1:5353', '"::1"', '"[::1]:53"'])
      assert.equal(problemOf(`{ names: [{ host: web, port: 80 }], nameservers: [${server}] }`), '', server);
    assert.match(
      problemOf('{ names: [{ host: web, port: 80 }], min_ttl: 2m }'),
      /dns.min_ttl: must not be longer than max_ttl/,
    );
  });
});
