import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

import { checkConformance } from '../../conformance/check.ts';
import { createAuthority } from '../../support/certificates.ts';
import { checkOf, NEVER, problemsOf, reasonOf, subject } from './check-support.ts';
import { eventually, freePort, startServer } from './support.ts';

async function httpServer(listener: http.RequestListener, host?: string) {
  const server = http.createServer(listener);
  return startServer(server, host);
}

/** The result of one probe against a server that answers like this. */
async function probeHttp(listener: http.RequestListener, options: Record<string, unknown> = {}) {
  const server = await httpServer(listener);
  try {
    return await checkOf({ http: { path: '/health', ...options } }, server.port).probe(NEVER);
  } finally {
    await server.close();
  }
}

async function http2Server(
  listener: (request: http2.Http2ServerRequest, response: http2.Http2ServerResponse) => void,
) {
  const server = http2.createServer((request, response) => {
    response.stream.on('error', () => {});
    listener(request, response);
  });
  server.on('session', (session) => session.on('error', () => {}));
  return startServer(server);
}

describe('http check', () => {
  checkConformance('http', {
    async healthy() {
      const server = await httpServer((_, response) => response.end('ok'));
      return {
        check: checkOf({ http: { path: '/' } }, server.port),
        leftovers: server.open,
        close: server.close,
      };
    },
    async absent() {
      const port = await freePort();
      return subject(checkOf({ http: { path: '/', port } }));
    },
    async hanging() {
      const server = await httpServer(() => {});
      return {
        check: checkOf({ http: { path: '/' } }, server.port),
        leftovers: server.open,
        close: server.close,
        begun: () => eventually(() => server.open() > 0, 'a connection'),
      };
    },
    wire: {
      serve: () => httpServer((_, response) => response.end('ok')),
      checkAt: (port) => checkOf({ http: { path: '/', port, expect_status: 200 } }),
    },
  });

  test('fails with the status when the service answers 503', async () => {
    const result = await probeHttp((_, response) => response.writeHead(503).end());
    assert.equal(reasonOf(result), 'status 503');
  });

  test('says that the connection was refused', async () => {
    const check = checkOf({ http: { path: '/', port: await freePort() } });
    assert.equal(reasonOf(await check.probe(NEVER)), 'connection refused');
  });

  test('passes on a redirect without following it', async () => {
    const seen: string[] = [];
    const result = await probeHttp((request, response) => {
      seen.push(request.url ?? '');
      response.writeHead(302, { location: '/elsewhere' }).end();
    });
    assert.deepEqual([result, seen], [{ ok: true }, ['/health']]);
  });

  test('accepts exactly the expected statuses where they are given', async () => {
    const answering = (status: number) => (_: unknown, response: http.ServerResponse) =>
      void response.writeHead(status).end();
    assert.equal(reasonOf(await probeHttp(answering(200), { expect_status: 204 })), 'status 200');
    assert.equal(reasonOf(await probeHttp(answering(404), { expect_status: [204, 404] })), 'passed');
    assert.equal(reasonOf(await probeHttp(answering(399))), 'passed');
    assert.equal(reasonOf(await probeHttp(answering(400))), 'status 400');
  });

  test('opens a new connection for every probe', async () => {
    const server = await httpServer((_, response) => response.end('ok'));
    const check = checkOf({ http: { path: '/' } }, server.port);
    for (let round = 0; round < 3; round += 1) await check.probe(NEVER);
    assert.equal(server.accepted(), 3);
    await server.close();
  });

  test('sends the method, the headers and the path as configured', async () => {
    let seen: unknown;
    await probeHttp(
      (request, response) => {
        const { method, url, headers } = request;
        seen = { method, url, host: headers.host, token: headers['x-token'], connection: headers.connection };
        response.end();
      },
      {
        method: 'HEAD',
        path: '/a?b=c',
        headers: { Host: 'web.example', 'X-Token': 't', Connection: 'keep-alive' },
      },
    );
    assert.deepEqual(seen, {
      method: 'HEAD',
      url: '/a?b=c',
      host: 'web.example',
      token: 't',
      connection: 'close',
    });
  });

  test('does not pass while the body hangs', async () => {
    const server = await httpServer((_, response) => {
      response.writeHead(200).write('half');
    });
    const controller = new AbortController();
    const probe = checkOf({ http: { path: '/' } }, server.port).probe(controller.signal);
    await eventually(() => server.open() > 0, 'a connection');
    assert.equal(await Promise.race([probe, Promise.resolve('pending')]), 'pending');
    controller.abort();
    assert.equal((await probe).ok, false);
    await server.close();
  });

  test('judges by the status when the body is huge, and stops reading', async () => {
    let sent = 0;
    const chunk = Buffer.alloc(16 * 1024);
    const result = await probeHttp((_, response) => {
      const push = () => {
        while (!response.destroyed && sent < 5e7) {
          sent += chunk.length;
          if (!response.write(chunk)) return void response.once('drain', push);
        }
        response.end();
      };
      push();
    });
    assert.equal(reasonOf(result), 'passed');
    assert.ok(sent < 5e7, `read ${sent} bytes`);
  });

  test('fails when the connection breaks before or within the answer', async () => {
    assert.match(reasonOf(await probeHttp((request) => request.socket.destroy())), /connection closed/);
    const cut = await probeHttp((request, response) => {
      response.writeHead(200, { 'content-length': '10' });
      response.write('half', () => request.socket.destroy());
    });
    assert.match(reasonOf(cut), /connection closed/);
  });

  test('fails when the answer is not HTTP, or asks to speak something else', async () => {
    const answers = ['nonsense\r\n\r\n', 'HTTP/1.1 101 Hi\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n'];
    for (const answer of answers) {
      const server = await startServer(net.createServer((socket) => socket.end(answer)));
      const result = await checkOf({ http: { path: '/' } }, server.port).probe(NEVER);
      assert.match(reasonOf(result), /not HTTP|connection closed/);
      await server.close();
    }
  });

  test('reaches an IPv6 literal', async () => {
    const server = await httpServer((_, response) => response.end(), '::1');
    assert.deepEqual(await checkOf({ http: { path: '/', host: '::1' } }, server.port).probe(NEVER), {
      ok: true,
    });
    await server.close();
  });

  test('calls the host as the configuration does, with its port where that says something', async () => {
    const seen: (string | undefined)[] = [];
    const server = await httpServer((request, response) => {
      seen.push(request.headers.host);
      response.end();
    });
    for (const host of ['localhost', '127.0.0.1'])
      await checkOf({ http: { path: '/', host } }, server.port).probe(NEVER);
    assert.deepEqual(seen, [`localhost:${server.port}`, `127.0.0.1:${server.port}`]);
    await server.close();
  });

  test('sends a body with its length, by any method that has one', async () => {
    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE']) {
      const seen: unknown[] = [];
      const result = await probeHttp(
        (request, response) => {
          const { method, headers } = request;
          const chunks: Buffer[] = [];
          request.on('data', (chunk: Buffer) => chunks.push(chunk));
          request.on('end', () => {
            seen.push(
              method,
              headers['content-length'],
              headers['content-type'],
              Buffer.concat(chunks).toString(),
            );
            response.end();
          });
        },
        { method, body: '{"ü":1}', headers: { 'content-type': 'application/json' } },
      );
      assert.deepEqual([reasonOf(result), ...seen], ['passed', method, '8', 'application/json', '{"ü":1}']);
    }
  });

  test('accepts ranges of statuses', async () => {
    const answering = (status: number) => (_: unknown, response: http.ServerResponse) =>
      void response.writeHead(status).end();
    const probe = async (status: number, expected: unknown) =>
      reasonOf(await probeHttp(answering(status), { expect_status: expected }));
    assert.equal(await probe(204, '200-299'), 'passed');
    assert.equal(await probe(299, '200-299'), 'passed');
    assert.equal(await probe(300, '200-299'), 'status 300');
    assert.equal(await probe(401, ['200-299', 401]), 'passed');
    assert.equal(await probe(402, ['200-299', 401]), 'status 402');
  });
});

