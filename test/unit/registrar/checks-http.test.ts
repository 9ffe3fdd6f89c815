import assert from 'node:assert/strict';
import http from 'node:http';
import net from 'node:net';
import { describe, test } from 'node:test';

import { checkConformance } from '../../conformance/check.ts';
import { checkOf, NEVER, reasonOf, subject } from './check-support.ts';
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
});
