import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { CheckSection, resolveCheckFiles } from '@tandem/registrar';

describe('the kinds of checks', () => {
  test('name files that lie beside the host file', () => {
    const resolve = (entry: Record<string, unknown>) =>
      resolveCheckFiles(CheckSection.parse(entry), (file) => `/etc/tandem/${file}`).options;
    const tls = { ca_file: 'ca.pem', cert_file: 'a.pem', key_file: 'a.key' };
    const absolute = {
      caFile: '/etc/tandem/ca.pem',
      certFile: '/etc/tandem/a.pem',
      keyFile: '/etc/tandem/a.key',
    };
    for (const kind of [{ http: { path: '/', tls } }, { grpc: { tls } }, { tcp: { tls } }])
      assert.deepEqual(
        { ...(resolve(kind) as { tls?: object }).tls },
        { verify: true, ...absolute, serverName: undefined },
      );
    const redis = resolve({ redis: { password_file: 'secret' } }) as { passwordFile?: string };
    assert.equal(redis.passwordFile, '/etc/tandem/secret');
    const entry = { command: { command: ['/bin/true'] } };
    assert.deepEqual(resolve(entry), CheckSection.parse(entry).options);
  });

  test('are told apart by their one key, and every key of theirs is described', () => {
    const { properties = {} } = CheckSection.toJSONSchema({ io: 'input', unrepresentable: 'any' });
    const undescribed: string[] = [];
    for (const [kind, section] of Object.entries(properties)) {
      const { description, properties: keys = {} } = section as { description?: string; properties?: object };
      if (description === undefined) undescribed.push(kind);
      for (const [key, { description }] of Object.entries(keys as Record<string, { description?: string }>))
        if (description === undefined) undescribed.push(`${kind}.${key}`);
    }
    assert.ok(Object.keys(properties).length >= 9);
    assert.deepEqual(undescribed, []);
  });
});
