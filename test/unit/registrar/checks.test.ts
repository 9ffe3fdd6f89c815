import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

import { createAddressResolver, parseYaml } from '@tandem/core';
import { type Check, CheckSection, createCheck, type ProbeResult, RegisterSection } from '@tandem/registrar';

import { checkConformance, type CheckSubject } from '../../conformance/check.ts';
import { eventually, freePort, isRunning, pause, startServer } from './support.ts';

const NEVER = new AbortController().signal;

function checkOf(entry: Record<string, unknown>, servicePort = 1) {
  return createCheck(CheckSection.parse(entry), {
    service: 'web',
    port: servicePort,
    resolver: createAddressResolver(),
  });
}

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

function subject(check: Check, leftovers = () => 0): CheckSubject {
  return { check, leftovers, close: () => Promise.resolve() };
}

function reasonOf(result: ProbeResult): string {
  return result.ok ? 'passed' : result.reason;
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

describe('tcp check', () => {
  checkConformance('tcp', {
    async healthy() {
      const server = await startServer(net.createServer());
      return { check: checkOf({ tcp: {} }, server.port), leftovers: server.open, close: server.close };
    },
    async absent() {
      const port = await freePort();
      return subject(checkOf({ tcp: { port } }));
    },
    async hanging() {
      // A listener with a full backlog drops the handshake of whoever comes next.
      const full = await fullBacklog();
      return {
        check: checkOf({ tcp: {} }, full.port),
        leftovers: () =>
          process.getActiveResourcesInfo().filter((name) => name === 'TCPConnectWrap').length - 1,
        close: full.close,
        begun: () => Promise.resolve(),
      };
    },
  });

  test('says that the connection was refused', async () => {
    assert.equal(reasonOf(await checkOf({ tcp: {} }, await freePort()).probe(NEVER)), 'connection refused');
  });

  test('reaches an IPv6 literal, and a port of its own', async () => {
    const server = await startServer(net.createServer(), '::1');
    assert.deepEqual(await checkOf({ tcp: { host: '::1', port: server.port } }).probe(NEVER), { ok: true });
    await server.close();
  });
});

describe('command check', () => {
  let directory = '';
  before(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'tandem-check-'));
  });
  after(() => rmSync(directory, { recursive: true, force: true }));

  function shell(script: string) {
    return checkOf({ command: { command: ['/bin/sh', '-c', script] } });
  }
  function pidsIn(file: string): number[] {
    try {
      return readFileSync(file, 'utf8').split('\n').filter(Boolean).map(Number);
    } catch {
      return [];
    }
  }
  /** A shell with a child, both of which hang, and the file where they leave their pids. */
  function hangingShell(name: string) {
    const file = path.join(directory, name);
    return {
      check: shell(`sleep 60 & echo $! >> ${file}; echo $$ >> ${file}; wait`),
      pids: () => pidsIn(file),
    };
  }

  checkConformance('command', {
    healthy: () => Promise.resolve(subject(shell('exit 0'))),
    absent: () => Promise.resolve(subject(checkOf({ command: { command: ['/nonexistent/program'] } }))),
    hanging() {
      const { check, pids } = hangingShell('conformance');
      const begun = () => eventually(() => pids().length === 2, 'both processes run');
      return Promise.resolve({ ...subject(check, () => pids().filter(isRunning).length), begun });
    },
  });

  test('names the program that does not exist or may not be started', async () => {
    const missing = await checkOf({ command: { command: ['no-such-program-here'] } }).probe(NEVER);
    assert.equal(reasonOf(missing), 'cannot start no-such-program-here: no such program');
    const denied = await checkOf({ command: { command: ['/etc/passwd'] } }).probe(NEVER);
    assert.equal(reasonOf(denied), 'cannot start /etc/passwd: permission denied');
  });

  test('shows the exit status and what the program said', async () => {
    assert.equal(
      reasonOf(await shell('echo out; echo err >&2; exit 3').probe(NEVER)).split('\n')[0],
      'exit status 3: out',
    );
    assert.match(reasonOf(await shell('echo problem >&2; exit 1').probe(NEVER)), /^exit status 1: problem$/);
    assert.equal(reasonOf(await shell('kill -9 $$').probe(NEVER)), 'killed by SIGKILL');
  });

  test('keeps only the end of a long output, and does not mind its length', async () => {
    const failed = reasonOf(
      await shell('yes 0123456789 | head -c 300000; echo the end; exit 2').probe(NEVER),
    );
    assert.ok(failed.endsWith('the end') && failed.length < 5000);
    assert.equal(reasonOf(await shell('yes 0123456789 | head -c 300000').probe(NEVER)), 'passed');
  });

  test('takes arguments as they are: no shell reads them', async () => {
    const check = checkOf({ command: { command: ['/usr/bin/test', '$HOME', '=', '$HOME'] } });
    assert.equal(reasonOf(await check.probe(NEVER)), 'passed');
  });

  test('does not leave children behind when the program ends before them', async () => {
    const file = path.join(directory, 'orphan');
    const limit = new AbortController();
    const timer = setTimeout(() => limit.abort(), 5000);
    const result = await shell(`sleep 60 & echo $! > ${file}; exit 0`).probe(limit.signal);
    assert.equal(reasonOf(result), 'passed');
    clearTimeout(timer);
    const [pid = 0] = pidsIn(file);
    await eventually(() => pid > 0 && !isRunning(pid), 'the child is dead');
  });
});

