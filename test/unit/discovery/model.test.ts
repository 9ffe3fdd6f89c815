import assert from 'node:assert/strict';
import { isIP } from 'node:net';
import { test } from 'node:test';

import { renderConfig } from '@tandem/discovery';
import { buildMembership, adoptServers, serverAddress, serverArguments } from '@tandem/discovery/testing';
import * as fc from 'fast-check';

import { membersOf, offersOf, serversOf, structureOf } from './support.ts';

const GOOD = { name: 'good', host: '10.0.0.1', port: 80 };

const HOSTILE_HOSTS = [
  'localhost',
  'web.example',
  'unix@/tmp/x',
  '/tmp/x',
  'abns@x',
  'ipv4@10.0.0.1',
  '*',
  '',
  '127.1',
  '0x7f000001',
  '2130706433',
  '010.0.0.1',
  '10.0.0.1:80',
  '10.0.0.1 backup',
  '10.0.0.1\n',
  '10.0.0.1;show info',
  '10.0.0.1#',
  '"10.0.0.1"',
  '${X}',
  '$X',
  'fe80::1%eth0',
  '::1%1',
  '[::1]',
  '0.0.0.0',
  '::',
  '0:0::0',
  '::0.0.0.0',
];
const HOSTILE_NAMES = [
  'x\n  server evil 10.9.9.9:1',
  'x\r',
  'x;show info',
  'x#y',
  '$X',
  '${X}',
  '"x"',
  "'x'",
  'x y',
  'x\ty',
  'x\\',
  '<<',
  'x<<',
  'x/y',
  'x@y',
  '\0',
  'ü',
  'x'.repeat(200),
];

test('a host that is not a plain address is set aside, with a reason and without a trace', () => {
  for (const host of HOSTILE_HOSTS) {
    const { membership, rejected } = buildMembership(
      offersOf({ web: [{ name: 'evil', host, port: 81 }, GOOD] }),
    );
    assert.deepEqual(
      membership.get('web')?.map(({ name }) => name),
      ['good_10.0.0.1:80'],
      host,
    );
    assert.match(rejected.get('web')?.[0]?.reason ?? '', /^the host is /, host);
    assert.doesNotMatch(renderConfig(structureOf(), membership).text, /evil/);
  }
});

test('a name with anything but letters, digits and _.:- is set aside', () => {
  for (const name of HOSTILE_NAMES) {
    const offers = offersOf({ web: [{ name, host: '10.9.9.9', port: 81 }, GOOD] });
    const { membership, rejected } = buildMembership(offers);
    assert.equal(membership.get('web')?.length, 1, name);
    assert.equal(rejected.get('web')?.length, 1, name);
    assert.ok((rejected.get('web')?.[0]?.place.length ?? 0) <= 128);
    assert.doesNotMatch(renderConfig(structureOf(), membership).text, /10\.9\.9\.9/);
  }
});

test('whatever a registry says, every server is harmless words on one line', () => {
  const hostile = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.constantFrom(...HOSTILE_NAMES, ...HOSTILE_HOSTS, 'a', ''),
  );
  const instance = fc.record({
    name: hostile,
    host: fc.oneof(hostile, fc.ipV4(), fc.ipV6()),
    port: fc.integer({ min: 1, max: 65_535 }),
    weight: fc.integer({ min: -5, max: 1_000 }),
    haproxyServerOptions: hostile,
    labels: fc.dictionary(hostile, hostile),
  });
  fc.assert(
    fc.property(fc.array(instance, { maxLength: 20 }), (instances) => {
      const servers = serversOf(instances);
      const ids = new Set(servers.map(({ id }) => id));
      assert.equal(ids.size, servers.length);
      for (const server of servers) {
        const line = `server ${server.name} ${serverAddress(server)} ${serverArguments(server, '')}`;
        assert.match(line, /^server [A-Za-z0-9_.:-]+ [0-9a-f.:[\]]+ id \d+ weight \d+ [a-z0-9 -]+$/);
        assert.ok(isIP(server.address) !== 0);
        assert.ok(server.id >= 1 && server.id <= 0x7fff_ffff);
        assert.ok(server.weight >= 0 && server.weight <= 256);
      }
      const text = renderConfig(structureOf(), membersOf(instances)).text;
      assert.equal(text.split('\n').filter((text) => text.startsWith('  server ')).length, servers.length);
    }),
    { numRuns: 100 },
  );
});

test('the order in which instances come changes nothing, and the first of equals wins', () => {
  const instances = Array.from({ length: 20 }, (_, index) => ({
    name: `i${index}`,
    host: '10.0.0.1',
    port: index + 1,
  }));
  assert.deepEqual(serversOf(instances.toReversed()), serversOf(instances));
  const twins = serversOf([
    { name: 'a', host: '::1', port: 1, weight: 5 },
    { name: 'a', host: '0:0::1', port: 1, weight: 9 },
  ]);
  assert.deepEqual(
    twins.map(({ name, weight }) => [name, weight]),
    [['a_::1:1', 5]],
  );
});

test('ids are those of earlier versions: hosts that differ in age must agree on them', () => {
  const [server] = serversOf([{ name: 'i-1', host: '10.0.0.5', port: 8080 }]);
  assert.equal(server?.id, 1_098_112_475);
});

test('IPv6 addresses are written as HAProxy reports them', () => {
  for (const [host, address] of [
    ['2001:DB8:0:0:0:0:0:1', '2001:db8::1'],
    ['1:0:0:2:0:0:0:3', '1:0:0:2::3'],
    ['::ffff:102:304', '::ffff:1.2.3.4'],
  ] as const) {
    const [server] = serversOf([{ name: '', host, port: 80 }]);
    assert.equal(server?.address, address);
    assert.equal(server.name, `${address}:80`);
    assert.equal(serverAddress(server), `[${address}]:80`);
  }
});

test('a weight that nobody announced is 1, and weights stay between 0 and 256', () => {
  const weights = [undefined, 0, 256, 257, 1e9].map(
    (weight) => serversOf([{ ...GOOD, ...(weight === undefined ? {} : { weight }) }])[0]?.weight,
  );
  assert.deepEqual(weights, [1, 0, 256, 256, 256]);
});

test('only backends that nothing is known of take over what HAProxy has, and only what is safe and in rotation', () => {
  const reported = { id: 1, address: '10.0.0.9', port: 80, weight: 3, state: 'ready' } as const;
  const servers = [
    { ...reported, name: 'kept' },
    { ...reported, name: 'drained', state: 'drain' as const },
    { ...reported, name: 'unresolved', address: '-' },
    { ...reported, name: 'odd name' },
  ];
  const desired = { structure: structureOf(), membership: new Map() };
  assert.deepEqual(
    adoptServers(desired, new Map([['web', servers]]))
      .get('web')
      ?.map(({ name, weight }) => [name, weight]),
    [['kept', 3]],
  );
  const known = { structure: structureOf(), membership: membersOf([GOOD]) };
  assert.equal(adoptServers(known, new Map([['web', servers]])).get('web')?.[0]?.name, 'good_10.0.0.1:80');
  assert.equal(adoptServers(desired, new Map([['foreign', servers]])).size, 0);
});