describe('the body that an http check expects', () => {
  const page = (text: string) => (_: unknown, response: http.ServerResponse) => void response.end(text);
  const probe = async (text: string, options: Record<string, unknown>) =>
    reasonOf(await probeHttp(page(text), options));

  test('contains a text, or what is said instead is shown', async () => {
    const options = { expect_body: { contains: '"ok"' } };
    assert.equal(await probe('{"status":"ok"}', options), 'passed');
    assert.equal(
      await probe('{"status":\n\u001b[31m"bad"}', options),
      `the body does not contain "\\"ok\\""; it begins with "{\\"status\\": [31m\\"bad\\"}"`,
    );
  });

  test('matches an expression', async () => {
    const options = { expect_body: { matches: '^status: (up|ready)$' } };
    assert.equal(await probe('status: ready', options), 'passed');
    assert.match(
      await probe('status: ready?', options),
      /^the body does not match "\^status: \(up\|ready\)\$"/,
    );
  });

  test('may come in pieces that break characters', async () => {
    const bytes = Buffer.from('zustand: grün');
    const result = await probeHttp(
      (_, response) => {
        const push = (at: number) => {
          if (at === bytes.length) return void response.end();
          response.write(bytes.subarray(at, at + 1), () => setImmediate(push, at + 1));
        };
        push(0);
      },
      { expect_body: { contains: 'grün' } },
    );
    assert.equal(reasonOf(result), 'passed');
  });

  test('is looked for in as many bytes as are read, and no more are', async () => {
    const options = { max_body: 100, expect_body: { contains: 'end' } };
    assert.equal(await probe(`${'x'.repeat(97)}end`, options), 'passed');
    assert.equal(await probe(`end${'x'.repeat(1e6)}`, options), 'passed');
    assert.match(
      await probe(`${'x'.repeat(98)}end`, options),
      /^the first 100 bytes of the body do not contain "end"/,
    );
  });

  test('is judged after the status', async () => {
    const result = await probeHttp((_, response) => void response.writeHead(503).end('ok'), {
      expect_body: { contains: 'ok' },
    });
    assert.equal(reasonOf(result), 'status 503');
  });

  test('does not pass encoded, which nobody asked for', async () => {
    const result = await probeHttp(
      (_, response) => void response.writeHead(200, { 'content-encoding': 'gzip' }).end('ok'),
      { expect_body: { contains: 'ok' } },
    );
    assert.equal(reasonOf(result), 'the body is encoded (gzip), which was not asked for');
  });

  test('holds nobody up, however bad the expression and the body are for each other', async () => {
    const check = async (matches: string) => {
      const server = await httpServer((_, response) => void response.end('a'.repeat(64 << 10)));
      let longest = 0;
      let last = performance.now();
      const watch = setInterval(() => {
        longest = Math.max(longest, performance.now() - last);
        last = performance.now();
      }, 1);
      const result = await checkOf({ http: { path: '/', expect_body: { matches } } }, server.port).probe(
        NEVER,
      );
      clearInterval(watch);
      await server.close();
      assert.match(reasonOf(result), /does not match/);
      return longest;
    };
    // Each of them would keep JavaScript's own expressions busy for hours.
    for (const matches of ['(a*)*b', '(a|a)*b', 'a.*a.*a.*a.*b', '([a-z]+)+[0-9]', '[a-z]{1,90}[0-9]'])
      assert.ok((await check(matches)) < 2_000, matches);
  });

  test('ends with the probe while it is searched', async () => {
    const controller = new AbortController();
    const server = await httpServer((_, response) => void response.end('a'.repeat(1 << 20)));
    const options = { path: '/', max_body: 1 << 20, expect_body: { matches: '[a-z]{1,90}[0-9]' } };
    const probe = checkOf({ http: options }, server.port).probe(controller.signal);
    await eventually(() => server.accepted() > 0 && server.open() === 0, 'the answer was read');
    controller.abort();
    assert.equal(reasonOf(await probe), 'called off');
    assert.equal(getEventListeners(controller.signal, 'abort').length, 0);
    await server.close();
  });
});

