// The mysql check against a real MariaDB.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import net, { type AddressInfo } from 'node:net';
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
import { createServerDirectory, own, startMariadb } from '../support/real-servers.ts';

const timeout = 180_000;

/**
 * Connects on to a server from another address of the loopback: from the usual one nobody is ever blocked.
 */
async function startRelay(port: number): Promise<{ port: number; close: () => void }> {
  const relay = net.createServer((near) => {
    const far = net.connect({ port, host: '127.0.0.1', localAddress: '127.0.0.2' });
    near.on('error', () => far.destroy()).on('close', () => far.destroy());
    far.on('error', () => near.destroy()).on('close', () => near.destroy());
    near.pipe(far).pipe(near);
  });
  relay.listen(0, '127.0.0.1');
  await once(relay, 'listening');
  return { port: (relay.address() as AddressInfo).port, close: () => relay.close() };
}

/** What somebody does who only looks whether there is a greeting. */
async function hangUpAfterGreeting(port: number): Promise<string> {
  const socket = net.connect(port, '127.0.0.1');
  const [greeting] = (await once(socket, 'data')) as [Buffer];
  socket.destroy();
  await once(socket, 'close');
  return greeting.toString('latin1');
}

test(
  'a mysql check never gets its host blocked, whatever the server says to its login',
  { timeout },
  async () => {
    const directory = await createServerDirectory('certificates');
    const authority = await createAuthority(directory, 'authority');
    const { certFile, keyFile } = await authority.issue('mariadb', ['IP:127.0.0.1']);
    for (const file of [certFile, keyFile, directory]) own(file);
    const server = await startMariadb(
      ['--max-connect-errors=5', '--max-connections=20', `--ssl-cert=${certFile}`, `--ssl-key=${keyFile}`],
      [
        "CREATE OR REPLACE USER tandem@'%'",
        "CREATE OR REPLACE USER native@'%' IDENTIFIED BY 'secret'",
        "CREATE OR REPLACE USER other@'%' IDENTIFIED VIA unix_socket",
        "INSTALL SONAME 'auth_ed25519'",
        "CREATE OR REPLACE USER modern@'%' IDENTIFIED VIA ed25519 USING PASSWORD('secret')",
        "CREATE OR REPLACE USER safe@'%' IDENTIFIED BY 'secret' REQUIRE SSL",
      ],
    );
    const relay = await startRelay(server.port);
    try {
      const check = checkOf({ mysql: {} }, relay.port);
      await untilPasses(check);

      const login = (user: string, password?: string, tls?: object) =>
        wordsFor(
          {
            mysql: {
              user,
              ...(password === undefined ? {} : { password }),
              ...(tls === undefined ? {} : { tls }),
            },
          },
          relay.port,
        );
      const tls = { ca_file: authority.caFile };
      for (let round = 0; round < 40; round += 1) {
        assert.equal(wordsOf(await probe(check)), 'passed');
        assert.equal(await login('native', 'secret'), 'passed');
        assert.equal(await login('safe', 'secret', tls), 'passed');
        const wrong = await login('native', 'hush');
        assert.match(wrong, /^the server refuses the login of "native" \(error 1045: Access denied/);
        assert.doesNotMatch(wrong, /hush/);
        assert.match(await login('nobody'), /^passed, but the server works, but does not know "nobody"/);
        assert.match(await login('modern', 'secret'), /^the server wants client_ed25519 of "modern"/);
        assert.match(await login('other', 'secret'), /^the server /);
        assert.match(await login('safe', 'secret'), /^the server refuses the login of "safe"/);
      }

      // The same server blocks whoever hangs up after its greeting, or this test would show nothing.
      let last = '';
      for (let round = 0; round < 20 && !last.includes('is blocked'); round += 1)
        last = await hangUpAfterGreeting(relay.port);
      assert.match(last, /is blocked/);
      assert.match(
        wordsOf(await probe(check)),
        /^the server has blocked this host: run mariadb-admin flush-hosts/,
      );

      const direct = checkOf({ mysql: {} }, server.port);
      await assertFrozen(direct, server);
      await assertKilled(direct, server);
    } finally {
      relay.close();
      await server.stop();
      await rm(directory, { recursive: true });
    }
  },
);

test('a mysql check says when a server has no TLS or no connection left', { timeout }, async () => {
  const server = await startMariadb(
    ['--max-connections=10', '--skip-ssl'],
    ["CREATE OR REPLACE USER tandem@'%'"],
  );
  const held: net.Socket[] = [];
  try {
    await untilPasses(checkOf({ mysql: {} }, server.port));
    assert.match(
      await wordsFor({ mysql: { tls: true, password: 'secret' } }, server.port),
      /^the server does not offer TLS/,
    );
    for (let count = 0; count < 12; count += 1) {
      const socket = net.connect(server.port, '127.0.0.1');
      held.push(socket);
      await once(socket, 'data');
    }
    assert.match(
      await wordsFor({ mysql: {} }, server.port),
      /^the server has no connection left \(error 1040/,
    );
  } finally {
    for (const socket of held) socket.destroy();
    await server.stop();
  }
});
