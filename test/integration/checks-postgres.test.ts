// The postgres check against a real server.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { chmod, rm } from 'node:fs/promises';
import net from 'node:net';
import { test } from 'node:test';

import { createAuthority } from '../support/certificates.ts';
import { assertFrozen, assertKilled, checkOf, untilPasses, wordsFor } from '../support/probes.ts';
import { createServerDirectory, own, type RealServer, startPostgres } from '../support/real-servers.ts';

const timeout = 120_000;

async function assertQuiet(server: RealServer): Promise<void> {
  const text = await server.log();
  const since = text.slice(text.indexOf('database system is ready'));
  assert.doesNotMatch(since, /FATAL|ERROR|WARNING|unexpected|could not/);
}

test(
  'a postgres check logs in by every method, and leaves no complaint in the log',
  { timeout },
  async () => {
    const directory = await createServerDirectory('certificates');
    const authority = await createAuthority(directory, 'authority');
    const { certFile, keyFile } = await authority.issue('postgres', ['IP:127.0.0.1']);
    for (const file of [certFile, keyFile, directory]) own(file);
    await chmod(keyFile, 0o600);
    const server = await startPostgres(
      [
        'host all trusted 127.0.0.1/32 trust',
        'host all plain 127.0.0.1/32 password',
        'host all old 127.0.0.1/32 md5',
        'hostssl all safe 127.0.0.1/32 scram-sha-256',
        'hostnossl all safe 127.0.0.1/32 reject',
        'host all all 127.0.0.1/32 scram-sha-256',
      ],
      [
        'CREATE ROLE trusted LOGIN',
        "CREATE ROLE plain LOGIN PASSWORD 'secret'",
        "CREATE ROLE modern LOGIN PASSWORD 'secret'",
        "CREATE ROLE safe LOGIN PASSWORD 'secret'",
        "SET password_encryption = 'md5'",
        "CREATE ROLE old LOGIN PASSWORD 'secret'",
      ],
      { ssl: 'on', ssl_cert_file: certFile, ssl_key_file: keyFile },
    );
    try {
      const check = checkOf(
        { postgres: { user: 'modern', database: 'postgres', password: 'secret' } },
        server.port,
      );
      const before = await untilPasses(check);
      assert.deepEqual(
        [...before].filter((words) => !/^connection refused|57P03/.test(words)),
        [],
      );
      const login = (user: string, more: object = {}) =>
        wordsFor({ postgres: { user, database: 'postgres', ...more } }, server.port);
      const password = { password: 'secret' };
      const tls = { ca_file: authority.caFile };
      // Whoever nobody knows is asked for a password all the same.
      assert.equal(await login('nobody'), 'passed');
      assert.equal(await login('trusted'), 'passed');
      assert.equal(await login('plain', password), 'passed');
      assert.equal(await login('old', password), 'passed');
      for (let round = 0; round < 20; round += 1) await untilPasses(check);
      assert.equal(await login('safe', { ...password, tls }), 'passed');
      assert.equal(await login('nobody', { tls }), 'passed');
      await assertQuiet(server);

      for (const user of ['plain', 'old', 'modern', 'nobody']) {
        const wrong = await login(user, { password: 'hush' });
        assert.match(wrong, new RegExp(`^the server refuses the login of "${user}" \\(28P01`));
        assert.doesNotMatch(wrong, /hush/);
      }
      assert.match(await login('safe', password), /^the server refuses the login of "safe" \(28000/);
      assert.match(await login('safe'), /^passed, but the server works, but does not let "safe" in \(28000/);
      assert.match(await login('trusted', { database: 'elsewhere' }), /^the server answers with error 3D000/);
      assert.match(
        await wordsFor({ postgres: { user: 'trusted' } }, server.port),
        /^passed, but the server works/,
      );
      assert.match(await login('trusted', { tls: true }), /^TLS: the certificate of the service/);
      await assertFrozen(check, server);
      await assertKilled(check, server);
    } finally {
      await server.stop();
      await rm(directory, { recursive: true });
    }
  },
);

test('a postgres check says when a server has no TLS or no connection left', { timeout }, async () => {
  const limits = { max_connections: '1', superuser_reserved_connections: '0', max_wal_senders: '0' };
  const server = await startPostgres(
    ['host all all 127.0.0.1/32 trust'],
    ['CREATE ROLE tandem LOGIN'],
    limits,
  );
  try {
    const entry = { postgres: { database: 'postgres' } };
    await untilPasses(checkOf(entry, server.port));
    assert.match(
      await wordsFor({ postgres: { tls: true } }, server.port),
      /^the server does not offer TLS: set ssl = on there/,
    );
    const held = net.connect(server.port, '127.0.0.1');
    try {
      held.write(Buffer.from('0000002700030000', 'hex'));
      held.write('user\0tandem\0database\0postgres\0\0');
      await once(held, 'data');
      assert.match(await wordsFor(entry, server.port), /^the server has no connection left \(53300/);
    } finally {
      held.destroy();
    }
  } finally {
    await server.stop();
  }
});