describe('http check by HTTP/2', () => {
  const entry = (options: Record<string, unknown> = {}) => ({
    http: { path: '/', http_version: 2, ...options },
  });

  checkConformance('http', {
    async healthy() {
      const server = await http2Server((_, response) => response.end('ok'));
      return { check: checkOf(entry(), server.port), leftovers: server.open, close: server.close };
    },
    async absent() {
      return subject(checkOf(entry({ port: await freePort() })));
    },
    async hanging() {
      const server = await http2Server(() => {});
      return {
        check: checkOf(entry(), server.port),
        leftovers: server.open,
        close: server.close,
        begun: () => eventually(() => server.open() > 0, 'a connection'),
      };
    },
    wire: {
      serve: () => http2Server((_, response) => response.end('ok')),
      checkAt: (port) => checkOf(entry({ port })),
    },
  });

  test('sends the method, the headers, the path and the body as configured', async () => {
    let seen: unknown;
    const server = await http2Server((request, response) => {
      const { method, url, headers } = request;
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => chunks.push(chunk));
      request.on('end', () => {
        const body = Buffer.concat(chunks).toString();
        seen = { method, url, authority: headers[':authority'], token: headers['x-token'], body };
        response.end();
      });
    });
    const headers = { Host: 'web.example', 'X-Token': 't', Connection: 'close' };
    const options = { path: '/a?b=c', method: 'PUT', headers, body: 'said' };
    assert.equal(reasonOf(await checkOf(entry(options), server.port).probe(NEVER)), 'passed');
    assert.deepEqual(seen, {
      method: 'PUT',
      url: '/a?b=c',
      authority: 'web.example',
      token: 't',
      body: 'said',
    });
    await server.close();
  });

  test('judges status and body', async () => {
    const server = await http2Server((request, response) => {
      response.statusCode = Number(request.url?.slice(1));
      response.end('{"status":"ok"}');
    });
    const probe = async (options: Record<string, unknown>) =>
      reasonOf(await checkOf(entry(options), server.port).probe(NEVER));
    assert.equal(await probe({ path: '/503' }), 'status 503');
    assert.equal(await probe({ path: '/200', expect_body: { contains: 'ok' } }), 'passed');
    assert.match(await probe({ path: '/200', expect_body: { contains: 'good' } }), /does not contain "good"/);
    assert.equal(await probe({ path: '/200', max_body: 3 }), 'passed');
    await server.close();
  });

  test('fails when the connection breaks, or the request is refused, within the answer', async () => {
    const ways: Record<string, [(response: http2.Http2ServerResponse) => void, RegExp]> = {
      'a reset of the stream': [(response) => response.stream.close(7), /NGHTTP2_REFUSED_STREAM|closed/],
      'a goodbye': [
        (response) => response.stream.session?.goaway(11),
        /NGHTTP2_ENHANCE_YOUR_CALM|ended|closed/,
      ],
      'the end of the connection': [(response) => response.stream.session?.destroy(), /closed/],
    };
    for (const begin of [false, true])
      for (const [name, [act, reason]] of Object.entries(ways)) {
        const server = await http2Server((_, response) => {
          if (begin) response.write('half', () => setTimeout(act, 5, response));
          else act(response);
        });
        const result = await checkOf(entry(), server.port).probe(NEVER);
        await server.close();
        // Without a word of it, an end by the stream itself is one that the server wanted.
        if (!(begin && name === 'a reset of the stream'))
          assert.match(reasonOf(result), reason, `${name} ${begin}`);
      }
  });

  test('says what is wrong with a service that speaks HTTP/1 only', async () => {
    const server = await httpServer((_, response) => response.end());
    assert.match(reasonOf(await checkOf(entry(), server.port).probe(NEVER)), /the answer is not HTTP\/2/);
    await server.close();
  });
});

