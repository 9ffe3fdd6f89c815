// Reloads of a real HAProxy under traffic: those that work cost no request, those that fail cost nothing but themselves.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { after, before, describe, test } from 'node:test';

import { createBinary, readIdentity } from '@tandem/discovery/testing';

import {
  BINARY,
  createHaproxyWorld,
  eventually,
  freePort,
  type HaproxyWorld,
  service,
} from '../support/haproxy.ts';
import { ask, startLoad } from '../support/load.ts';
import { type Origin, startHttpOrigin } from '../support/origin.ts';

const timeout = 60_000;
const FAILED = 'cannot bring HAProxy to the desired state, trying again';
let a: Origin;
let b: Origin;

before(async () => {
  [a, b] = await Promise.all([startHttpOrigin(), startHttpOrigin()]);
});

after(async () => {
  await Promise.all([a, b].map((origin) => origin.close()));
});

type Settings = Record<string, unknown> | ((directory: string) => Record<string, unknown>);

/** A test with a HAProxy of its own, which ends with it, however it ends. */
function scenario(name: string, body: (world: HaproxyWorld) => Promise<void>, settings: Settings = {}): void {
  test(name, { timeout }, async () => {
    const world = await createHaproxyWorld(settings);
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

/** A daemon with one service, `web`, on these instances. */
async function serving(world: HaproxyWorld, instances = [a.instance('a')], section = {}) {
  const port = await freePort();
  const say = world.registry.say.bind(world.registry, '/services/web');
  const web = (more: Record<string, unknown> = {}) =>
    service('web', `127.0.0.1:${port}`, { ...section, ...more });
  say(instances);
  const daemon = world.start([web()]);
  await world.becomes(
    'web',
    instances.map(({ name }) => name),
  );
  await eventually(() => assert.ok(existsSync(path.join(world.stateDir, 'structure.json'))));
  return { port, web, daemon, say };
}

/** What HAProxy says against the file on disk. */
function complaintOf({ config }: HaproxyWorld): Promise<string | undefined> {
  return createBinary(BINARY).check(config.configFile, AbortSignal.timeout(15_000));
}

/** What runs is the structure on disk. */
async function assertSameMark(world: HaproxyWorld): Promise<void> {
  const { mark } = await readIdentity(world.config.runtimeSocket);
  assert.match(await readFile(world.config.configFile, 'utf8'), new RegExp(`^  description ${mark}$`, 'm'));
}

function failures(world: HaproxyWorld): string[] {
  return world.logged(FAILED).map(({ facts }) => `${String(facts['code'])}: ${String(facts['err'])}`);
}

describe('reloads that work', () => {
  scenario('twenty of them fail no request, kept-alive or not', async (world) => {
    const { port, web, daemon } = await serving(world, [a.instance('a'), b.instance('b')]);
    await using load = startLoad({ port, perSecond: 300 });
    for (let round = 1; round <= 20; round += 1) {
      daemon.discovery.update([web({ balance: round % 2 === 0 ? 'roundrobin' : 'leastconn' })]);
      await eventually(() => assert.equal(world.logged('reloaded HAProxy').length, round));
    }
    const answers = await load.stop();
    assert.deepEqual(load.failures, []);
    assert.deepEqual([...answers.keys()].toSorted(), [String(a.port), String(b.port)].toSorted());
    assert.ok(load.sent() > 1_000, `${load.sent()} requests`);
  });

  scenario("a storm of somebody else's reloads ends with the newest structure and members", async (world) => {
    const { port, web, daemon, say } = await serving(world);
    const master = await world.masterPid();
    await using load = startLoad({ port, perSecond: 100 });
    const storm = setInterval(() => process.kill(master, 'SIGUSR2'), 30);
    try {
      await sleep(300);
      daemon.discovery.update([web({ balance: 'leastconn' })]);
      say([a.instance('a'), b.instance('b')]);
      await sleep(2_000);
      daemon.discovery.update([web({ balance: 'first' })]);
      await sleep(2_000);
    } finally {
      clearInterval(storm);
    }
    await world.becomes('web', ['a', 'b']);
    await eventually(async () => {
      assert.match(await readFile(world.config.configFile, 'utf8'), /balance first/);
      await assertSameMark(world);
    });
    await load.stop();
    assert.deepEqual(load.failures, []);
    assert.equal(await world.masterPid(), master);
  });

  scenario('a server that its checks have found down stays down', async (world) => {
    const gone = await freePort();
    const section = { server_options: 'check inter 20s fastinter 100ms downinter 20s rise 1 fall 1' };
    const dead = { name: 'dead', host: '127.0.0.1', port: gone };
    const { web, daemon, port } = await serving(world, [a.instance('a'), dead], section);
    const statusOf = async (name: string) => {
      const [stat = ''] = await world.operate('show stat');
      return new RegExp(`^web,${name}_(?:[^,]*,){16}([^,]*)`, 'm').exec(stat)?.[1];
    };
    await eventually(async () => assert.equal(await statusOf('dead'), 'DOWN'), 40_000);
    await using load = startLoad({ port, perSecond: 100 });
    daemon.discovery.update([web({ balance: 'leastconn' })]);
    await eventually(() => assert.equal(world.logged('reloaded HAProxy').length, 1));
    assert.equal(await statusOf('dead'), 'DOWN');
    assert.match(String(await statusOf('a')), /^UP/);
    await load.stop();
    assert.deepEqual(load.failures, []);
    // Nobody who starts HAProxy later is told of it.
    const state = await readFile(`${world.config.runtimeSocket}.state`, 'utf8');
    assert.doesNotMatch(state, /dead/);
  });
});

/** A HAProxy whose checks of a file wait while the file `hold` is there: what changes after them is a lost race. */
const holdable = (directory: string) => ({ binary: path.join(directory, 'haproxy'), reload_deadline: '5s' });

async function makeHoldable(
  world: HaproxyWorld,
  prelude = '',
): Promise<{ hold(): Promise<void>; isHeld(): Promise<void>; release(): Promise<void> }> {
  const at = (name: string) => path.join(world.directory, name);
  await writeFile(
    at('haproxy'),
    `#!/bin/sh
if [ "$1" = -c ]; then
  while [ -e ${at('hold')} ]; do : > ${at('held')}; sleep 0.02; done
else
  :
  ${prelude}
fi
exec ${BINARY} "$@"
`,
  );
  await chmod(at('haproxy'), 0o755);
  return {
    hold: () => writeFile(at('hold'), ''),
    isHeld: () => eventually(() => assert.ok(existsSync(at('held')))),
    release: () => rm(at('hold')),
  };
}

function setAside(world: HaproxyWorld): string {
  return world
    .logged('set a service aside')
    .map(({ facts }) => `${String(facts['service'])}: ${String(facts['reason'])}`)
    .join('\n');
}

/** One request after the other on a single connection that was there before. */
function converseOn(port: number) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const controller = new AbortController();
  const failures: string[] = [];
  let answered = 0;
  const talk = (async () => {
    while (!controller.signal.aborted) {
      await ask(port, agent).then(
        () => (answered += 1),
        (error: unknown) => failures.push(String(error)),
      );
      await sleep(20);
    }
  })();
  const end = async () => {
    controller.abort();
    await talk;
    agent.destroy();
    return { answered, failures };
  };
  return { end, [Symbol.asyncDispose]: async () => void (await end()) };
}

describe('reloads that fail', () => {
  scenario(
    'an address that is taken at the last moment: told as HAProxy says it, and the service comes once it is free',
    async (world) => {
      const race = await makeHoldable(world);
      const { port, web, daemon, say } = await serving(world);
      const worker = await world.workerPid();
      const contested = await freePort();
      await using during = startLoad({ port, perSecond: 100 });
      await using conversation = converseOn(port);
      await race.hold();
      daemon.discovery.update([web(), service('api', `127.0.0.1:${contested}`)]);
      world.registry.say('/services/api', [b.instance('b')]);
      await race.isHeld();
      assert.deepEqual([...during.failures], []);
      const thief = net.createServer().listen(contested, '127.0.0.1');
      await once(thief, 'listening');
      await race.release();
      await eventually(() => assert.match(failures(world).join('\n'), /RELOAD_FAILED.*cannot bind socket/s));
      await during.stop();
      const kept = await conversation.end();
      // While HAProxy tries to bind, for two seconds, its worker has its listeners paused: a new connection is refused.
      // That is what every failed bind costs, why addresses are tried first, and why this takes a lost race. Who had a
      // connection already does not notice.
      assert.deepEqual(
        during.failures.filter((failure) => !failure.startsWith('Error: connect ECONNREFUSED')),
        [],
      );
      assert.deepEqual(kept.failures, []);
      assert.ok(kept.answered > 20, `only ${kept.answered} on a connection that was there before`);
      await using load = startLoad({ port, perSecond: 100 });
      say([a.instance('a'), b.instance('b')]);
      await world.becomes('web', ['a', 'b']);
      assert.doesNotMatch(await readFile(world.config.configFile, 'utf8'), new RegExp(`:${contested}`));
      assert.equal(await world.workerPid(), worker);
      // The race is lost once: the next attempt finds the address taken before HAProxy is asked to bind it.
      await eventually(() =>
        assert.match(setAside(world), /^api: the address .* is taken by another process$/),
      );
      assert.equal(world.reloads(), 1, world.reloadReasons());
      thief.close();
      await eventually(async () => assert.equal(await ask(contested), String(b.port)), 40_000);
      await load.stop();
      assert.deepEqual(load.failures, []);
      assert.equal(world.reloads(), 2, world.reloadReasons());
    },
    holdable,
  );

  scenario(
    'more checked servers than files are allowed: told, what runs goes on, and fewer of them are loaded then',
    async (world) => {
      await makeHoldable(world, 'ulimit -n 270');
      const many = Array.from({ length: 60 }, (_, index) => ({
        name: `m${index}`,
        host: `127.0.1.${index + 1}`,
        port: a.port,
        weight: 0,
      }));
      const { port, web, daemon, say } = await serving(world, [a.instance('a')], {
        server_options: 'check inter 60s',
      });
      await using load = startLoad({ port, perSecond: 50 });
      say([a.instance('a'), b.instance('b'), ...many]);
      await world.becomes('web', ['a', 'b', ...many.map(({ name }) => name)]);
      daemon.discovery.update([web({ balance: 'leastconn' })]);
      await eventually(() =>
        assert.match(failures(world).join('\n'), /RELOAD_FAILED.*Cannot raise FD limit/s),
      );
      say([a.instance('a'), b.instance('b')]);
      await world.becomes('web', ['a', 'b']);
      assert.match(await readFile(world.config.configFile, 'utf8'), /balance roundrobin/);
      await eventually(() => assert.equal(world.logged('reloaded HAProxy').length, 1), 40_000);
      await world.becomes('web', ['a', 'b']);
      await load.stop();
      assert.deepEqual(load.failures, []);
    },
    holdable,
  );

  scenario('a chroot that is missing is told beforehand, and no request fails', async (world) => {
    const { port, web, daemon, say } = await serving(world);
    const master = await world.masterPid();
    await daemon.stop();
    await using load = startLoad({ port, perSecond: 100 });
    const nowhere = path.join(world.directory, 'nowhere');
    world.start([web({ balance: 'leastconn' })], { global: [`chroot ${nowhere}`] });
    await eventually(() => {
      const [refusal] = world.logged('HAProxy refuses the configuration');
      assert.match(String(refusal?.facts['complaint']), /chroot .*nowhere.*the directory does not exist/);
    });
    say([a.instance('a'), b.instance('b')]);
    await world.becomes('web', ['a', 'b']);
    assert.equal(await world.masterPid(), master);
    await load.stop();
    assert.deepEqual(load.failures, []);
    assert.equal(world.reloads(), 0);
  });

  scenario(
    'one that HAProxy dies of: it is started again on what ran before, with current members',
    async (world) => {
      const race = await makeHoldable(world);
      const { port, web, daemon, say } = await serving(world);
      await daemon.stop();
      const jail = path.join(world.directory, 'jail');
      await mkdir(jail);
      await race.hold();
      world.start([web()], { global: [`chroot ${jail}`] });
      await race.isHeld();
      // Whether it is there is looked at once haproxy -c is done, so it vanishes with the reload itself.
      const vanishing = (async () => {
        while (world.reloads() === 0) await new Promise(setImmediate);
        await rm(jail, { recursive: true });
      })();
      await race.release();
      await vanishing;
      say([a.instance('a'), b.instance('b')]);
      await eventually(
        () => assert.match(failures(world).join('\n'), /RELOAD_FAILED.*Cannot chroot/s),
        30_000,
      );
      await world.becomes('web', ['a', 'b']);
      await eventually(() => ask(port));
      assert.doesNotMatch(await readFile(world.config.configFile, 'utf8'), /chroot/);
    },
    holdable,
  );

  scenario(
    'what is set aside is tried again beside the changes of members, and ends with the daemon',
    async (world) => {
      const binary = path.join(world.directory, 'haproxy');
      const [slow, asked] = ['slow', 'asked'].map((name) => path.join(world.directory, name)) as [
        string,
        string,
      ];
      const isSlow = `[ "$1" = -c ] && [ -e ${slow} ] && touch ${asked} && exec sleep 60`;
      await writeFile(binary, `#!/bin/sh\n${isSlow}\nexec ${BINARY} "$@"\n`, { mode: 0o755 });
      const squatter = net.createServer().listen(0, '127.0.0.1');
      await once(squatter, 'listening');
      try {
        const taken = service('taken', (squatter.address() as net.AddressInfo).port);
        const web = service('web', `127.0.0.1:${await freePort()}`);
        world.registry.say('/services/web', [a.instance('a')]);
        world.registry.say('/services/taken', [b.instance('b')]);
        const daemon = world.start([web, taken], { binary });
        await world.becomes('web', ['a']);
        assert.equal(daemon.discovery.state().haproxy.setAside.length, 1);
        await writeFile(slow, '');
        await eventually(() => assert.ok(existsSync(asked)));
        world.registry.say('/services/web', [a.instance('a'), b.instance('b')]);
        await world.becomes('web', ['a', 'b']);
        // HAProxy is still being asked, until nobody waits for its answer any more.
        assert.ok(existsSync(`${world.config.configFile}.candidate`));
        await daemon.stop();
        assert.ok(!existsSync(`${world.config.configFile}.candidate`));
      } finally {
        squatter.close();
      }
    },
  );
});

describe('what instances say of themselves', () => {
  const other = { 'backend other': ['server o 127.0.0.1:9 check'] };
  const checked = () => ({ ...b.instance('b'), haproxyServerOptions: 'check inter 1s' });

  scenario(
    'never makes a file that HAProxy refuses: they go without, and that is told once',
    async (world) => {
      const long = `check ${Array.from({ length: 22 }, () => 'inter 2s').join(' ')}`;
      const [web, many] = await Promise.all(
        ['track other/o', long].map(async (server_options, index) =>
          service(`s${index}`, `127.0.0.1:${await freePort()}`, { server_options }),
        ),
      );
      for (const path of ['/services/s0', '/services/s1']) world.registry.say(path, [a.instance('a')]);
      world.start(
        [web, many].flatMap((one) => one ?? []),
        { extraSections: other },
      );
      await world.becomes('s0', ['a']);
      const said = 'backup maxconn 5 slowstart 5s send-proxy check inter 1s rise 2 fall 2';
      world.registry.say('/services/s0', [a.instance('a'), checked()]);
      world.registry.say('/services/s1', [
        a.instance('a'),
        { ...b.instance('b'), haproxyServerOptions: said },
      ]);
      await Promise.all(['s0', 's1'].map((name) => world.becomes(name, ['a', 'b'])));
      assert.equal(await complaintOf(world), undefined);
      const told = world
        .logged('set the options of instances aside')
        .map(({ facts }) => String(facts['service']))
        .toSorted((one, other) => one.localeCompare(other));
      assert.deepEqual(told, ['s0', 's1']);
      assert.equal(world.reloads(), 0);
    },
  );

  scenario(
    'is judged once more by HAProxy itself: an instance that makes its file bad is left out',
    async (world) => {
      // One whose check sees nothing, as that of another version than the one that runs may.
      const binary = path.join(world.directory, 'haproxy');
      const isCheck = '[ "$1" = -c ] && exit 0';
      await writeFile(binary, `#!/bin/sh\n${isCheck}\nexec ${BINARY} "$@"\n`, { mode: 0o755 });
      const port = await freePort();
      const web = (more = {}) =>
        service('web', `127.0.0.1:${port}`, { server_options: 'track other/o', ...more });
      world.registry.say('/services/web', [a.instance('a'), checked()]);
      const settings = { extraSections: other, binary, reloadDeadlineMs: 3_000 };
      const daemon = world.start([web()], settings);
      await world.becomes('web', ['a']);
      assert.equal(await complaintOf(world), undefined);
      assert.deepEqual(
        world.logged('left an instance out that HAProxy refuses').map(({ facts }) => facts['backend']),
        ['web'],
      );
      daemon.discovery.update([web({ backend: ['timeout server 9s'] })]);
      await eventually(() => assertSameMark(world));
      await world.becomes('web', ['a']);
      // Whoever is in order again comes back.
      daemon.discovery.update([web({ server_options: '' })]);
      await world.becomes('web', ['a', 'b']);
    },
  );

  scenario(
    'a mistake in server_options of a service in a port range costs that service alone',
    async (world) => {
      const { daemon, web, port } = await serving(world);
      world.registry.say('/services/typo', [b.instance('b')]);
      const typo = (server_options: string) => service('typo', '127.0.0.1:28101', { server_options });
      daemon.discovery.update([web(), typo('check inter banana')]);
      await eventually(() =>
        assert.deepEqual(
          daemon.discovery.state().haproxy.setAside.map(({ name }) => name),
          ['typo'],
        ),
      );
      assert.equal(await complaintOf(world), undefined);
      assert.equal(await ask(port), String(a.port));
      daemon.discovery.update([web(), typo('check inter 2s')]);
      await eventually(async () => assert.equal(await ask(28_101), String(b.port)));
      assert.deepEqual(daemon.discovery.state().haproxy.setAside, []);
      assert.equal(world.reloads(), 0);
    },
    { port_range: { http: '28100-28109', spares: 2 } },
  );
});

function userGroup(): string {
  return execFileSync('id', ['-gn'], { encoding: 'utf8' }).trim();
}

describe('what stands on disk', () => {
  scenario('is for its user and group alone', async (world) => {
    await rm(path.dirname(world.config.configFile), { recursive: true });
    await serving(world);
    const { configFile, runtimeSocket, masterSocket } = world.config;
    const modes = await Promise.all(
      [
        path.dirname(configFile),
        configFile,
        runtimeSocket,
        masterSocket,
        path.join(path.dirname(configFile), 'haproxy.log'),
      ].map(async (file) => {
        const { mode, uid, gid } = await stat(file);
        return `${(mode & 0o777).toString(8)} ${uid}:${gid}`;
      }),
    );
    const owner = `${process.geteuid?.()}:${process.getegid?.()}`;
    assert.deepEqual(
      modes,
      ['750', '640', '660', '600', '640'].map((mode) => `${mode} ${owner}`),
    );
  });

  // Root may give a socket to any group, everybody else to one of his own.
  const [group, gid] = process.geteuid?.() === 0 ? ['daemon', 1] : [userGroup(), process.getegid?.()];
  scenario(
    'has a runtime socket of the group that is to have it',
    async (world) => {
      const { web, daemon } = await serving(world);
      const { runtimeSocket } = world.config;
      for (const reloads of [0, 1]) {
        await eventually(() => assert.equal(world.logged('reloaded HAProxy').length, reloads));
        const { mode, uid, gid: found } = await stat(runtimeSocket);
        assert.deepEqual([mode & 0o777, uid, found], [0o660, process.geteuid?.(), gid]);
        daemon.discovery.update([web({ balance: 'leastconn' })]);
      }
    },
    () => ({ socket_group: group }),
  );

  scenario("keeps HAProxy's own output small", async (world) => {
    const { daemon, web } = await serving(world);
    const output = path.join(path.dirname(world.config.configFile), 'haproxy.log');
    await writeFile(output, 'x'.repeat(5 * 1024 * 1024));
    daemon.discovery.update([web({ balance: 'leastconn' })]);
    await eventually(async () => assert.ok((await stat(output)).size < 100_000));
  });
});
