import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import { describe, test } from 'node:test';

import { parseYaml } from '@tandem/core';
import { RegisterSection } from '@tandem/registrar';

import { checkConformance } from '../../conformance/check.ts';
import { checkOf, NEVER, reasonOf, subject } from './check-support.ts';
import { freePort, pause, startServer } from './support.ts';

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
          tls: undefined,
          send: undefined,
          expect: undefined,
          schedule: { intervalMs: 2000, timeoutMs: 500, rise: 1, fall: 1, initial: 'first_result' },
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