describe('http check within TLS', () => {
  let directory = '';
  before(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'tandem-http-'));
  });
  after(() => rmSync(directory, { recursive: true, force: true }));

  async function secureServer(create: (tls: https.ServerOptions) => net.Server) {
    const authority = await createAuthority(directory, 'web');
    const { certFile, keyFile } = await authority.issue('server', ['DNS:web.test']);
    const server = create({ cert: readFileSync(certFile), key: readFileSync(keyFile) });
    return { authority, server: await startServer(server) };
  }

  for (const version of [1.1, 2]) {
    test(`verifies the service, unless it is told not to (HTTP/${version})`, async () => {
      const { authority, server } = await secureServer((tls) =>
        version === 2
          ? http2.createSecureServer(tls, (_, response) => void response.end('ok'))
          : https.createServer(tls, (_, response) => void response.end('ok')),
      );
      const probe = async (tls: unknown) => {
        const options = { path: '/', http_version: version, expect_body: { contains: 'ok' }, tls };
        return reasonOf(await checkOf({ http: options }, server.port).probe(NEVER));
      };
      assert.equal(await probe({ ca_file: authority.caFile, server_name: 'web.test' }), 'passed');
      assert.equal(await probe({ verify: false }), 'passed');
      assert.match(await probe(true), /^TLS: the certificate .* tls\.ca_file/);
      assert.match(await probe({ ca_file: authority.caFile }), /^TLS: the certificate .* tls\.server_name/);
      assert.match(await probe({ ca_file: '/nonexistent' }), /^TLS: \/nonexistent does not exist/);
      assert.equal((await probe(false)) === 'passed', false);
      await eventually(() => server.open() === 0, 'no connection stays');
      await server.close();
    });
  }

  test('by HTTP/2 asks for that, and says when the service does not have it', async () => {
    const { server } = await secureServer((tls) =>
      https.createServer(tls, (_, response) => void response.end()),
    );
    const options = { path: '/', http_version: 2, tls: { verify: false } };
    assert.equal(
      reasonOf(await checkOf({ http: options }, server.port).probe(NEVER)),
      'the service does not offer HTTP/2 within TLS',
    );
    await server.close();
  });

  test('fails on a service without TLS', async () => {
    const server = await httpServer((_, response) => void response.end());
    const check = checkOf({ http: { path: '/', tls: true } }, server.port);
    assert.equal(reasonOf(await check.probe(NEVER)), 'TLS: the service does not speak TLS on this port');
    await server.close();
  });
});

