import assert from 'node:assert/strict';
import path from 'node:path';
import { describe, test } from 'node:test';

import { RegistrySection, resolveRegistryFiles, servicePath } from '@tandem/registry';

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
        tls: undefined,
        auth: undefined,
        acl: 'open',
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
  test('TLS and auth can be said, and their files are taken from the place of the host file', () => {
    const section = RegistrySection.parse({
      zookeeper: {
        ...ZOOKEEPER,
        tls: { ca_file: 'ca.pem', cert_file: '/etc/cert.pem', key_file: 'keys/key.pem', server_name: 'zk' },
        auth: { scheme: 'digest', credentials_file: 'zk.auth' },
        acl: 'creator-all',
      },
    });
    const resolved = resolveRegistryFiles(section, (file) => path.resolve('/host', file));
    assert.ok(resolved.kind === 'zookeeper');
    const { tls, auth, acl } = resolved.zookeeper;
    assert.deepEqual(tls, {
      caFile: '/host/ca.pem',
      certFile: '/etc/cert.pem',
      keyFile: '/host/keys/key.pem',
      serverName: 'zk',
    });
    assert.deepEqual(auth, { scheme: 'digest', credentialsFile: '/host/zk.auth' });
    assert.equal(acl, 'creator-all');
  });

  test('TLS without any file trusts whom the system trusts', () => {
    const section = RegistrySection.parse({ zookeeper: { ...ZOOKEEPER, tls: {} } });
    assert.ok(section.kind === 'zookeeper');
    const { tls } = section.zookeeper;
    assert.deepEqual(Object.values(tls ?? { missing: true }), [undefined, undefined, undefined, undefined]);
  });

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
    ['a server that is named twice', { servers: ['zk1', 'zk2', 'ZK1:2181'] }, 'zookeeper.servers.2'],
    ['a key without its certificate', { ...ZOOKEEPER, tls: { key_file: 'k' } }, 'zookeeper.tls.key_file'],
    ['a certificate without its key', { ...ZOOKEEPER, tls: { cert_file: 'c' } }, 'zookeeper.tls.cert_file'],
    [
      'a server name that is none',
      { ...ZOOKEEPER, tls: { server_name: 'a b' } },
      'zookeeper.tls.server_name',
    ],
    [
      'a server name with a port',
      { ...ZOOKEEPER, tls: { server_name: 'zk:2281' } },
      'zookeeper.tls.server_name',
    ],
    ['auth without a file', { ...ZOOKEEPER, auth: {} }, 'zookeeper.auth.credentials_file'],
    [
      'a scheme that nobody speaks',
      { ...ZOOKEEPER, auth: { scheme: 'sasl', credentials_file: 'c' } },
      'zookeeper.auth.scheme',
    ],
    ['creator-all without credentials', { ...ZOOKEEPER, acl: 'creator-all' }, 'zookeeper.acl'],
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
