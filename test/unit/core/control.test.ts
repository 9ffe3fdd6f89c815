import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import { describe, test, type TestContext } from 'node:test';

import { askControl, type ControlRoute, openControl, silentLog } from '@tandem/core';

import { eventually } from '../../support/eventually.ts';
import { coded, temporaryDirectory } from './support.ts';

const ROUTES: readonly ControlRoute[] = [
  { method: 'GET', path: '/v1/state', answer: () => ({ ok: true, body: { fine: true } }) },
  {
    method: 'PUT',
    path: '/v1/things/:thing/parts/:part',
    answer: ({ params, body }) => ({ ok: true, body: { params, body } }),
  },
  {
    method: 'DELETE',
    path: '/v1/things/:thing/parts/:part',
    answer: ({ params }) => ({ ok: false, status: 404, code: 'NO_THING', message: `no ${params['thing']}` }),
  },
  {
    method: 'POST',
    path: '/v1/things/:thing',
    answer: ({ params, body }) => ({ ok: true, body: { params, body } }),
  },
  {
    method: 'GET',
    path: '/v1/broken',
    answer: () => {
      throw new Error('a fault');
    },
  },
  {
    method: 'GET',
    path: '/v1/slow',
    answer: async () => {
      await new Promise((resolve) => setTimeout(resolve, 300));
      return { ok: true, body: 'done' };
    },
  },
];

async function open(t: TestContext, file = path.join(temporaryDirectory(t), 'run', 'control.sock')) {
  const server = await openControl({ file, routes: ROUTES, log: silentLog });
  t.after(() => server.close());
  return { file, server };
}

function ask(
  file: string,
  method: 'GET' | 'PUT' | 'POST' | 'DELETE',
  parts: readonly string[],
  body?: unknown,
) {
  return askControl({ file, daemon: 'test daemon', method, path: parts, body });
}

/** The bare answer to a request that no client of ours would send. */
function send(
  file: string,
  options: http.RequestOptions,
  body = '',
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const request = http.request({ socketPath: file, agent: false, ...options }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => (text += part));
      response.once('end', () => resolve({ status: response.statusCode ?? 0, text }));
    });
    request.once('error', reject);
    request.end(body);
  });
}