test('what an http check cannot be is told with what it can', () => {
  const described = [
    ['expect_status: 99', /expect_status: must be at least 200, found 99/],
    ['expect_status: 2xx', /must be a status or a range of them such as 200-399, found "2xx"/],
    ['expect_status: 399-200', /must be a status or a range of them such as 200-399/],
    ['expect_status: [200, 300-700]', /expect_status\[1\]: must be a status or a range/],
    ['expect_status: []', /expect_status: must be at least 1 entries/],
    ['expect_body: ok', /expect_body: must be a map of keys, found "ok"/],
    ['expect_body: {}', /expect_body: must have one of contains and matches/],
    ['expect_body: { contains: a, matches: b }', /must have one of contains and matches/],
    ['expect_body: { matches: "(a" }', /matches: is not a regular expression: .*found "\(a"/],
    ['expect_body: { matches: "(?=a)" }', /matches: must not refer back or look around/],
    ['expect_body: { contains: a }, method: HEAD', /expect_body: has nothing to look at/],
    ['max_body: 2000000', /max_body: must be at most 1048576/],
    ['body: x', /body: is not for a GET: remove it, or set method: POST/],
    ['http_version: 3', /http_version: found 3, which is not one of the choices\. Known: 1\.1, 2/],
    ['headers: { Content-Length: "1" }', /headers\.Content-Length: cannot be chosen: remove it/],
    ['headers: { Host: a, host: b }', /headers\.host: stands here twice: names of headers have no case/],
    ['tls: { verify: false, ca_file: x }', /must not have ca_file with verify: false/],
    ['tls: yes please', /tls: /],
  ] as const;
  for (const [keys, message] of described)
    assert.match(problemsOf(`http: { path: /, ${keys} }`), message, keys);
});
