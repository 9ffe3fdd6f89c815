import assert from 'node:assert/strict';
import path from 'node:path';
import { describe, test } from 'node:test';

import { compareInstances, type Instance } from '@tandem/core';
import {
  bareImage,
  type ContainerQuery,
  readContainers,
  resolveSourceFiles,
  SourceSection,
} from '@tandem/discovery/testing';
import * as fc from 'fast-check';

import { type Container, containerOf } from '../../support/docker-api.ts';

const QUERY: ContainerQuery = {
  imageName: 'team/web',
  labels: {},
  containerPort: 80,
  requireHealthy: true,
  host: '10.0.0.5',
  name: undefined,
};

function read(containers: unknown, query: Partial<ContainerQuery> = {}) {
  return readContainers(containers, { ...QUERY, ...query });
}

/** The one instance that is made of a container like this, or undefined. */
function instanceOf(changes: Container, query: Partial<ContainerQuery> = {}): Instance | undefined {
  return read([containerOf(1, changes)], query)?.instances[0];
}

function portOf(Ports: unknown, host = QUERY.host): number | undefined {
  return instanceOf({ Ports }, { host })?.port;
}

function published(IP: string, PublicPort: number): Container {
  return { IP, PrivatePort: 80, PublicPort, Type: 'tcp' };
}

