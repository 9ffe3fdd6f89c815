// The redis check against a real server.
import assert from 'node:assert/strict';
import { chmod, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';

import { createAuthority } from '../support/certificates.ts';
import {
  assertFrozen,
  assertKilled,
  checkOf,
  probe,
  untilPasses,
  wordsFor,
  wordsOf,
} from '../support/probes.ts';
import { freePorts } from '../support/real-zookeeper.ts';
import { createServerDirectory, own, startRedis } from '../support/real-servers.ts';

const timeout = 120_000;

test(
  'a redis check tells a server that is well from one that is frozen, killed or gone',
  { timeout },
  async () => {
    const server = await startRedis();
    try {
      const check = checkOf({ redis: {} }, server.port);
      await untilPasses(check);
      assert.equal(await wordsFor({ redis: { role: 'master' } }, server.port), 'passed');
      assert.equal(
        await wordsFor({ redis: { role: 'replica' } }, server.port),
        'its role is master, not replica',
      );
      assert.match(
        await wordsFor({ redis: { password: 'secret' } }, server.port),
        /^answers AUTH with an error: ERR AUTH/,
      );
      await assertFrozen(check, server);
      await assertKilled(check, server);
    } finally {
      await server.stop();
    }
  },
);

test(
  'a redis check logs in, with a password or a file that may change, and shows neither',
  { timeout },
  async () => {
    const server = await startRedis([
      '--requirepass',
      'open-sesame',
      '--user',
      'probe',
      'on',
      '>secret',
      '+ping',
    ]);
    try {
      await untilPasses(checkOf({ redis: { password: 'open-sesame' } }, server.port));
      assert.match(
        await wordsFor({ redis: {} }, server.port),
        /^asks for a password: set password_file \(NOAUTH/,
      );
      const wrong = await wordsFor({ redis: { password: 'hush hush' } }, server.port);
      assert.match(wrong, /^refuses the password or the user \(WRONGPASS/);
      assert.doesNotMatch(wrong, /hush/);
      const user = { user: 'probe', password: 'secret' };
      assert.equal(await wordsFor({ redis: user }, server.port), 'passed');
      assert.match(
        await wordsFor({ redis: { ...user, role: 'master' } }, server.port),
        /^forbids this to the user/,
      );

      const file = path.join(server.directory, 'password');
      const check = checkOf({ redis: { password_file: file } }, server.port);
      assert.equal(wordsOf(await probe(check)), `${file} does not exist`);
      await writeFile(file, 'open-sesame\n');
      await chmod(file, 0o644);
      assert.equal(
        wordsOf(await probe(check)),
        `passed, but others may read the password in ${file}: chmod 0600 ${file}`,
      );
      await chmod(file, 0o600);
      assert.equal(wordsOf(await probe(check)), 'passed');
      await writeFile(file, 'shut-sesame\n');
      assert.match(wordsOf(await probe(check)), /^refuses the password/);
    } finally {
      await server.stop();
    }
  },
);

test('a redis check knows a replica, and one whose master is away', { timeout }, async () => {
  const [nobody = 0] = await freePorts(1);
  const settings = ['--replicaof', '127.0.0.1', String(nobody), '--replica-serve-stale-data', 'no'];
  const server = await startRedis(settings.slice(0, 3));
  const stale = await startRedis(settings);
  try {
    await untilPasses(checkOf({ redis: { role: 'replica' } }, server.port));
    assert.equal(
      await wordsFor({ redis: { role: 'master' } }, server.port),
      'its role is replica, not master',
    );
    let words = '';
    do words = await wordsFor({ redis: {} }, stale.port);
    while (words === 'connection refused');
    assert.match(words, /^is a replica whose master is away \(MASTERDOWN/);
  } finally {
    await Promise.all([server.stop(), stale.stop()]);
  }
});

test('a redis check speaks TLS, and says what is wrong with a certificate', { timeout }, async () => {
  const directory = await createServerDirectory('certificates');
  const authority = await createAuthority(directory, 'authority');
  const { certFile, keyFile } = await authority.issue('redis', ['DNS:redis.test']);
  const client = await authority.issue('probe', ['DNS:probe.test']);
  for (const file of [certFile, keyFile, authority.caFile]) own(file);
  const [port = 0] = await freePorts(1);
  const files = [
    '--tls-cert-file',
    certFile,
    '--tls-key-file',
    keyFile,
    '--tls-ca-cert-file',
    authority.caFile,
  ];
  const secured = await startRedis(['--tls-port', String(port), ...files]);
  try {
    const proof = { ca_file: authority.caFile, cert_file: client.certFile, key_file: client.keyFile };
    const tls = { ...proof, server_name: 'redis.test' };
    await untilPasses(checkOf({ redis: { tls, role: 'master' } }, port));
    assert.equal(
      await wordsFor({ redis: { tls: proof } }, port),
      'TLS: the certificate of the service is not for 127.0.0.1, only for DNS:redis.test: ' +
        'set tls.server_name to a name that it has',
    );
    assert.match(
      await wordsFor({ redis: { tls: true } }, port),
      /^TLS: the certificate of the service .*: name the/,
    );
    assert.match(
      await wordsFor({ redis: { tls: { ca_file: authority.caFile, server_name: 'redis.test' } } }, port),
      /^TLS: the service asks for a certificate/,
    );
  } finally {
    await secured.stop();
    await rm(directory, { recursive: true });
  }
});
