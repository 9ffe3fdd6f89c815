import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { RegistrySection, servicePath } from '@tandem/registry';

const ZOOKEEPER = { servers: ['zk1', '[::1]:2182'] };

function problems(section: unknown): string[] {
  const parsed = RegistrySection.safeParse(section);
  return parsed.success
    ? []
    : parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`);
}

describe('registry section', () => {
  test('the defaults are filled in', () => {
    assert.deepEqual(RegistrySection.parse({ zookeeper: ZOOKEEPER }), {
      kind: 'zookeeper',
      zookeeper: {
        servers: [
          { host: 'zk1', port: 2181 },
          { host: '::1', port: 2182 },
        ],
        chroot: '',
        sessionTimeoutMs: 16_000,
        pathEncoding: false,
        mirror: 'auto',
      },
      pathTemplate: '/services/{service}',
    });
  });

  test('everything can be said', () => {
    const section = RegistrySection.parse({
      zookeeper: { ...ZOOKEEPER, chroot: '/smartstack', session_timeout: '4s', path_encoding: true },
      path_template: '/nerve/{service}/instances',
    });
    assert.ok(section.kind === 'zookeeper');
    assert.deepEqual(
      [section.zookeeper.chroot, section.zookeeper.sessionTimeoutMs, section.zookeeper.pathEncoding],
      ['/smartstack', 4000, true],
    );
    assert.equal(servicePath(section, 'web'), '/nerve/web/instances');
  });

  test('a registry in memory needs nothing but its name', () => {
    assert.deepEqual(RegistrySection.parse({ memory: {} }), {
      kind: 'memory',
      pathTemplate: '/services/{service}',
    });
  });

  for (const [what, section] of [
    ['no kind of registry', {}],
    ['two kinds at once', { zookeeper: ZOOKEEPER, memory: {} }],
  ] as const) {
    test(`${what} is refused, and the known ones are named`, () => {
      assert.deepEqual(problems(section), [
        ': must have exactly one kind of registry (known: zookeeper, memory)',
      ]);
    });
  }

  test('a service with the marks of a replacement pattern in its name is taken as it is', () => {
    assert.equal(servicePath({ pathTemplate: '/services/{service}' }, '$&$1'), '/services/$&$1');
  });

  for (const template of ['/services', '/{service}/{service}', 'services/{service}', '/a//{service}', '']) {
    test(`the path template ${JSON.stringify(template)} is refused`, () => {
      const found = problems({ zookeeper: ZOOKEEPER, path_template: template });
      assert.ok(found.length > 0 && found.every((problem) => problem.startsWith('path_template: ')));
    });
  }

  for (const [what, zookeeper, place] of [
    ['no server', { servers: [] }, 'zookeeper.servers'],
    ['a port that is none', { servers: ['zk1', 'zk2:99999'] }, 'zookeeper.servers.1'],
    ['a chroot with a trailing slash', { ...ZOOKEEPER, chroot: '/a/' }, 'zookeeper.chroot'],
    ['a chroot that is the root', { ...ZOOKEEPER, chroot: '/' }, 'zookeeper.chroot'],
    [
      'a session timeout that is too short',
      { ...ZOOKEEPER, session_timeout: '10ms' },
      'zookeeper.session_timeout',
    ],
    [
      'a session timeout that is a number',
      { ...ZOOKEEPER, session_timeout: 4000 },
      'zookeeper.session_timeout',
    ],
  ] as const) {
    test(`${what} is refused with its place`, () => {
      assert.deepEqual(
        problems({ zookeeper }).map((problem) => problem.split(':')[0]),
        [place],
      );
    });
  }

  test('a key that nobody knows is refused', () => {
    assert.equal(problems({ zookeeper: { ...ZOOKEEPER, timeout: '1s' } }).length, 1);
    assert.equal(problems({ zookeeper: ZOOKEEPER, etcd: {} }).length, 1);
    assert.equal(problems({ zookeper: ZOOKEEPER }).length, 1);
    assert.equal(problems({ memory: { size: 1 } }).length, 1);
  });
});