describe('containers', () => {
  test('a container is one instance, however many addresses its port is published on', () => {
    assert.deepEqual(read([containerOf(1)]), {
      instances: [{ name: 'web-1', host: '10.0.0.5', port: 32_001, labels: { zone: 'a' } }],
      rejected: [],
    });
  });

  test('images are compared without tag and digest, whatever Docker leaves out of their names', () => {
    for (const [image, bare] of [
      ['web', 'web'],
      ['web:1.2', 'web'],
      ['registry.test:5000/team/web', 'registry.test:5000/team/web'],
      ['registry.test:5000/team/web:1.2', 'registry.test:5000/team/web'],
      ['web:1.2@sha256:abcd', 'web'],
      ['web@sha256:abcd', 'web'],
      ['docker.io/library/nginx:1.25', 'nginx'],
      ['docker.io/team/web', 'team/web'],
      ['', ''],
    ] as const)
      assert.equal(bareImage(image), bare);
    assert.equal(instanceOf({ Image: 'docker.io/team/web:9' })?.name, 'web-1');
    for (const Image of ['web:1.2', 'other/team/web', 'team/web2', 'sha256:abcd', 7, null])
      assert.equal(instanceOf({ Image }), undefined);
  });

  test('labels choose containers, with and without an image', () => {
    const labels = { app: ['web', 'shop'] };
    assert.equal(instanceOf({ Labels: { app: 'shop' } }, { labels })?.name, 'web-1');
    assert.equal(
      instanceOf({ Image: 'x', Labels: { app: 'web' } }, { imageName: undefined, labels })?.port,
      32_001,
    );
    for (const Labels of [{ app: 'other' }, {}, null, 'app=web', { app: ['web'] }])
      assert.equal(instanceOf({ Labels }, { labels }), undefined);
    assert.equal(instanceOf({ Labels: {} }, { labels: { constructor: ['x'] } }), undefined);
  });

  test('the port is read in the form of every generation', () => {
    assert.equal(portOf([{ PrivatePort: 80, PublicPort: 49_153, Type: 'tcp' }]), 49_153);
    assert.equal(portOf([{ PrivatePort: 80, PublicPort: 49_153 }]), 49_153);
    assert.equal(portOf('0.0.0.0:49153->80/tcp, 0.0.0.0:49154->81/tcp, 22/tcp'), 49_153);
    assert.equal(portOf('49153->80/tcp'), 49_153);
    assert.equal(portOf('[::]:49153->80/tcp'), 49_153);
    for (const nothing of [
      '0.0.0.0:49153->80/udp',
      '80/tcp',
      '0.0.0.0:99999->80/tcp',
      '0.0.0.0:0->80/tcp',
      '0.0.0.0:49153->80/tcp\nserver x',
      '',
      [],
      null,
      [published('0.0.0.0', 0)],
      [published('0.0.0.0', 65_536)],
      [{ PrivatePort: 80, PublicPort: '49153', Type: 'tcp' }],
      [{ IP: '0.0.0.0', PrivatePort: 80, PublicPort: 5353, Type: 'udp' }],
      [{ IP: 7, PrivatePort: 80, PublicPort: 5353, Type: 'tcp' }],
      [null, 7, 'x'],
    ])
      assert.equal(portOf(nothing), undefined, JSON.stringify(nothing));
  });

  test('of several bindings the one is taken that callers reach, always the same', () => {
    const both = [published('::', 40_006), published('0.0.0.0', 40_004)];
    assert.equal(portOf(both), 40_004);
    assert.equal(portOf(both, '2001:db8::1'), 40_006);
    assert.equal(portOf([...both, published('10.0.0.5', 40_009)]), 40_009);
    assert.equal(portOf([published('0.0.0.0', 40_002), published('0.0.0.0', 40_001)]), 40_001);
    assert.equal(portOf([published('192.168.0.1', 40_001)]), 40_001);
    assert.equal(portOf([published('127.0.0.1', 40_001)]), undefined);
    assert.equal(portOf([published('127.0.0.1', 40_001)], '127.0.0.1'), 40_001);
  });

  test('a container joins when it runs and is well', () => {
    for (const changes of [
      { Status: 'Up 5 minutes (healthy)' },
      { Status: 'Up 5 minutes', Health: { Status: 'none', FailingStreak: 0 } },
      { Status: 'Up 5 minutes', Health: { Status: 'healthy', FailingStreak: 0 } },
      { State: undefined, Status: 'Up 5 minutes' },
      { State: undefined, Status: undefined },
    ])
      assert.equal(instanceOf(changes)?.name, 'web-1', JSON.stringify(changes));
    for (const changes of [
      { State: 'paused', Status: 'Up 5 minutes (Paused)' },
      { State: undefined, Status: 'Up 5 minutes (Paused)' },
      { State: 'restarting', Status: 'Restarting (1) 2 seconds ago' },
      { State: undefined, Status: 'Exited (0) 2 seconds ago' },
      { State: 'exited' },
    ]) {
      assert.deepEqual(read([containerOf(1, changes)]), { instances: [], rejected: [] });
      assert.equal(instanceOf(changes, { requireHealthy: false }), undefined);
    }
    for (const changes of [
      { Status: 'Up 5 minutes (unhealthy)' },
      { Status: 'Up 2 seconds (health: starting)' },
      { Health: { Status: 'starting', FailingStreak: 0 } },
      { Health: { Status: 'unhealthy', FailingStreak: 3 } },
    ]) {
      assert.deepEqual(read([containerOf(1, changes)]), { instances: [], rejected: [] });
      assert.equal(instanceOf(changes, { requireHealthy: false })?.name, 'web-1');
    }
  });

  test('an instance is called as its container, unless the configuration says otherwise', () => {
    assert.equal(instanceOf({ Names: ['/other/alias', '/web-7'] })?.name, 'web-7');
    assert.equal(instanceOf({ Names: ['/web\n 7'] })?.name, '000000000000');
    assert.equal(instanceOf({ Names: null })?.name, '000000000000');
    assert.equal(instanceOf({ Names: ['/'.repeat(9)], Id: '$(reboot)' })?.name, '');
    assert.equal(instanceOf({}, { name: 'docker-1' })?.name, 'docker-1');
  });

  test('what cannot be an instance is rejected with its place, and costs itself only', () => {
    assert.deepEqual(read([7, containerOf(2), containerOf(1, { Ports: [] }), null]), {
      instances: [{ name: 'web-2', host: '10.0.0.5', port: 32_002, labels: { zone: 'a' } }],
      rejected: [
        { place: 'container 0', reason: 'is not an object' },
        { place: 'web-1', reason: 'publishes no port for 80/tcp that callers could reach' },
        { place: 'container 3', reason: 'is not an object' },
      ],
    });
  });

  test('labels are bounded, and only text', () => {
    const many = Object.fromEntries(Array.from({ length: 300 }, (_, index) => [`k${1000 + index}`, 'v']));
    assert.equal(Object.keys(instanceOf({ Labels: many })?.labels ?? {}).length, 100);
    const Labels = { a: 'x', long: 'x'.repeat(2000), number: 7, ['k'.repeat(2000)]: 'x', nothing: null };
    assert.deepEqual(instanceOf({ Labels })?.labels, { a: 'x' });
  });

  test('what is no list of containers is nothing at all, rather than no containers', () => {
    for (const answer of [
      undefined,
      null,
      {},
      'x',
      { message: 'page not found' },
      Array.from({ length: 20_000 }),
    ])
      assert.equal(read(answer), undefined);
    assert.deepEqual(read([]), { instances: [], rejected: [] });
  });

  test('whatever a daemon says, the snapshot is in order, bounded and made of harmless names', () => {
    const json = fc.jsonValue({ maxDepth: 2 });
    const field = (good: fc.Arbitrary<unknown>) => fc.oneof({ weight: 9, arbitrary: good }, json);
    const binding = fc.record({
      IP: field(fc.constantFrom('0.0.0.0', '::', '127.0.0.1', '10.0.0.5')),
      PrivatePort: fc.constantFrom(80, 81),
      PublicPort: field(fc.integer({ min: -1, max: 65_537 })),
      Type: field(fc.constantFrom('tcp', 'udp')),
    });
    const container = fc.record(
      {
        Id: field(fc.constant('ab'.repeat(32))),
        Names: field(fc.array(fc.oneof(fc.constantFrom('/a', '/b'), fc.string({ unit: 'binary' })))),
        Image: field(fc.constantFrom('team/web:1', 'team/web')),
        Ports: field(fc.array(field(binding), { maxLength: 4 })),
        Labels: field(fc.dictionary(fc.string(), json)),
        State: field(fc.constantFrom('running', 'paused')),
        Status: field(fc.constantFrom('Up 1 second', 'Up 1 second (healthy)')),
      },
      { requiredKeys: ['Image', 'Ports'] },
    );
    fc.assert(
      fc.property(fc.array(field(container), { maxLength: 12 }), (containers) => {
        const { instances, rejected } = read(containers) ?? assert.fail('it is a list');
        for (const [index, { name, host, port, labels = {} }] of instances.entries()) {
          assert.match(name, /^[A-Za-z0-9_.-]{0,63}$/);
          assert.equal(host, '10.0.0.5');
          assert.ok(Number.isInteger(port) && port >= 1 && port <= 65_535);
          for (const value of Object.values(labels)) assert.equal(typeof value, 'string');
          const next = instances[index + 1];
          if (next !== undefined) assert.ok(compareInstances({ name, host, port }, next) < 0);
        }
        assert.ok(instances.length + rejected.length <= containers.length);
      }),
      { numRuns: 300 },
    );
  });
});

