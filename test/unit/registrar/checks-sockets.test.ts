import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import net from 'node:net';
import { describe, test } from 'node:test';

import { parseYaml } from '@tandem/core';
import { RegisterSection } from '@tandem/registrar';
import * as fc from 'fast-check';

import { checkConformance } from '../../conformance/check.ts';
import { probe, wordsFor, wordsOf } from '../../support/probes.ts';
import { checkOf, NEVER, subject } from './check-support.ts';
import {
  amqpMethod,
  MYSQL_CHALLENGE,
  MYSQL_OK,
  mysqlGreeting,
  postgresMessage,
  startMysqlTalker,
  startPostgresTalker,
  startRabbitmqTalker,
  startRedisTalker,
} from './scripted-servers.ts';
import { eventually, freePort, startServer, type TestServer } from './support.ts';

const ECHO = { send: 'ping\\r\\n', expect: 'ping\\r\\n' };

/** Every check that talks, and a server that it is content with. */
const TALKERS: Readonly<Record<string, { entry: object; start: () => Promise<TestServer> }>> = {
  tcp: { entry: ECHO, start: () => startServer(net.createServer((socket) => socket.pipe(socket))) },
  redis: { entry: { password: 'secret' }, start: () => startRedisTalker() },
  mysql: { entry: { password: 'secret' }, start: () => startMysqlTalker() },
  postgres: { entry: {}, start: () => startPostgresTalker() },
  rabbitmq: { entry: {}, start: () => startRabbitmqTalker() },
};

for (const [kind, { entry, start }] of Object.entries(TALKERS)) {
  const checkAt = (port: number) => checkOf({ [kind]: entry }, port);

  describe(`${kind} check, talking`, () => {
    checkConformance(kind, {
      async healthy() {
        const server = await start();
        return { check: checkAt(server.port), leftovers: server.open, close: server.close };
      },
      absent: async () => subject(checkAt(await freePort())),
      async hanging() {
        const server = await startServer(net.createServer((socket) => socket.resume()));
        return {
          check: checkAt(server.port),
          leftovers: server.open,
          close: server.close,
          begun: () => eventually(() => server.open() > 0, 'a connection'),
        };
      },
      wire: { serve: start, checkAt },
    });

    test('fails with a reason wherever the connection is cut or reset', async () => {
      for (const end of ['close', 'reset'] as const) {
        for (let bytes = 0; bytes < 24; bytes += 3) {
          const server = await start();
          const proxy = await startCutter(server.port, bytes, end);
          const words = wordsOf(await probe(checkAt(proxy.port)));
          // What it needs to hear may be shorter than that.
          assert.match(
            words,
            /^passed$|connection closed by the service|does not speak|answers/,
            `${end} after ${bytes}`,
          );
          await eventually(() => proxy.open() === 0, 'no connection stays');
          await Promise.all([proxy.close(), server.close()]);
        }
      }
    });

    test('does not listen for long to somebody who does not stop talking', async () => {
      let sent = 0;
      const server = await startServer(
        net.createServer((socket) => {
          const chunk = Buffer.alloc(16_384, 'x');
          const push = () => {
            while (!socket.destroyed) {
              sent += chunk.length;
              if (!socket.write(chunk)) return void socket.once('drain', push);
            }
          };
          push();
        }),
      );
      assert.match(wordsOf(await probe(checkAt(server.port))), /too long|does not speak/);
      assert.ok(sent < 2e7, `read ${sent} bytes`);
      await server.close();
    });

    test('is not thrown by anything that a server may say', async () => {
      await fc.assert(
        fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (bytes) => {
          const server = await startServer(net.createServer((socket) => socket.resume().end(bytes)));
          try {
            await probe(checkAt(server.port));
          } finally {
            await server.close();
          }
        }),
        { numRuns: 30 },
      );
    });

    test('is not thrown by answers of its own protocol with mistakes in them', async () => {
      await fc.assert(
        fc.asyncProperty(fc.nat(120), fc.integer({ min: 1, max: 255 }), async (at, change) => {
          const server = await start();
          const proxy = await startGarbler(server.port, at, change);
          try {
            // What is damaged may be the length of what is to come.
            await probe(checkAt(proxy.port), 50);
          } finally {
            await Promise.all([proxy.close(), server.close()]);
          }
        }),
        { numRuns: 15 },
      );
    });
  });
}