describe('checks in a service file', () => {
  function problemsOf(yaml: string): string[] {
    const result = parseYaml(`port: 80\nchecks:\n${yaml}`, 'web.yaml', RegisterSection);
    return result.ok
      ? []
      : result.problems.map(
          (it) =>
            `${it.line}:${it.column} ${it.path}: ${it.reason}${it.remedy === undefined ? '' : `. ${it.remedy}`}`,
        );
  }

  test('have defaults for everything but what must be said', () => {
    const { checks } = RegisterSection.parse({ port: 80, checks: [{ tcp: {} }] });
    assert.deepEqual(checks, [
      {
        kind: 'tcp',
        options: {
          host: '127.0.0.1',
          port: undefined,
          schedule: { intervalMs: 2000, timeoutMs: 500, rise: 1, fall: 1 },
        },
      },
    ]);
  });

  test('may have a timeout longer than the interval', () => {
    assert.deepEqual(problemsOf('- tcp: { interval: 1s, timeout: 5s, rise: 2, fall: 3 }'), []);
  });

  test('must have exactly one kind, and the kinds are named', () => {
    assert.match(
      problemsOf('- {}').join('\n'),
      /^3:3 checks\[0\]: must have exactly one kind of check \(known: http, tcp, .*\)/,
    );
    assert.match(problemsOf('- { tcp: {}, http: { path: / } }').join('\n'), /exactly one kind/);
  });

  test('with a mistyped kind say which one was meant', () => {
    assert.match(
      problemsOf('- htpp: { path: / }').join('\n'),
      /^3:3 checks\[0\]: "htpp" is not known here\. Known: http, tcp, .*\. Did you mean "http"\?$/,
    );
  });

  test('are refused where they could not work', () => {
    for (const [yaml, message] of [
      ['- http: {}', /checks\[0\]\.http\.path: is required/],
      ['- http: { path: health }', /must begin with "\/"/],
      ['- http: { path: "/a b" }', /must begin with "\/" and hold no spaces/],
      [
        '- http: { path: /, headers: { "a b": c } }',
        /headers: the key "a b" cannot be used: is not the name of a header/,
      ],
      ['- http: { path: /, headers: { a: "b\\nc" } }', /must not hold line breaks/],
      ['- http: { path: /, method: FETCH }', /Known: GET, HEAD, OPTIONS, POST/],
      ['- http: { path: /, expect_status: 99 }', /expect_status: must be at least 200/],
      ['- http: { path: /, expect_status: [200, 99] }', /expect_status\[1\]: must be at least 200/],
      [
        '- tcp: { host: "no name" }',
        /must be an IPv4 or IPv6 address, or the name of a host, found "no name"/,
      ],
      ['- tcp: { host: "127.1" }', /must be an IPv4 or IPv6 address, or the name of a host/],
      ['- tcp: { rise: 0 }', /must be at least 1/],
      ['- tcp: { interval: 2 }', /must be a duration/],
      ['- tcp: { interval: 1ms }', /must be between 10ms and 24h/],
      ['- tcp: { inteval: 2s }', /Did you mean "interval"/],
      ['- command: { command: [] }', /must be at least 1 entries/],
      ['- command: { command: [""] }', /must begin with the name of a program/],
      ['- command: { command: "true" }', /must be a list/],
    ] as const) {
      assert.match(problemsOf(yaml).join('\n'), message, yaml);
    }
  });
});

/** A listener in a stopped process, with as many connections waiting as its queue can hold. */
async function fullBacklog(): Promise<{ port: number; close: () => Promise<void> }> {
  const script = `const server = require('node:net').createServer();
    server.listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => {
      require('node:fs').writeSync(1, server.address().port + '\\n');
      process.kill(process.pid, 'SIGSTOP');
    });`;
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  const port = Number(line.toString());
  const waiting: net.Socket[] = [];
  for (;;) {
    const socket = net.connect({ port, host: '127.0.0.1' });
    socket.on('error', () => {});
    waiting.push(socket);
    const connected = await Promise.race([
      once(socket, 'connect').then(() => true),
      pause(50).then(() => false),
    ]);
    if (!connected) break;
  }
  return {
    port,
    async close() {
      for (const socket of waiting) socket.destroy();
      child.kill('SIGKILL');
      await once(child, 'exit');
    },
  };
}
