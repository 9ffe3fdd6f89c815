import assert from 'node:assert/strict';
import { getEventListeners, once } from 'node:events';
import { readFile } from 'node:fs/promises';
import type { RequestListener } from 'node:http';
import net, { type AddressInfo } from 'node:net';
import path from 'node:path';
import { describe, test } from 'node:test';

import { createLineSplitter, fetchBody, followLines, type HttpLimits, type HttpRequest } from '@tandem/core';

import * as fc from 'fast-check';

import { createAuthority } from '../../support/certificates.ts';
import { eventually } from '../../support/eventually.ts';
import { freePort } from '../../support/haproxy.ts';
import { type BackendPlace, type HttpBackend, startHttpBackend } from '../../support/http-backend.ts';
import { inDirectory } from '../../support/directory.ts';

async function withBackend(
  listener: RequestListener,
  body: (backend: HttpBackend) => Promise<void>,
  place: BackendPlace = {},
): Promise<void> {
  const backend = await startHttpBackend(listener, place);
  try {
    await body(backend);
    await eventually(() => assert.equal(backend.open(), 0, 'a connection stays open'));
  } finally {
    await backend.close();
  }
}

/** The reason why there is no answer, or the answer. */
async function outcomeOf(
  request: string | HttpRequest,
  limits: Partial<HttpLimits> = {},
  signal = new AbortController().signal,
): Promise<string> {
  const wanted = typeof request === 'string' ? { url: new URL(request) } : request;
  const answer = await fetchBody(wanted, signal, limits);
  assert.equal(getEventListeners(signal, 'abort').length, 0, 'a listener stays on the signal');
  return answer.ok ? `${answer.status} ${answer.body.toString()}` : answer.reason;
}

