// Ways to a service, against a real HAProxy: its own port or socket, a frontend that it shares, a port of a range; and
// which of their changes need a reload.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

import { checkConfig } from '@tandem/discovery';

import { createHaproxyWorld, eventually, freePort, type HaproxyWorld, service } from '../support/haproxy.ts';
import { ask } from '../support/load.ts';
import { type Origin, startHttpOrigin, startTcpOrigin } from '../support/origin.ts';

const timeout = 60_000;
let a: Origin;
let b: Origin;
let c: Origin;

before(async () => {
  [a, b, c] = await Promise.all([startHttpOrigin(), startHttpOrigin(), startHttpOrigin()]);
});

after(async () => {
  await Promise.all([a, b, c].map((origin) => origin.close()));
});

/** A test with a HAProxy of its own, which ends with it, however it ends. */
function scenario(
  name: string,
  body: (world: HaproxyWorld) => Promise<void>,
  settings: () => Record<string, unknown> | Promise<Record<string, unknown>> = () => ({}),
): void {
  test(name, { timeout }, async () => {
    const world = await createHaproxyWorld(await settings());
    try {
      await body(world);
    } catch (error) {
      process.stderr.write(`${world.entries.map((entry) => JSON.stringify(entry)).join('\n')}\n`);
      throw error;
    } finally {
      await world.end();
    }
  });
}

/** The body of a 200 to a request that names a host; rejects with the status of everything else. */
function askHost(where: { port: number } | { socketPath: string }, host: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const target = 'port' in where ? { ...where, host: '127.0.0.1' } : where;
    const request = http.get({ ...target, agent: false, headers: { host }, timeout: 10_000 }, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => (body += chunk));
      response.once('error', reject);
      response.once('end', () =>
        response.statusCode === 200 ? resolve(body) : reject(new Error(`status ${response.statusCode}`)),
      );
    });
    request.once('timeout', () => request.destroy(new Error('no answer in time')));
    request.once('error', reject);
  });
}

function mapFile(world: HaproxyWorld, name: string): string {
  return path.join(path.dirname(world.config.configFile), `tandem-${name}.map`);
}

/** The entries of a running map, as `key value`. */
async function runningMap(world: HaproxyWorld, name: string): Promise<string[]> {
  const [answer = ''] = await world.operate(`show map ${mapFile(world, name)}`);
  return answer
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => line.split(' ').slice(1).join(' '))
    .toSorted();
}

async function assertLoadable(world: HaproxyWorld): Promise<void> {
  assert.equal(await checkConfig(world.config, await readFile(world.config.configFile, 'utf8')), undefined);
}

/** Where a range of ports that nobody has begins. */
async function freeRange(count: number): Promise<number> {
  return eventually(async () => {
    const first = await freePort();
    if (first + count > 65_535) throw new Error('too high');
    await Promise.all(
      Array.from({ length: count }, async (_, index) => {
        const server = net.createServer().listen(first + index, '127.0.0.1');
        await new Promise((resolve, reject) => {
          server.once('listening', resolve);
          server.once('error', reject);
        });
        await new Promise((resolve) => server.close(resolve));
      }),
    );
    return first;
  });
}

