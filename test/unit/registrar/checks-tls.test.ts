import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { copyFile, readFile, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { describe, test } from 'node:test';
import tls from 'node:tls';
import { promisify } from 'node:util';

import { CheckSection, resolveCheckFiles } from '@tandem/registrar';

import { type Authority, createAuthority } from '../../support/certificates.ts';
import { inDirectory } from '../../support/directory.ts';
import { probe, wordsFor, wordsOf } from '../../support/probes.ts';
import { checkOf } from './check-support.ts';
import { eventually, startServer } from './support.ts';

const run = promisify(execFile);

interface World {
  readonly directory: string;
  readonly authority: Authority;
}

function scenario(name: string, body: (world: World) => Promise<void>): void {
  test(name, () =>
    inDirectory(async (directory) =>
      body({ directory, authority: await createAuthority(directory, 'authority') }),
    ),
  );
}

/** A server that greets over TLS. */
async function startSecured(files: { certFile: string; keyFile: string }, options: tls.TlsOptions = {}) {
  const names: (string | false | null)[] = [];
  const [cert, key] = await Promise.all([readFile(files.certFile), readFile(files.keyFile)]);
  const server = tls.createServer({ cert, key, ...options }, (socket) => {
    names.push(socket.servername);
    socket.on('error', () => {});
    socket.end('hello');
  });
  server.on('tlsClientError', () => {});
  return { ...(await startServer(server)), names };
}

describe('a check that speaks TLS', () => {
  scenario('believes an authority that it was told, an address and a name', async ({ authority }) => {
    const { caFile } = authority;
    const both = await authority.issue('both', ['IP:127.0.0.1', 'DNS:web.test']);
    const server = await startSecured(both);
    for (const more of [{}, { server_name: 'web.test' }])
      assert.equal(
        await wordsFor({ tcp: { tls: { ca_file: caFile, ...more }, expect: 'hello' } }, server.port),
        'passed',
      );
    assert.deepEqual(server.names, [false, 'web.test']);
    assert.equal(await wordsFor({ tcp: { tls: { verify: false } } }, server.port), 'passed');
    await server.close();
  });

  scenario('says what is wrong with a certificate, and what to do', async ({ directory, authority }) => {
    const tlsTo = { ca_file: authority.caFile };
    const named = await authority.issue('named', ['DNS:web.test']);
    const expired = await authority.issue('expired', ['IP:127.0.0.1'], { days: 0 });
    const own = { certFile: authority.caFile, keyFile: path.join(directory, 'authority.key') };
    const of = (caFile: string) => ({ ca_file: caFile });
    const elsewhere = await createAuthority(directory, 'elsewhere');
    for (const [certificate, tls, words] of [
      [named, tlsTo, /not for 127\.0\.0\.1, only for DNS:web\.test: set tls\.server_name/],
      [named, true, /of an unknown authority.*: name the certificate of its authority as tls\.ca_file/],
      [named, of(elsewhere.caFile), /of an unknown authority/],
      [expired, tlsTo, /has expired: renew it/],
      [own, true, /is self-signed: name it as tls\.ca_file, or set tls\.verify: false/],
    ] as const) {
      const server = await startSecured(certificate);
      assert.match(await wordsFor({ tcp: { tls } }, server.port), words);
      assert.equal(
        await wordsFor({ tcp: { tls: { verify: false }, expect: 'hello' } }, server.port),
        'passed',
      );
      await server.close();
    }
  });

  scenario('knows a service that does not speak TLS, or not to the end', async () => {
    const plain = await startServer(net.createServer((socket) => socket.end('220 plain text\r\n')));
    assert.equal(
      await wordsFor({ tcp: { tls: true } }, plain.port),
      'TLS: the service does not speak TLS on this port',
    );
    await plain.close();
    const shut = await startServer(net.createServer((socket) => socket.once('data', () => socket.destroy())));
    assert.equal(
      await wordsFor({ tcp: { tls: true } }, shut.port),
      'TLS: connection closed by the service within the handshake',
    );
    await shut.close();
    const silent = await startServer(net.createServer((socket) => socket.resume()));
    assert.equal(wordsOf(await probe(checkOf({ tcp: { tls: true } }, silent.port), 100)), 'called off');
    await eventually(() => silent.open() === 0, 'no connection stays');
    await silent.close();
  });

  scenario(
    'shows its certificate, and is told when it has none or a wrong one',
    async ({ directory, authority }) => {
      const [web, client] = await Promise.all([
        authority.issue('web', ['IP:127.0.0.1']),
        authority.issue('client', ['DNS:client.test']),
      ]);
      const elsewhere = await createAuthority(directory, 'elsewhere');
      const stranger = await elsewhere.issue('stranger', ['DNS:client.test']);
      const ca = await readFile(authority.caFile);
      const proof = ({ certFile, keyFile }: { certFile: string; keyFile: string }) => ({
        ca_file: authority.caFile,
        cert_file: certFile,
        key_file: keyFile,
      });
      for (const maxVersion of ['TLSv1.3', 'TLSv1.2'] as const) {
        const server = await startSecured(web, {
          ca,
          requestCert: true,
          rejectUnauthorized: true,
          maxVersion,
        });
        assert.equal(await wordsFor({ tcp: { tls: proof(client) } }, server.port), 'passed');
        assert.match(
          await wordsFor({ tcp: { tls: { ca_file: authority.caFile } } }, server.port),
          /^TLS: the service (asks for a certificate|breaks the handshake off: it may ask for a certificate)/,
        );
        // This server closes without an alert.
        assert.match(
          await wordsFor({ tcp: { tls: proof(stranger), expect: 'hello' } }, server.port),
          /^TLS: the service does not accept our certificate|^(TLS: )?connection closed by the service/,
        );
        await server.close();
      }
    },
  );

  scenario(
    'goes on with its files while they are renewed, and takes the new ones',
    async ({ directory, authority }) => {
      const [web, one, two] = await Promise.all([
        authority.issue('web', ['IP:127.0.0.1']),
        authority.issue('one', ['DNS:one.test']),
        authority.issue('two', ['DNS:two.test']),
      ]);
      const ca = await readFile(authority.caFile);
      const server = await startSecured(web, { ca, requestCert: true, rejectUnauthorized: true });
      const [cert, key] = ['cert.pem', 'key.pem'].map((name) => path.join(directory, name)) as [
        string,
        string,
      ];
      await copyFile(one.certFile, cert);
      const check = checkOf(
        { tcp: { tls: { ca_file: authority.caFile, cert_file: cert, key_file: key }, expect: 'hello' } },
        server.port,
      );
      assert.equal(wordsOf(await probe(check)), `TLS: ${key} does not exist`);
      await copyFile(one.keyFile, key);
      assert.equal(wordsOf(await probe(check)), 'passed');

      await copyFile(two.certFile, cert);
      assert.match(
        wordsOf(await probe(check)),
        /^passed, but TLS: .*key\.pem holds no key that fits the certificate.*\. Going on with what it was before$/,
      );
      await copyFile(two.keyFile, key);
      assert.equal(wordsOf(await probe(check)), 'passed');
      await rm(key);
      assert.match(wordsOf(await probe(check)), /^passed, but TLS: .*key\.pem does not exist\. Going on/);
      await server.close();
    },
  );

  scenario('says what is wrong with a file, and does not wait for one', async ({ directory, authority }) => {
    const file = path.join(directory, 'ca.pem');
    const words = () => wordsFor({ tcp: { tls: { ca_file: file } } });
    const whole = await readFile(authority.caFile, 'utf8');
    assert.equal(await words(), `TLS: ${file} does not exist`);
    for (const [text, reason] of [
      ['', 'holds no certificate'],
      [whole + whole.slice(0, 200), 'ends in the middle of a certificate'],
      [whole.replace(/\n[A-Za-z0-9+/=]{40}/, '\n'), 'holds a certificate that cannot be read'],
      ['x'.repeat(2 << 20), 'is too large'],
    ] as const) {
      await writeFile(file, text);
      const said = await words();
      assert.ok(said.startsWith(`TLS: ${file} ${reason}`), said);
    }
    await rm(file);
    await run('mkfifo', [file]);
    assert.equal(await words(), `TLS: ${file} is not a file`);
  });
});

test('files that a check names may be relative, and are resolved together', () => {
  const config = CheckSection.parse({
    redis: {
      password_file: 'redis.password',
      tls: { ca_file: 'ca.pem', cert_file: '/etc/c.pem', key_file: 'k.pem' },
    },
  });
  const resolved = resolveCheckFiles(config, (file) => path.resolve('/etc/tandem', file));
  assert.ok(resolved.kind === 'redis');
  const { passwordFile, tls } = resolved.options;
  assert.deepEqual(
    [passwordFile, tls?.caFile, tls?.certFile, tls?.keyFile],
    ['/etc/tandem/redis.password', '/etc/tandem/ca.pem', '/etc/c.pem', '/etc/tandem/k.pem'],
  );
});