/** Hands on so many bytes of what the server says, and ends the connection. */
function startCutter(port: number, bytes: number, end: 'close' | 'reset'): Promise<TestServer> {
  return startBetween(port, (near) => {
    let left = bytes;
    return (chunk) => {
      near.write(chunk.subarray(0, left));
      left -= chunk.length;
      if (left > 0) return;
      if (end === 'reset') near.resetAndDestroy();
      else near.end();
    };
  });
}

/** Hands on what the server says, with one byte changed. */
function startGarbler(port: number, at: number, change: number): Promise<TestServer> {
  return startBetween(port, (near) => {
    let passed = 0;
    return (chunk) => {
      const garbled = Buffer.from(chunk);
      const index = at - passed;
      if (index >= 0 && index < garbled.length) garbled[index] = (garbled[index] ?? 0) ^ change;
      passed += garbled.length;
      near.write(garbled);
    };
  });
}

function startBetween(
  port: number,
  pass: (near: net.Socket) => (chunk: Buffer) => void,
): Promise<TestServer> {
  return startServer(
    net.createServer((near) => {
      const far = net.connect(port, '127.0.0.1');
      near.on('close', () => far.destroy());
      far.on('error', () => near.destroy());
      far.on('end', () => near.end());
      far.on('data', pass(near));
      near.pipe(far);
    }),
  );
}

describe('a tcp check that talks', () => {
  test('says and expects text with escapes, and bytes', async () => {
    const heard: Buffer[] = [];
    const server = await startServer(
      net.createServer((socket) => {
        socket.on('data', (chunk: Buffer) => heard.push(chunk));
        socket.write('220 mail.example\r\n');
      }),
    );
    const { port } = server;
    assert.equal(await wordsFor({ tcp: { expect: '220 ', send: 'QUIT\\r\\n\\x00\\\\' } }, port), 'passed');
    assert.equal(await wordsFor({ tcp: { expect: { hex: '0d 0A' }, send: { hex: 'ff' } } }, port), 'passed');
    assert.deepEqual([Buffer.concat(heard).toString('latin1'), heard.length > 0], ['QUIT\r\n\0\\\xff', true]);
    await server.close();
  });

  test('shows what it was told instead', async () => {
    const server = await startServer(net.createServer((socket) => socket.end('-ERR \x1b[31m not\r\nnow')));
    assert.equal(
      await wordsFor({ tcp: { expect: '+OK' } }, server.port),
      'connection closed by the service before the expected answer, after "-ERR [31m not now"',
    );
    await server.close();
  });

  test('looks a name up, and reaches IPv6', async () => {
    const server = await startServer(
      net.createServer((socket) => socket.end('hello')),
      '::1',
    );
    assert.equal(await wordsFor({ tcp: { host: '::1', expect: 'hello' } }, server.port), 'passed');
    await server.close();
  });
});