describe('a request', () => {
  test('brings the whole answer, whatever its status', async () => {
    const listener: RequestListener = (request, response) => {
      response.statusCode = request.url === '/missing?x=1' ? 404 : 200;
      response.write('a ');
      response.end('body');
    };
    await withBackend(listener, async ({ origin, requests }) => {
      assert.equal(await outcomeOf(`${origin}/here`), '200 a body');
      assert.equal(await outcomeOf(`${origin}/missing?x=1`), '404 a body');
      assert.deepEqual(
        requests.map(({ line }) => line),
        ['GET /here', 'GET /missing?x=1'],
      );
    });
  });

  test('goes through a unix socket', () =>
    inDirectory((directory) => {
      const socketPath = path.join(directory, 'api.sock');
      return withBackend(
        (_, response) => response.end('here'),
        async () => {
          const url = new URL('http://docker/x');
          assert.equal(await outcomeOf({ url, socketPath }), '200 here');
          assert.equal(
            await outcomeOf({ url, socketPath: path.join(directory, 'none.sock') }),
            'there is no such socket',
          );
        },
        { socketPath },
      );
    }));

  test('trusts only whom it is told to, and shows a certificate of its own', () =>
    inDirectory(async (directory) => {
      const authority = await createAuthority(directory, 'authority');
      const server = await authority.issue('server', ['IP:127.0.0.1']);
      const client = await authority.issue('client', ['DNS:client.test']);
      const [ca, cert, key, ownCert, ownKey] = await Promise.all(
        [authority.caFile, server.certFile, server.keyFile, client.certFile, client.keyFile].map((file) =>
          readFile(file, 'utf8'),
        ),
      );
      const tls = { ca, cert, key, requestCert: true, rejectUnauthorized: true };
      await withBackend(
        (_, response) => response.end('secret'),
        async ({ origin }) => {
          const url = new URL(`${origin}/`);
          assert.equal(await outcomeOf({ url, tls: { ca, cert: ownCert, key: ownKey } }), '200 secret');
          assert.match(await outcomeOf({ url, tls: { cert: ownCert, key: ownKey } }), /certificate/);
          assert.doesNotMatch(await outcomeOf({ url, tls: { ca } }), /^200/);
        },
        { tls },
      );
    }));

  test('that nobody takes, or that is not answered in time, has a reason', async () => {
    assert.equal(await outcomeOf(`http://127.0.0.1:${await freePort()}/`), 'connection refused');
    await withBackend(
      (request, response) => {
        if (request.url === '/head') return;
        response.write('half');
        if (request.url === '/cut') setTimeout(() => request.socket.destroy(), 20);
      },
      async ({ origin }) => {
        assert.equal(await outcomeOf(`${origin}/head`, { firstByteMs: 50 }), 'no answer within 50ms');
        assert.equal(await outcomeOf(`${origin}/body`, { wholeMs: 50 }), 'no whole answer within 50ms');
        assert.equal(await outcomeOf(`${origin}/cut`), 'the connection was cut');
      },
    );
  });

  test('a connection that does not come about has a limit, too', async () => {
    const sockets = new Set<net.Socket>();
    const server = net.createServer((socket) => {
      sockets.add(socket);
      socket.on('error', () => {});
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const tls = new URL(`https://127.0.0.1:${port}/`);
    try {
      // It takes the connection, and never says a word of TLS.
      assert.equal(await outcomeOf({ url: tls }, { connectMs: 50 }), 'no connection within 50ms');
    } finally {
      server.close();
      for (const socket of sockets) socket.destroy();
    }
  });

  test('an answer that is too large is refused, announced or not, and encoded ones are not guessed at', async () => {
    const sent = { bytes: 0 };
    const chunk = Buffer.alloc(64 << 10);
    await withBackend(
      (request, response) => {
        if (request.url === '/announced') response.setHeader('content-length', 64 << 20);
        if (request.url === '/gzip') response.setHeader('content-encoding', 'gzip');
        const more = () => {
          while (!response.destroyed && sent.bytes < 64 << 20) {
            sent.bytes += chunk.length;
            if (!response.write(chunk)) return void response.once('drain', more);
          }
          return response.end();
        };
        more();
      },
      async ({ origin }) => {
        assert.equal(await outcomeOf(`${origin}/announced`), 'an answer of more than 33554432 bytes');
        sent.bytes = 0;
        assert.equal(
          await outcomeOf(`${origin}/chunked`, { maxBodyBytes: 1 << 20 }),
          'an answer of more than 1048576 bytes',
        );
        assert.ok(sent.bytes < 32 << 20, 'the rest is not read');
        assert.equal(await outcomeOf(`${origin}/gzip`), 'an encoded answer, which was not asked for');
      },
    );
  });

  test('what is not HTTP is a reason, not an exception', async () => {
    const sockets = new Set<net.Socket>();
    for (const garbage of [
      '\u0000\u0001\u0002\r\n\r\n',
      'HTTP/1.1 999999 x\r\n\r\n',
      `HTTP/1.1 200 OK\r\nx: ${'y'.repeat(100_000)}`,
    ]) {
      const server = net.createServer((socket) => {
        sockets.add(socket);
        socket.on('error', () => {});
        socket.once('data', () => socket.end(garbage));
      });
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
      const { port } = server.address() as AddressInfo;
      assert.equal(await outcomeOf(`http://127.0.0.1:${port}/`), 'the answer is not HTTP');
      server.close();
    }
    for (const socket of sockets) socket.destroy();
  });

  test('ends with its signal, before and within the answer, and leaves nothing behind', async () => {
    await withBackend(
      (request, response) => {
        if (request.url !== '/head') response.write('half');
      },
      async ({ origin, requests }) => {
        assert.equal(await outcomeOf(`${origin}/`, {}, AbortSignal.abort()), 'called off');
        for (const where of ['/head', '/body']) {
          const controller = new AbortController();
          const outcome = outcomeOf(origin + where, {}, controller.signal);
          await eventually(() => assert.equal(requests.at(-1)?.line, `GET ${where}`));
          controller.abort();
          assert.equal(await outcome, 'called off');
        }
      },
    );
  });
});

describe('redirects', () => {
  test('are followed as often as allowed, within the scheme, and not at all unless asked for', async () => {
    const listener: RequestListener = (request, response) => {
      const left = Number(request.url?.slice(1));
      if (left === 0) return response.end('arrived');
      response.writeHead(307, { location: left === 9 ? 'https://127.0.0.1:1/' : `/${left - 1}` });
      return response.end();
    };
    await withBackend(listener, async ({ origin }) => {
      const follow = (where: string) => outcomeOf({ url: new URL(origin + where), maxRedirects: 3 });
      assert.equal(await follow('/3'), '200 arrived');
      assert.equal(await follow('/4'), 'more than 3 redirects');
      assert.equal(await follow('/9'), 'a redirect that leads to another scheme');
      assert.equal(await outcomeOf(`${origin}/1`), '307 ');
    });
  });

  test('credentials go to the hosts that were named, and to no other', async () => {
    const authorizations = (backend: HttpBackend) =>
      backend.requests.map(({ headers }) => headers.authorization);
    await withBackend(
      (_, response) => response.end('stranger'),
      async (stranger) => {
        await withBackend(
          (_, response) => response.end('leader'),
          async (leader) => {
            const targets = [leader.origin, stranger.origin];
            await withBackend(
              (_, response) => {
                response.writeHead(302, { location: `${targets.shift()}/` });
                response.end();
              },
              async (follower) => {
                const origins = [follower.origin, leader.origin];
                const request = {
                  url: new URL(follower.origin),
                  maxRedirects: 3,
                  credentials: { authorization: 'Basic c2VjcmV0', origins },
                };
                assert.equal(await outcomeOf(request), '200 leader');
                assert.equal(await outcomeOf(request), '200 stranger');
                assert.deepEqual(authorizations(follower), ['Basic c2VjcmV0', 'Basic c2VjcmV0']);
                assert.deepEqual(authorizations(leader), ['Basic c2VjcmV0']);
                assert.deepEqual(authorizations(stranger), [undefined]);
              },
            );
          },
        );
      },
    );
  });
});

describe('a stream', () => {
  test('comes line by line, until it is cut', async () => {
    const lines: string[] = [];
    let opened = 0;
    const onOpen = () => void (opened += 1);
    const onLine = (line: string) => void lines.push(line);
    const { signal } = new AbortController();
    await withBackend(
      (request, response) => {
        if (request.url === '/refused') response.statusCode = 503;
        response.write('one\r\ntw');
        response.write('o\n\nthr');
        if (request.url === '/cut') setTimeout(() => request.socket.destroy(), 20);
        else response.end();
      },
      async ({ origin }) => {
        const follow = (where: string) =>
          followLines({ url: new URL(origin + where) }, { onOpen, onLine, signal });
        assert.equal(await follow('/ended'), 'the stream has ended');
        assert.deepEqual(lines, ['one', 'two', '']);
        assert.equal(await follow('/cut'), 'the connection was cut');
        assert.equal(opened, 2);
        assert.equal(await follow('/refused'), 'status 503');
        assert.equal(opened, 2);
        assert.equal(getEventListeners(signal, 'abort').length, 0);
      },
    );
  });

  test('that says nothing for too long is left, and every word of it counts', async () => {
    await withBackend(
      (_, response) => {
        response.write('.');
        const timer = setInterval(() => response.write('.'), 50);
        setTimeout(() => clearInterval(timer), 1_500);
      },
      async ({ origin }) => {
        const began = performance.now();
        const reason = await followLines(
          { url: new URL(origin) },
          { onOpen() {}, onLine() {}, signal: new AbortController().signal },
          { silenceMs: 1_000 },
        );
        assert.equal(reason, 'nothing came for 1s');
        assert.ok(performance.now() - began > 1_500);
      },
    );
  });

  test('ends with its signal', async () => {
    const controller = new AbortController();
    await withBackend(
      (_, response) => response.flushHeaders(),
      async ({ origin }) => {
        const reason = followLines(
          { url: new URL(origin) },
          { onOpen: () => controller.abort(), onLine() {}, signal: controller.signal },
        );
        assert.equal(await reason, 'called off');
        assert.equal(getEventListeners(controller.signal, 'abort').length, 0);
      },
    );
  });

  test('its lines are the same however its bytes are cut, and none is longer than allowed', () => {
    const text = fc.array(fc.string({ unit: fc.constantFrom('a', 'é', '\r', '😀'), maxLength: 12 }));
    fc.assert(
      fc.property(text, fc.array(fc.nat(7)), (written, cuts) => {
        const bytes = Buffer.from(written.map((line) => `${line}\n`).join(''));
        const lines: string[] = [];
        const splitter = createLineSplitter(16, (line) => lines.push(line));
        let start = 0;
        for (const size of cuts) {
          splitter.push(bytes.subarray(start, start + size));
          start += size;
        }
        splitter.push(bytes.subarray(start));
        const kept = written.map((line) => Buffer.from(line).subarray(0, 16).toString().replace(/\r$/, ''));
        assert.deepEqual(lines, kept);
      }),
      { numRuns: 300 },
    );
  });
});
