// Ways to a service, against a real HAProxy: its own port or socket, a frontend that it shares, a port of a range; and
// which of their changes need a reload.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

import {
  buildStructure,
  checkConfig,
  createDesiredBuilder,
  type DiscoveredService,
  findRoutingProblems,
  HaproxySection,
  renderConfig,
  renderSample,
} from '@tandem/discovery';
import {
  type Ask,
  createHaproxyProcess,
  executeMapSteps,
  planMap,
  readMaps,
} from '@tandem/discovery/testing';
import * as fc from 'fast-check';

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
      await eventually(async () => assert.equal(await askHost(where, 'one.example'), String(a.port)));
      await world.operate(`add map ${map} one.example api`, `add map ${map} evil.example api`);
      await writeFile(map, 'evil.example api\n');
      await eventually(async () => {
        assert.deepEqual(await runningMap(world, 'web'), ['one.example api', 'two.example api']);
        assert.doesNotMatch(await readFile(map, 'utf8'), /evil/);
      });
      assert.equal(world.reloads(), 0, world.reloadReasons());
    },
    shared,
  );
});

describe('a shared frontend among others', () => {
  const on = (name: string, frontend: string, hosts: string[], section: Record<string, unknown> = {}) =>
    service(name, undefined, { shared_frontend: frontend, hosts, ...section });

  scenario(
    'comes up right after a crash, and leaves no file behind when it goes',
    async (world) => {
      const port = Number(world.config.sharedFrontends['web']?.listen[0]?.split(':')[1]);
      world.registry.say('/services/api', [a.instance('a')]);
      const daemon = world.start([on('api', 'web', ['one.example'])]);
      await world.becomes('api', ['a']);
      daemon.discovery.update([on('api', 'web', ['two.example'])]);
      await eventually(async () => assert.equal(await askHost({ port }, 'two.example'), String(a.port)));
      const killed = await world.masterPid();
      process.kill(killed, 'SIGKILL');
      // Its worker may serve on for a moment.
      await eventually(async () => assert.notEqual(await world.masterPid(), killed));
      await eventually(async () => assert.equal(await askHost({ port }, 'two.example'), String(a.port)));
      await assert.rejects(askHost({ port }, 'one.example'), /status 503/);
      await daemon.stop();

      const own = await freePort();
      world.start([service('api', `127.0.0.1:${own}`)], { sharedFrontends: {} });
      await eventually(async () => assert.equal(await ask(own), String(a.port)));
      await eventually(() => assert.equal(existsSync(mapFile(world, 'web')), false));
      await eventually(() => assert.rejects(askHost({ port }, 'two.example'), /ECONNREFUSED/));
      assert.equal(world.reloads(), 1, world.reloadReasons());
    },
    async () => ({ shared_frontends: { web: { listen: await freePort() } } }),
  );

  scenario(
    'is set aside alone when HAProxy refuses it or its address is taken, until it is right',
    async (world) => {
      const port = Number(world.config.sharedFrontends['web']?.listen[0]?.split(':')[1]);
      const socketPath = path.join(world.directory, 'taken.sock');
      const taken = net.createServer((socket) => socket.destroy()).listen(socketPath);
      await eventually(() => assert.ok(taken.listening));
      const { web } = world.config.sharedFrontends;
      assert.ok(web !== undefined);
      world.registry.say('/services/api', [a.instance('a')]);
      world.registry.say('/services/shop', [b.instance('b')]);
      const services = [on('api', 'web', ['api.example']), on('shop', 'other', ['shop.example'])];
      const first = world.start(services);
      await eventually(async () => assert.equal(await askHost({ port }, 'api.example'), String(a.port)));
      // The last that the first apply does.
      await eventually(() => assert.ok(existsSync(path.join(world.stateDir, 'structure.json'))));
      await first.stop();

      const sharedFrontends = {
        web: { ...web, lines: ['no such keyword'] },
        other: { listen: [socketPath], bindOptions: '', lines: [] },
      };
      try {
        world.start([...services, on('more', 'web', ['more.example'])], { sharedFrontends });
        world.registry.say('/services/more', [c.instance('c')]);
        await eventually(async () => assert.equal(await askHost({ port }, 'more.example'), String(c.port)));
        assert.equal(await askHost({ port }, 'api.example'), String(a.port));
        const said = world.logged('set a shared frontend aside').map(({ facts }) => facts);
        assert.deepEqual(
          said.map((facts) => facts['sharedFrontend']),
          ['other', 'web'],
        );
        assert.match(String(said[0]?.['reason']), /taken\.sock is taken by another process/);
        assert.match(String(said[1]?.['reason']), /unknown keyword/);
        await assertLoadable(world);
      } finally {
        taken.close();
      }
      await eventually(
        async () => assert.equal(await askHost({ socketPath }, 'shop.example'), String(b.port)),
        30_000,
      );
    },
    async () => ({ shared_frontends: { web: { listen: await freePort() } } }),
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
    'never lets the port of one service lead to another one, however many change at once',
    async (world) => {
      const first = firstOf(world);
      const count = world.config.portRange?.spares ?? 0;
      const some = (kind: string, offset: number, origin: Origin) =>
        Array.from({ length: count }, (_, index) => {
          world.registry.say(`/services/${kind}-${index}`, [origin.instance(kind)]);
          return service(`${kind}-${index}`, `127.0.0.1:${first + offset + index}`);
        });
      const daemon = world.start(some('old', 0, a));
      const last = first + count - 1;
      for (const port of [first, last])
        await eventually(async () => assert.equal(await ask(port), String(a.port)));
      const heard = new Set<string>();
      const asking = new AbortController();
      const asked = (async () => {
        for (let port = first; !asking.signal.aborted; port = port === last ? first : port + 1)
          heard.add(await ask(port).catch(() => 'nothing'));
      })();
      try {
        // Every spare has a service, so that each of the new ones gets one that another has just left.
        daemon.discovery.update(some('new', count, b));
        for (const port of [first, last])
          await eventually(async () => assert.equal(await ask(port + count), String(b.port)));
      } finally {
        asking.abort();
        await asked;
      }
      assert.deepEqual([...heard].toSorted(), [String(a.port), 'nothing'].toSorted());
      await assert.rejects(ask(first), /status 503/);
      assert.equal(world.reloads(), 0, world.reloadReasons());
    },
    async () => {
      const begin = await freeRange(120);
      return { port_range: { http: `${begin}-${begin + 119}`, spares: 60 } };
    },
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
        assert.equal(world.logged('going on without the registry for some services').length, 1),
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
    'is served by the host that a request names on a shared frontend, too',
    async (world) => {
      const first = firstOf(world);
      const port = Number(world.config.sharedFrontends['web']?.listen[0]?.split(':')[1]);
      world.registry.say('/services/one', [a.instance('a')]);
      const daemon = world.start([]);
      await eventually(() => world.workerPid());
      const one = service('one', `127.0.0.1:${first}`, { shared_frontend: 'web', hosts: ['one.example'] });
      daemon.discovery.update([one]);
      await eventually(async () => assert.equal(await askHost({ port }, 'one.example'), String(a.port)));
      assert.equal(await ask(first), String(a.port));
      assert.equal(world.reloads(), 0, world.reloadReasons());
    },
    async () => ({ ...(await range()), shared_frontends: { web: { listen: await freePort() } } }),
  );

  scenario(
    'with a port that is taken is set aside alone, and comes when the port is free',
    async (world) => {
      const first = firstOf(world);
      const port = await freePort();
      const taken = net.createServer((socket) => socket.destroy()).listen(first + 1, '127.0.0.1');
      await eventually(() => assert.ok(taken.listening));
      world.registry.say('/services/one', [a.instance('a')]);
      world.registry.say('/services/web', [b.instance('b')]);
      try {
        world.start([service('one', `127.0.0.1:${first}`), service('web', `127.0.0.1:${port}`)]);
        await eventually(async () => assert.equal(await ask(port), String(b.port)));
        await assert.rejects(ask(first), /ECONNREFUSED/);
        const [said] = world.logged('set a port range aside');
        assert.equal(said?.facts['portRange'], 'http');
        assert.match(String(said?.facts['reason']), new RegExp(`:${first + 1} is taken by another process`));
      } finally {
        taken.close();
      }
      await eventually(async () => assert.equal(await ask(first), String(a.port)), 30_000);
      assert.equal(world.reloads(), 1, world.reloadReasons());
    },
    range,
  );

  scenario(
    'gives servers the options of their service, and other ones without a reload',
    async (world) => {
      const first = firstOf(world);
      const gone = await freePort();
      world.registry.say('/services/one', [a.instance('a'), { name: 'gone', host: '127.0.0.1', port: gone }]);
      const at = (server_options: string) => service('one', `127.0.0.1:${first}`, { server_options });
      const daemon = world.start([at('check inter 100ms rise 1 fall 1')]);
      await eventually(async () => {
        const [stat = ''] = await world.operate('show stat');
        assert.match(stat, /^tandem-spare-http-1,a_.*,UP,/m);
        assert.match(stat, /^tandem-spare-http-1,gone_.*,DOWN,/m);
      });
      daemon.discovery.update([at('')]);
      await eventually(async () => {
        const servers = await world.servers('tandem-spare-http-1');
        assert.deepEqual(servers, [
          `a_127.0.0.1:${a.port} 127.0.0.1:${a.port} 1`,
          `gone_127.0.0.1:${gone} 127.0.0.1:${gone} 1`,
        ]);
      });
      assert.equal(world.reloads(), 0, world.reloadReasons());
      await assertLoadable(world);
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

describe('a running map', () => {
  const first = [21_000, 21_001];
  const noSignal = new AbortController().signal;

  /** A HAProxy without a daemon, whose only frontend looks hosts up. */
  async function withMap(
    world: HaproxyWorld,
    entries: readonly string[],
  ): Promise<{ file: string; ask: Ask; port: number }> {
    const file = mapFile(world, 'web');
    const port = Number(world.config.sharedFrontends['web']?.listen[0]?.split(':')[1]);
    const services = ['one', 'two'].map((name, index) =>
      service(name, undefined, { shared_frontend: 'web', hosts: [`${first[index]}.example`] }),
    );
    const offers = new Map(
      services.map((one, index) => [
        one.service,
        { service: one, instances: [(index === 0 ? a : b).instance('x')], holds: new Map() },
      ]),
    );
    const { desired } = createDesiredBuilder(world.config)(offers);
    await writeFile(file, `${entries.join('\n')}\n`);
    await writeFile(world.config.configFile, renderConfig(desired.structure, desired.membership).text);
    await createHaproxyProcess(world.config, { log: world.log, onExit: () => {} }).ensure(noSignal);
    await eventually(() => world.workerPid());
    return { file, port, ask: (commands) => world.operate(...commands) };
  }

  const settings = async () => ({ shared_frontends: { web: { listen: await freePort() } } });

  scenario(
    'becomes whatever is wanted, whatever was in it, and then there is nothing left to do',
    async (world) => {
      const { file, ask: askHaproxy } = await withMap(world, []);
      const worker = await world.workerPid();
      const key = fc.constantFrom('a.example', 'b.example', 'c.example', '[::1]', '10.0.0.1');
      const value = fc.constantFrom('one', 'two');
      const few = fc.array(fc.tuple(key, value), { maxLength: 8 });
      const many = fc.array(
        fc.tuple(
          fc.nat(300).map((number) => `h${number}.example`),
          value,
        ),
        { minLength: 120, maxLength: 250 },
      );
      const wanted = fc.oneof({ weight: 4, arbitrary: few }, { weight: 1, arbitrary: many });
      // What an operator adds by hand: also a second entry for a key that is there.
      const meddling = few.map((entries) => entries.map(([one, other]) => `add map ${file} ${one} ${other}`));
      await fc.assert(
        fc.asyncProperty(wanted, meddling, async (entries, commands) => {
          if (commands.length > 0) await world.operate(...commands);
          const table = new Map(entries);
          const before = await readMaps(askHaproxy, [file]);
          const steps = planMap(before?.get(file) ?? [], table);
          assert.deepEqual(await executeMapSteps(askHaproxy, file, steps), { kind: 'done' });
          const after = (await readMaps(askHaproxy, [file]))?.get(file) ?? [];
          assert.deepEqual(
            after.map((entry) => `${entry.key} ${entry.value}`).toSorted(),
            [...table].map((entry) => entry.join(' ')).toSorted(),
          );
          assert.deepEqual(planMap(after, table), []);
        }),
        // What a run finds is what the last one has left: nothing to make smaller.
        { numRuns: 60, seed: 1, endOnFailure: true, includeErrorInReport: true },
      );
      assert.equal(await world.workerPid(), worker);
    },
    settings,
  );

  scenario(
    'of ten thousand hosts is replaced in one step, and every request finds its way meanwhile',
    async (world) => {
      const { file, port, ask: askHaproxy } = await withMap(world, ['kept.example one']);
      const table = new Map([
        ['kept.example', 'one'],
        ...Array.from({ length: 9_999 }, (_, index) => [`h${index}.example`, 'two'] as const),
      ]);
      const failures: string[] = [];
      const asking = new AbortController();
      const asked = (async () => {
        while (!asking.signal.aborted)
          await askHost({ port }, 'kept.example').catch((error: unknown) => failures.push(String(error)));
      })();
      const running = await readMaps(askHaproxy, [file]);
      const steps = planMap(running?.get(file) ?? [], table);
      assert.deepEqual(await executeMapSteps(askHaproxy, file, steps), { kind: 'done' });
      asking.abort();
      await asked;
      assert.deepEqual(failures, []);
      assert.equal((await runningMap(world, 'web')).length, 10_000);
      for (const host of ['h0.example', 'h5000.example', 'H9998.example:80'])
        assert.equal(await askHost({ port }, host), String(b.port));
      assert.equal(await askHost({ port }, 'kept.example'), String(a.port));
    },
    settings,
  );
});

describe('haproxy -c', () => {
  const forms: Record<string, { settings?: Record<string, unknown>; services?: DiscoveredService[] }> = {
    'every way to listen': {
      services: [
        service('a', 3210),
        service('b', '[::1]:3211'),
        service('c', '*:3212'),
        service('d', '/tmp/tandem-d.sock'),
        service('e', '/tmp/tandem-e.sock', { mode: 'tcp', bind_options: 'mode 666 accept-proxy' }),
        service('f', undefined),
      ],
    },
    'every algorithm': {
      services: [
        'roundrobin',
        'leastconn',
        'random',
        'first',
        'source',
        'uri',
        'url_param id',
        'hdr(x-user)',
        'rdp-cookie',
        'rdp-cookie(x)',
      ].map((balance, index) =>
        service(`s${index}`, 3_300 + index, { balance, mode: balance.startsWith('rdp') ? 'tcp' : 'http' }),
      ),
    },
    'lines of a service': {
      services: [
        service('a', 3210, {
          frontend: ['maxconn 50', 'timeout client 5s', 'acl x path /x', 'use_backend b if x'],
          backend: ['option httpchk GET /health', 'timeout server 3s', 'retry-on none'],
          server_options: 'check inter 2s maxconn 50 on-marked-down shutdown-sessions',
          bind_options: 'accept-proxy maxconn 100',
        }),
        service('b', 3211, { balance: 'source', backend: ['hash-type map-based'] }),
      ],
    },
    'shared frontends': {
      settings: {
        shared_frontends: {
          edge: { listen: ['*:8080', '[::1]:8080', '/tmp/tandem-edge.sock'] },
          strict: { listen: 8081, lines: ['http-request deny if { path /x }', 'default_backend a'] },
        },
      },
      services: [
        service('a', undefined, { shared_frontend: 'edge', hosts: ['a.example', '[::1]'] }),
        service('edge', undefined, { shared_frontend: 'strict', hosts: ['b.example'] }),
      ],
    },
    'port ranges': {
      settings: {
        port_range: {
          address: '::1',
          http: '21000-21099',
          tcp: '22000-22099',
          spares: 3,
          balance: 'leastconn',
        },
        shared_frontends: { web: { listen: 8080 } },
      },
      services: [
        service('a', '[::1]:21001', { shared_frontend: 'web', hosts: ['a.example'] }),
        service('b', '[::1]:22001', { mode: 'tcp', server_options: 'check' }),
      ],
    },
    'what the host adds': {
      settings: {
        socket_group: 'root',
        global: ['maxconn 1000', 'nbthread 1'],
        defaults: ['timeout tunnel 1h', 'mode http'],
        extra_sections: {
          'listen stats': ['mode http', 'bind 127.0.0.1:9000', 'stats enable'],
          'backend a': ['mode http', 'http-request deny'],
          'resolvers here': ['nameserver one 127.0.0.1:53'],
        },
      },
      services: [service('b', 3210)],
    },
  };

  for (const [name, { settings = {}, services = [] }] of Object.entries(forms))
    test(`takes ${name}`, { timeout }, async () => {
      const config = HaproxySection.parse({ binary: '/usr/sbin/haproxy', ...settings });
      for (const one of services) assert.deepEqual(findRoutingProblems(config, one), [], one.service);
      assert.equal(await checkConfig(config, renderSample(buildStructure(config, services))), undefined);
    });
});

describe('a limit', () => {
  test('of open files that keeps HAProxy from starting is told with its remedy', { timeout }, async () => {
    const directory = await mkdtemp(path.join(tmpdir(), 'tandem-limit-'));
    const binary = path.join(directory, 'haproxy');
    await writeFile(binary, '#!/bin/sh\nulimit -n 500\nexec /usr/sbin/haproxy "$@"\n', { mode: 0o755 });
    const world = await createHaproxyWorld({ binary, global: ['maxconn 10000'] });
    try {
      world.start([]);
      await eventually(() => {
        const [said] = world.logged('HAProxy has ended');
        assert.match(String(said?.facts['lastWords']), /Cannot raise FD limit.*Allow it 20\d+ open files/s);
      });
    } finally {
      await world.end();
      await rm(directory, { recursive: true });
    }
  });
});