describe('the control socket', () => {
  test('answers to its owner and group alone, in a directory that it makes, and is gone at the end', async (t) => {
    const before = process.umask(0);
    t.after(() => process.umask(before));
    const { file, server } = await open(t);

    assert.deepEqual(await ask(file, 'GET', ['v1', 'state']), { fine: true });
    assert.equal(statSync(file).mode & 0o777, 0o660);
    assert.equal(statSync(path.dirname(file)).mode & 0o777, 0o750);
    assert.deepEqual(readdirSync(path.dirname(file)), ['control.sock']);

    await server.close();
    assert.deepEqual(readdirSync(path.dirname(file)), []);
  });

  test('takes any text for the open parts of a path, and what comes as JSON', async (t) => {
    const { file } = await open(t);
    const hostile = '../a/b?c#d%2F\u{1f4a5}\r\n;e';

    assert.deepEqual(
      await ask(file, 'PUT', ['v1', 'things', hostile, 'parts', 'web_[::1]:80'], { kind: 'x' }),
      {
        params: { thing: hostile, part: 'web_[::1]:80' },
        body: { kind: 'x' },
      },
    );
    assert.deepEqual(await ask(file, 'POST', ['v1', 'things', 'web'], ['x']), {
      params: { thing: 'web' },
      body: ['x'],
    });
  });

  test('hands on a refusal in the words of the daemon', async (t) => {
    const { file } = await open(t);

    await assert.rejects(
      ask(file, 'DELETE', ['v1', 'things', 'web', 'parts', 'p']),
      coded('CONTROL_REFUSED', /^no web$/),
    );
  });

  test('says that the daemon is of another version when it does not know a request', async (t) => {
    const { file } = await open(t);

    for (const question of [
      ask(file, 'GET', ['v2', 'state']),
      ask(file, 'PUT', ['v1', 'state']),
      ask(file, 'GET', ['v1', 'state', '']),
    ]) {
      await assert.rejects(question, coded('CONTROL_UNREACHABLE', /another version.* Restart it/));
    }
  });

  test('refuses with a fitting status what is no request of ours', async (t) => {
    const { file } = await open(t);
    const put = { method: 'PUT', path: '/v1/things/a/parts/b' };

    assert.equal((await send(file, put, '{')).status, 400);
    assert.equal((await send(file, { method: 'GET', path: '/v1/%zz' })).status, 400);
    assert.equal((await send(file, put, `"${'x'.repeat(70_000)}"`)).status, 413);
    assert.equal((await send(file, { method: 'POST', path: '/v1/state' })).status, 405);
    const unknown = await send(file, { path: '/' });
    assert.equal(unknown.status, 404);
    assert.deepEqual(Object.keys(JSON.parse(unknown.text) as object), ['error']);
  });

  test('outlives a route that throws, and a client that talks nonsense or leaves', async (t) => {
    const { file } = await open(t);

    assert.equal((await send(file, { path: '/v1/broken' })).status, 500);
    const nonsense = net.connect(file);
    nonsense.on('error', () => {}).resume();
    nonsense.write('\0\0\0\r\n\r\n');
    await once(nonsense, 'close');
    const leaver = net.connect(file);
    await once(leaver, 'connect');
    leaver.write('GET /v1/slow HTTP/1.1\r\nhost: x\r\n\r\n');
    leaver.destroy();

    assert.deepEqual(await ask(file, 'GET', ['v1', 'state']), { fine: true });
  });

  test('gives a route the time that it asks for, and ends it when nobody waits for the answer any more', async (t) => {
    let begun = () => {};
    const isBegun = new Promise<void>((resolve) => {
      begun = resolve;
    });
    const reasons: unknown[] = [];
    const untilGone = (signal: AbortSignal) =>
      new Promise<never>((_, reject) => {
        signal.addEventListener('abort', () => {
          reasons.push(signal.reason);
          reject(signal.reason as Error);
        });
        begun();
      });
    const log = { ...silentLog, error: () => assert.fail('nothing is wrong') };
    const file = path.join(temporaryDirectory(t), 'control.sock');
    const server = await openControl({
      file,
      log,
      routes: [
        { method: 'GET', path: '/long', limitMs: 3_600_000, answer: ({ signal }) => untilGone(signal) },
        { method: 'GET', path: '/short', limitMs: 50, answer: ({ signal }) => untilGone(signal) },
      ],
    });
    t.after(() => server.close());

    const client = net.connect(file);
    client.write('GET /long HTTP/1.1\r\nhost: x\r\n\r\n');
    await isBegun;
    client.destroy();
    await eventually(() => assert.equal(reasons.length, 1));
    assert.match(String(reasons[0]), /whoever asked has gone/);

    assert.equal((await send(file, { method: 'GET', path: '/short' })).status, 504);
  });

  test('answers what is under way when it closes', async (t) => {
    const { file, server } = await open(t);
    const idle = net.connect(file);
    idle.on('error', () => {});
    await once(idle, 'connect');
    const slow = ask(file, 'GET', ['v1', 'slow']);
    await new Promise((resolve) => setTimeout(resolve, 100));

    await server.close();

    assert.equal(await slow, 'done');
    idle.destroy();
  });

  test('of a process that lives is never taken, of one that was killed is replaced', async (t) => {
    const file = path.join(temporaryDirectory(t), 'control.sock');
    const script = `import { openControl, silentLog } from '@tandem/core';
      await openControl({ file: process.argv[1], routes: [], log: silentLog });
      console.log('open');`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script, file], {
      cwd: import.meta.dirname,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    t.after(() => child.kill('SIGKILL'));
    await once(child.stdout, 'data');
    const inode = statSync(file).ino;

    await assert.rejects(
      open(t, file),
      coded('ALREADY_RUNNING', /another process already answers at .*control\.sock/),
    );
    assert.equal(statSync(file).ino, inode);
    assert.deepEqual(readdirSync(path.dirname(file)), ['control.sock']);

    child.kill('SIGKILL');
    await once(child, 'exit');
    assert.ok(existsSync(file));
    await open(t, file);
    assert.deepEqual(await ask(file, 'GET', ['v1', 'state']), { fine: true });
    assert.deepEqual(readdirSync(path.dirname(file)), ['control.sock']);
  });

  test('that took the place of ours is left alone when ours closes', async (t) => {
    const { file, server } = await open(t);
    rmSync(file);
    const other = await open(t, file);

    await server.close();

    assert.deepEqual(await ask(other.file, 'GET', ['v1', 'state']), { fine: true });
  });

  test('says what is in its way', async (t) => {
    const directory = temporaryDirectory(t);
    const file = path.join(directory, 'control.sock');
    const long = path.join(directory, 'x'.repeat(100));
    const opening = (at: string, group?: string) =>
      openControl({ file: at, group, routes: [], log: silentLog });

    await assert.rejects(opening(long), coded('FILE_WRITE_FAILED', /more than 91 bytes/));
    await assert.rejects(
      opening(file, 'no-such-group'),
      coded('FILE_WRITE_FAILED', /no group no-such-group/),
    );
    writeFileSync(file, 'mine');
    await assert.rejects(opening(file), coded('FILE_WRITE_FAILED', /not a socket has that name/));
    await assert.rejects(opening(path.join(file, 'x.sock')), coded('FILE_WRITE_FAILED'));
    assert.deepEqual(readdirSync(directory), ['control.sock']);
  });

  test('can be given to a group', async (t) => {
    const file = path.join(temporaryDirectory(t), 'control.sock');
    // Only root may choose any group.
    const [group, gid] =
      process.getuid?.() === 0 ? ['daemon', 1] : [String(process.getgid?.()), process.getgid?.()];
    const server = await openControl({ file, group, routes: [], log: silentLog });
    t.after(() => server.close());

    assert.equal(statSync(file).gid, gid);
    assert.equal(statSync(file).mode & 0o777, 0o660);
  });
});

describe('who asks a control socket', () => {
  test('learns what to do when no daemon answers', async (t) => {
    const directory = temporaryDirectory(t);
    const file = path.join(directory, 'control.sock');

    await assert.rejects(
      ask(file, 'GET', ['v1', 'state']),
      coded('CONTROL_UNREACHABLE', /cannot reach the test daemon at .*: it is not running, or .*--config/),
    );
    const deaf = net.createServer((socket) => socket.on('error', () => {})).listen(file);
    t.after(() => deaf.close());
    await once(deaf, 'listening');
    await assert.rejects(
      askControl({ file, daemon: 'test daemon', method: 'GET', path: ['x'], timeoutMs: 100 }),
      coded('CONTROL_UNREACHABLE', /has not answered within 100 ms/),
    );
  });

  test('is not taken in by a server of something else', async (t) => {
    const file = path.join(temporaryDirectory(t), 'control.sock');
    const other = http.createServer((_, response) => response.end('<html>')).listen(file);
    t.after(() => other.close());
    await once(other, 'listening');

    await assert.rejects(
      ask(file, 'GET', ['v1', 'state']),
      coded('CONTROL_UNREACHABLE', /not a Tandem daemon/),
    );
  });
});