describe('a redis check', () => {
  test('does not show its password, even when the server does', async () => {
    const AUTH = `-ERR unknown command 'AUTH', with args beginning with: 'hush hush'\r\n`;
    const server = await startRedisTalker({ AUTH });
    assert.equal(
      await wordsFor({ redis: { password: 'hush hush' } }, server.port),
      `answers AUTH with an error: ERR unknown command 'AUTH', with args beginning with: '***'`,
    );
    await server.close();
  });

  test('tells the ways of not being ready from each other', async () => {
    for (const [answer, words] of [
      ['-LOADING Redis is loading the dataset in memory', /^is still loading its data \(LOADING/],
      ['-MISCONF Errors writing to the AOF file', /^cannot write its data to the disk/],
      ['-BUSY Redis is busy running a script', /^is busy with a script/],
      ['-DENIED Redis is running in protected mode', /^is in protected mode/],
      ['-ERR max number of clients reached', /^answers PING with an error: ERR max number/],
      ['+OK', /^does not speak the protocol of Redis: "OK"/],
      ['HTTP/1.1 400 Bad Request', /^does not speak the protocol of Redis: "HTTP/],
    ] as const) {
      const server = await startRedisTalker({ PING: `${answer}\r\n` });
      assert.match(await wordsFor({ redis: {} }, server.port), words);
      await server.close();
    }
  });
});

describe('a mysql check', () => {
  const MORE_CACHED = Buffer.from([1, 3]);
  const MORE_FULL = Buffer.from([1, 4]);
  const DENIED = Buffer.from('\xff\x15\x04#28000Access denied', 'latin1');
  const sha256 = (...parts: (Buffer | string)[]) =>
    parts.reduce((hash, part) => hash.update(part), createHash('sha256')).digest();
  const entry = { mysql: { user: 'probe', password: 'secret' } };

  test('proves by caching_sha2_password that it knows the password, and says goodbye', async () => {
    const said: Buffer[] = [];
    const server = await startMysqlTalker(
      [[MORE_CACHED, MYSQL_OK]],
      said,
      mysqlGreeting('caching_sha2_password'),
    );
    assert.equal(await wordsFor(entry, server.port), 'passed');
    await eventually(() => said.length === 2, 'a goodbye');
    const [login = Buffer.alloc(0)] = said;
    const once = sha256('secret');
    const mask = sha256(sha256(once), MYSQL_CHALLENGE);
    const proof = Buffer.from(once.map((byte, index) => byte ^ (mask[index] ?? 0)));
    assert.ok(login.includes(Buffer.concat([Buffer.from('probe\0\x20'), proof])));
    assert.deepEqual(said[1], Buffer.from([1]));
    await server.close();
  });

  test('does not say its password in the clear, and ends the login all the same', async () => {
    const said: Buffer[] = [];
    const server = await startMysqlTalker(
      [[MORE_FULL], [DENIED]],
      said,
      mysqlGreeting('caching_sha2_password'),
    );
    assert.match(
      await wordsFor(entry, server.port),
      /^the server wants the password itself, .* TLS only: set tls/,
    );
    assert.equal(
      said.some((payload) => payload.includes('secret')),
      false,
    );
    await server.close();
  });

  test('says nothing of its password where TLS is wanted and not offered', async () => {
    const said: Buffer[] = [];
    const server = await startMysqlTalker([[MYSQL_OK]], said);
    assert.match(await wordsFor({ mysql: { ...entry.mysql, tls: true } }, server.port), /does not offer TLS/);
    assert.deepEqual(
      said.map((payload) => payload.length),
      [32 + 'probe'.length + 2 + 'mysql_native_password'.length + 1, 1],
    );
    await server.close();
  });

  test('does not go on for ever with a server that does not come to an end', async () => {
    const change = Buffer.from('\xfemysql_native_password\0abcdefghijklmnopqrst\0', 'latin1');
    const asking = await startMysqlTalker(Array.from({ length: 50 }, () => [change]));
    assert.match(await wordsFor(entry, asking.port), /does not come to an end/);
    await asking.close();
  });
});

describe('a postgres check', () => {
  const refused = (state: string, text: string) =>
    postgresMessage('E', `SFATAL\0VFATAL\0C${state}\0M${text}\0\0`);

  test('tells a server that starts from one that does not know us', async () => {
    for (const [state, words] of [
      ['57P03', /^the server does not take connections yet/],
      ['53300', /^the server has no connection left/],
      ['28000', /^passed, but the server works, but does not let "tandem" in \(28000: \w/],
      ['3D000', /^passed, but/],
      ['XX000', /^the server answers with error XX000/],
    ] as const) {
      const server = await startPostgresTalker([refused(state, 'reason')]);
      assert.match(await wordsFor({ postgres: {} }, server.port), words);
      await server.close();
    }
  });

  test('believes no server that cannot show that it knows the password, nor one that only makes work', async () => {
    const sasl = (code: number, text: string) =>
      postgresMessage('R', `\0\0\0${String.fromCharCode(code)}${text}`);
    const repeated = (heard: Buffer) => /r=(.*)$/s.exec(heard.toString('latin1'))?.[1] ?? '';
    for (const [answer, words] of [
      [() => 'r=of another,s=c2FsdA==,i=4096', /does not speak SCRAM as it should/],
      [(heard: Buffer) => `r=${repeated(heard)},s=c2FsdA==,i=4096`, /does not speak SCRAM as it should/],
      [(heard: Buffer) => `r=${repeated(heard)}x,s=c2FsdA==,i=99999999`, /asks for 99999999 iterations/],
      [(heard: Buffer) => `r=${repeated(heard)}x,s=c2FsdA==,i=4096`, /does not know the password either/],
    ] as const) {
      const server = await startPostgresTalker([
        sasl(10, 'SCRAM-SHA-256\0\0'),
        (heard) => sasl(11, answer(heard)),
        sasl(12, 'v=c2FsdA=='),
      ]);
      assert.match(await wordsFor({ postgres: { password: 'secret' } }, server.port), words);
      await server.close();
    }
    const other = await startPostgresTalker([sasl(7, '')]);
    assert.match(
      await wordsFor({ postgres: { password: 'secret' } }, other.port),
      /a login that is not known here \(7\)/,
    );
    await other.close();
  });

  test('takes no words for those behind TLS that came before it', async () => {
    const server = await startPostgresTalker([Buffer.from('Sand more')]);
    assert.match(
      await wordsFor({ postgres: { tls: true } }, server.port),
      /^the service does not wait for TLS, after "and more"/,
    );
    await server.close();
  });
});

describe('a rabbitmq check', () => {
  test('says why a login or a virtual host is refused, and what does not speak its protocol', async () => {
    const close = (code: number, text: string) =>
      amqpMethod(
        50,
        `${String.fromCharCode(code >> 8, code & 0xff)}${String.fromCharCode(text.length)}${text}\0\0\0\0`,
      );
    for (const [answers, words] of [
      [
        { 11: close(403, 'ACCESS_REFUSED') },
        /^the server refuses the login of "guest" \(403: ACCESS_REFUSED\)/,
      ],
      [{ 40: close(530, 'NOT_ALLOWED') }, /^the server refuses the virtual host "\/" \(530: NOT_ALLOWED\)/],
      [{ 0: Buffer.from('AMQP\x00\x01\x00\x00', 'latin1') }, /^the server does not speak AMQP 0-9-1/],
      [{ 0: Buffer.from('-ERR unknown command\r\n') }, /^does not speak AMQP: "-ERR un"/],
    ] as const) {
      const server = await startRabbitmqTalker(answers);
      assert.match(await wordsFor({ rabbitmq: {} }, server.port), words);
      await server.close();
    }
  });
});

describe('checks on sockets in a service file', () => {
  const problemsOf = (yaml: string) => {
    const result = parseYaml(`port: 80\nchecks:\n- ${yaml}`, 'web.yaml', RegisterSection);
    return result.ok ? '' : result.problems.map(({ path, reason }) => `${path}: ${reason}`).join('\n');
  };

  test('are refused where they could not work, and no password is shown', () => {
    for (const [yaml, message] of [
      ['tcp: { send: "a\\\\q" }', /send: must have only the escapes/],
      ['tcp: { expect: "" }', /expect: must not be empty/],
      ['tcp: { expect: { hex: abc } }', /hex: must be pairs of hexadecimal digits/],
      ['tcp: { tls: { verify: false, ca_file: ca.pem } }', /tls: must not have ca_file with verify: false/],
      ['tcp: { tls: { cert_file: a.pem } }', /tls: must have both or neither/],
      ['tcp: { tls: { server_name: "a b" } }', /server_name: must be the name of a host or an address/],
      ['redis: { user: probe }', /redis: must have password or password_file beside user/],
      ['redis: { password: hush, password_file: f }', /password_file: must not stand beside password/],
      ['redis: { role: slave }', /role: found "slave", which is not one of the choices/],
      ['postgres: { database: "" }', /database: must be a name/],
      ['rabbitmq: { vhost: "" }', /vhost: must be/],
      ['mysql: { password: 123454321 }', /password: must be text, found/],
      ['mysql: { password: "hush\\nhush" }', /password: must not hold line breaks/],
    ] as const) {
      const problems = problemsOf(yaml);
      assert.match(problems, message, yaml);
      assert.doesNotMatch(problems, /hush|123454321/);
    }
    assert.equal(problemsOf('tcp: { tls: true, send: PING, expect: { hex: "" } }').includes('empty'), true);
    assert.equal(problemsOf('tcp: { tls: false }'), '');
  });

  test('end before they begin when their time is over', async () => {
    assert.deepEqual(await checkOf({ redis: {} }).probe(AbortSignal.abort()), {
      ok: false,
      reason: 'called off',
    });
    assert.equal((await checkOf({ redis: {} }, await freePort()).probe(NEVER)).ok, false);
  });
});