describe('a shared frontend', () => {
  const shared = async () => ({ shared_frontends: { web: { listen: await freePort() } } });
  const portOf = (world: HaproxyWorld) =>
    Number(world.config.sharedFrontends['web']?.listen[0]?.split(':')[1]);
  const on = (name: string, hosts: string[], section: Record<string, unknown> = {}) =>
    service(name, undefined, { shared_frontend: 'web', hosts, ...section });

  scenario(
    'tells services apart by host, whatever its port, case and final dot; others get a 503',
    async (world) => {
      world.registry.say('/services/api', [a.instance('a')]);
      world.registry.say('/services/shop', [b.instance('b')]);
      world.start([on('api', ['api.example.com', '[::1]']), on('shop', ['shop.example.com'])]);
      await world.becomes('api', ['a']);
      await world.becomes('shop', ['b']);
      const where = { port: portOf(world) };
      for (const host of ['api.example.com', 'API.example.com:8080', 'api.example.com.', '[::1]', '[::1]:80'])
        assert.equal(await askHost(where, host), String(a.port), host);
      assert.equal(await askHost(where, 'shop.example.com'), String(b.port));
      for (const host of ['example.com', 'xapi.example.com', '127.0.0.1', '::1'])
        await assert.rejects(askHost(where, host), /status (503|400)/, host);
      await assertLoadable(world);
    },
    shared,
  );

  scenario(
    'gets and loses hosts without a reload',
    async (world) => {
      const where = { port: portOf(world) };
      world.registry.say('/services/api', [a.instance('a')]);
      const daemon = world.start([on('api', ['one.example'])]);
      await world.becomes('api', ['a']);
      const worker = await world.workerPid();
      daemon.discovery.update([on('api', ['one.example', 'two.example'])]);
      await eventually(async () => assert.equal(await askHost(where, 'two.example'), String(a.port)));
      assert.match(await readFile(mapFile(world, 'web'), 'utf8'), /^two\.example api$/m);
      daemon.discovery.update([on('api', ['two.example'])]);
      await eventually(() => assert.rejects(askHost(where, 'one.example'), /status 503/));
      assert.doesNotMatch(await readFile(mapFile(world, 'web'), 'utf8'), /one/);
      assert.equal(await askHost(where, 'two.example'), String(a.port));
      assert.equal(await world.workerPid(), worker);
      assert.equal(world.reloads(), 0, world.reloadReasons());
      await assertLoadable(world);
    },
    shared,
  );

  scenario(
    'is put right when an operator clears or changes its map, or edits the file',
    async (world) => {
      const where = { port: portOf(world) };
      const map = mapFile(world, 'web');
      world.registry.say('/services/api', [a.instance('a')]);
      world.start([on('api', ['one.example', 'two.example'])]);
      await world.becomes('api', ['a']);
      await eventually(async () => assert.equal(await askHost(where, 'one.example'), String(a.port)));
      await world.operate(`clear map ${map}`);
      await eventually(async () => assert.equal(await askHost(where, 'one.example'), String(a.port)), 30_000);
      await world.operate(`add map ${map} one.example api`, `add map ${map} evil.example api`);
      await writeFile(map, 'evil.example api\n');
      await eventually(async () => {
        assert.deepEqual(await runningMap(world, 'web'), ['one.example api', 'two.example api']);
        assert.doesNotMatch(await readFile(map, 'utf8'), /evil/);
      }, 30_000);
      assert.equal(world.reloads(), 0, world.reloadReasons());
    },
    shared,
  );
});