describe('docker in a service file', () => {
  function optionsOf(docker: unknown) {
    const parsed = SourceSection.safeParse({ docker });
    return parsed.data?.kind === 'docker' ? parsed.data.options : undefined;
  }

  test('the daemon of this host is the default, and callers reach it by loopback', () => {
    const options = optionsOf({ image_name: 'docker.io/team/web', container_port: 80 });
    assert.equal(options?.servers[0]?.api.socketPath, '/var/run/docker.sock');
    assert.equal(options?.servers[0]?.host, '127.0.0.1');
    assert.equal(options?.imageName, 'team/web');
    assert.equal(options?.requireHealthy, true);
    assert.equal(options?.resyncMs, 30_000);
  });

  test('callers go to the host of the api, unless another one is named', () => {
    const hostsOf = (server: Record<string, unknown>) =>
      optionsOf({ servers: [server], image_name: 'web', container_port: 80 })?.servers[0]?.host;
    assert.equal(hostsOf({ api: 'http://10.0.0.7:2375' }), '10.0.0.7');
    assert.equal(hostsOf({ api: 'https://[2001:db8::1]:2376' }), '2001:db8::1');
    assert.equal(hostsOf({ api: 'http://10.0.0.7:2375', host: '10.0.0.8' }), '10.0.0.8');
    assert.equal(hostsOf({ api: 'unix:///run/podman/podman.sock', host: '10.0.0.9' }), '10.0.0.9');
  });

  test('files are named from where the service file stands', () => {
    const tls = { ca_file: 'ca.pem', cert_file: '/etc/cert.pem', key_file: '/etc/key.pem' };
    const section = { docker: { servers: [{ tls }], image_name: 'web', container_port: 80 } };
    const absolute = (file: string) => path.resolve('/etc/tandem/services.d', file);
    const resolved = resolveSourceFiles(SourceSection.parse(section), absolute);
    assert.deepEqual(resolved.kind === 'docker' ? resolved.options.servers[0]?.tls : undefined, {
      caFile: '/etc/tandem/services.d/ca.pem',
      certFile: '/etc/cert.pem',
      keyFile: '/etc/key.pem',
    });
  });

  test('what says too little, or something else than it seems to, is refused', () => {
    const good = { image_name: 'web', container_port: 80 };
    assert.notEqual(optionsOf(good), undefined);
    assert.notEqual(optionsOf({ labels: { app: 'web' }, container_port: 80 }), undefined);
    for (const wrong of [
      { container_port: 80 },
      { image_name: 'web' },
      { ...good, image_name: 'web:1.2' },
      { ...good, image_name: 'web@sha256:abcd' },
      { ...good, container_port: 0 },
      { ...good, resync: '10ms' },
      { ...good, servers: [] },
      { ...good, servers: [{ api: '/var/run/docker.sock' }] },
      { ...good, servers: [{ api: 'unix://docker.sock' }] },
      { ...good, servers: [{ api: 'ftp://10.0.0.5' }] },
      { ...good, servers: [{ api: 'http://user:secret@10.0.0.5:2375' }] },
      { ...good, servers: [{ api: 'http://10.0.0.5:2375/x' }] },
      { ...good, servers: [{ host: '10.0.0.5\nserver' }] },
      { ...good, servers: [{ tls: { cert_file: '/etc/cert.pem' } }] },
    ])
      assert.equal(optionsOf(wrong), undefined, JSON.stringify(wrong));
  });
});