describe('a port range', () => {
  const range = async () => {
    const first = await freeRange(8);
    return {
      port_range: { http: `${first}-${first + 3}`, tcp: `${first + 4}-${first + 7}`, spares: 2 },
    };
  };
  const firstOf = (world: HaproxyWorld, mode: 'http' | 'tcp' = 'http') =>
    world.config.portRange?.[mode]?.first ?? 0;

  scenario(
    'serves new services, moves and forgets them, all without a reload',
    async (world) => {
      const first = firstOf(world);
      const at = (name: string, offset: number, section: Record<string, unknown> = {}) =>
        service(name, `127.0.0.1:${first + offset}`, section);
      world.registry.say('/services/one', [a.instance('a')]);
      world.registry.say('/services/two', [b.instance('b')]);
      const daemon = world.start([]);
      await eventually(() => world.workerPid());
      const worker = await world.workerPid();
      daemon.discovery.update([at('one', 0)]);
      await eventually(async () => assert.equal(await ask(first), String(a.port)));
      daemon.discovery.update([at('one', 0), at('two', 1)]);
      await eventually(async () => assert.equal(await ask(first + 1), String(b.port)));
      await world.becomes('tandem-spare-http-1', ['a']);
      await world.becomes('tandem-spare-http-2', ['b']);
      world.registry.say('/services/two', [c.instance('c')]);
      await world.becomes('tandem-spare-http-2', ['c']);
      assert.equal(await ask(first + 1), String(c.port));
      daemon.discovery.update([at('two', 2)]);
      await eventually(() => assert.rejects(ask(first), /status 503/));
      await eventually(async () => assert.equal(await ask(first + 2), String(c.port)));
      await assert.rejects(ask(first + 1), /status 503/);
      await world.becomes('tandem-spare-http-1', []);
      daemon.discovery.update([]);
      await eventually(() => assert.rejects(ask(first + 2), /status 503/));
      assert.equal(await world.workerPid(), worker);
      assert.equal(world.reloads(), 0, world.reloadReasons());
      await assertLoadable(world);
    },
    range,
  );

  scenario(
    'says who finds no spare, and lets the others go on',
    async (world) => {
      const first = firstOf(world);
      for (const name of ['one', 'two', 'zero']) world.registry.say(`/services/${name}`, [a.instance('a')]);
      const at = (name: string, offset: number) => service(name, `127.0.0.1:${first + offset}`);
      const daemon = world.start([at('one', 0), at('two', 1), at('zero', 2)]);
      await eventually(async () => {
        assert.equal(await ask(first), String(a.port));
        assert.equal(await ask(first + 1), String(a.port));
      });
      const [said] = world.logged('set a service aside');
      assert.equal(said?.facts['service'], 'zero');
      assert.match(String(said?.facts['reason']), /raise haproxy\.port_range\.spares/);
      daemon.discovery.update([at('one', 0), at('zero', 2)]);
      await eventually(async () => assert.equal(await ask(first + 2), String(a.port)));
      assert.equal(world.reloads(), 0, world.reloadReasons());
    },
    range,
  );

  scenario(
    'leaves every service where it was when the daemon is another one, also while the registry is silent',
    async (world) => {
      const first = firstOf(world);
      const at = (name: string, offset: number) => service(name, `127.0.0.1:${first + offset}`);
      world.registry.say('/services/one', [a.instance('a')]);
      world.registry.say('/services/two', [b.instance('b')]);
      const daemon = world.start([at('two', 1)]);
      await world.becomes('tandem-spare-http-1', ['b']);
      daemon.discovery.update([at('one', 0), at('two', 1)]);
      await world.becomes('tandem-spare-http-2', ['a']);
      await eventually(async () => assert.equal(await ask(first), String(a.port)));
      const worker = await world.workerPid();
      await daemon.stop();
      // This registry knows nothing yet.
      const quiet = (name: string, offset: number) => ({ ...at(name, offset), path: `/silent/${name}` });
      world.start([quiet('one', 0), quiet('two', 1)]);
      await eventually(() =>
        assert.equal(world.logged('starting without the registry for some services').length, 1),
      );
      await eventually(() => assert.equal(world.logged('found a running HAProxy').length, 1));
      await world.becomes('tandem-spare-http-1', ['b']);
      await world.becomes('tandem-spare-http-2', ['a']);
      assert.deepEqual([await ask(first), await ask(first + 1)], [String(a.port), String(b.port)]);
      assert.equal(await world.workerPid(), worker);
    },
    range,
  );

  scenario(
    'serves tcp, too',
    async (world) => {
      const tcp = await startTcpOrigin();
      try {
        const port = firstOf(world, 'tcp');
        world.registry.say('/services/queue', [tcp.instance('q')]);
        const daemon = world.start([]);
        await eventually(() => world.workerPid());
        daemon.discovery.update([service('queue', `127.0.0.1:${port}`, { mode: 'tcp' })]);
        await eventually(async () => assert.equal(await hear(port), String(tcp.port)));
        assert.equal(world.reloads(), 0, world.reloadReasons());
      } finally {
        await tcp.close();
      }
    },
    range,
  );
});

/** What is said to somebody who connects and says nothing. */
function hear(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(port, '127.0.0.1');
    socket.once('data', (chunk) => {
      socket.destroy();
      resolve(chunk.toString());
    });
    socket.once('error', reject);
    socket.once('close', () => reject(new Error('closed without a word')));
  });
}

describe('a unix socket', () => {
  scenario('is where a service may listen', async (world) => {
    const socketPath = path.join(world.directory, 'run', 'web.sock');
    world.registry.say('/services/web', [a.instance('a')]);
    const daemon = world.start([service('web', socketPath)]);
    await world.becomes('web', ['a']);
    assert.equal(await askHost({ socketPath }, 'any.example'), String(a.port));
    assert.ok(existsSync(socketPath));
    daemon.discovery.update([service('web', socketPath, { balance: 'leastconn' })]);
    await eventually(() => assert.equal(world.logged('reloaded HAProxy').length, 1));
    await eventually(async () => assert.equal(await askHost({ socketPath }, 'any.example'), String(a.port)));
    await assertLoadable(world);
  });
});
