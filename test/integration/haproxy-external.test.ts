// A HAProxy that somebody else runs: Tandem writes its file, asks for reloads, and neither starts nor ends it.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile, rm, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { after, before, describe, test } from 'node:test';

import {
  createHaproxyWorld,
  eventually,
  freePort,
  type HaproxyWorld,
  isRunning,
  service,
} from '../support/haproxy.ts';
import { pidFileOf, reloadedBy, startOwner } from '../support/haproxy-owner.ts';
import { ask } from '../support/load.ts';
import { type Origin, startHttpOrigin } from '../support/origin.ts';

const timeout = 60_000;
let a: Origin;
let b: Origin;

before(async () => {
  [a, b] = await Promise.all([startHttpOrigin(), startHttpOrigin()]);
});

after(async () => {
  await Promise.all([a, b].map((origin) => origin.close()));
});

type Settings = (directory: string) => Record<string, unknown>;

const bySocket: Settings = (directory) => ({
  mode: 'external',
  reload: { master_socket: path.join(directory, 'run', 'haproxy-master.sock') },
});
const bySignal: Settings = (directory) => reloadedBy(`kill -USR2 "$(cat ${pidFileOf(directory)})"`);

/** A test with a HAProxy of its own, which ends with it, however it ends. */
function scenario(name: string, settings: Settings, body: (world: HaproxyWorld) => Promise<void>): void {
  test(name, { timeout }, async () => {
    const world = await createHaproxyWorld(settings);
    try {
      await body(world);
      assert.equal(world.logged('started HAProxy').length, 0);
    } catch (error) {
      process.stderr.write(`${world.entries.map((entry) => JSON.stringify(entry)).join('\n')}\n`);
      throw error;
    } finally {
      await world.end();
    }
  });
}

const ABSENT =
  'HAProxy does not answer: its file is kept current, and it is looked after as soon as it appears';
const FAILED = 'cannot bring HAProxy to the desired state, trying again';

/** A daemon with one service, `web`, while nobody has started HAProxy yet. */
async function waiting(world: HaproxyWorld) {
  const port = await freePort();
  const say = world.registry.say.bind(world.registry, '/services/web');
  const web = (section: Record<string, unknown> = {}) => service('web', `127.0.0.1:${port}`, section);
  say([a.instance('a')]);
  const daemon = world.start([web()]);
  await eventually(() => assert.equal(world.logged(ABSENT).length, 1));
  return { port, say, web, daemon };
}

/** The same once HAProxy has been started by its owner. */
async function serving(world: HaproxyWorld) {
  const scene = await waiting(world);
  const owner = await startOwner(world.directory, world.config);
  await world.becomes('web', ['a']);
  await eventually(() => assert.ok(existsSync(path.join(world.stateDir, 'structure.json'))));
  return { ...scene, owner };
}

/** What somebody might have written before Tandem came. */
function ownFile(port: number, runtimeSocket: string): string {
  return [
    'global',
    `  stats socket ${runtimeSocket} level admin`,
    'defaults',
    '  mode http',
    '  timeout connect 1s',
    '  timeout client 1s',
    '  timeout server 1s',
    'listen own',
    `  bind 127.0.0.1:${port}`,
    `  server b 127.0.0.1:${b.port}`,
    '',
  ].join('\n');
}

async function fileSays(world: HaproxyWorld, pattern: RegExp): Promise<void> {
  await eventually(async () => assert.match(await readFile(world.config.configFile, 'utf8'), pattern));
}

describe('a HAProxy that does not run', () => {
  scenario(
    'is told once, its file is kept current, and its owner starts it on what is current',
    bySocket,
    async (world) => {
      const { say, port } = await waiting(world);
      say([b.instance('b')]);
      await fileSays(world, / server b_/);
      await sleep(1_000);
      assert.equal(world.logged(ABSENT).length, 1);
      assert.equal(world.logged(FAILED).length, 0);
      await startOwner(world.directory, world.config);
      await world.becomes('web', ['b']);
      assert.equal(await ask(port), String(b.port));
      assert.equal(world.reloads(), 0);
      say([a.instance('a'), b.instance('b')]);
      await world.becomes('web', ['a', 'b']);
      assert.equal(world.reloads(), 0);
    },
  );

  scenario('gets one reload when it comes up with an older structure', bySignal, async (world) => {
    const { port, web, daemon, say } = await serving(world);
    const stale = path.join(world.directory, 'stale.cfg');
    await writeFile(stale, await readFile(world.config.configFile, 'utf8'));
    await daemon.stop();
    process.kill(await world.masterPid(), 'SIGKILL');
    await eventually(() => assert.rejects(ask(port)));
    say([b.instance('b')]);
    world.start([web({ balance: 'leastconn' })]);
    await fileSays(world, /balance leastconn/);
    await eventually(() => assert.equal(world.logged(ABSENT).length, 2));
    // Its owner comes with yesterday's file, and has ours in place when it is asked to load it once more.
    const current = await readFile(world.config.configFile, 'utf8');
    const file = path.join(world.directory, 'owner.cfg');
    await symlink(stale, file);
    await startOwner(world.directory, world.config, { file });
    await rm(file);
    await symlink(world.config.configFile, file);
    await eventually(() => assert.equal(world.logged('reloaded HAProxy').length, 1));
    await world.becomes('web', ['b']);
    assert.equal(await readFile(world.config.configFile, 'utf8'), current);
    assert.equal(world.reloads(), 1);
  });

  scenario(
    'that has crashed is not started, and comes back with what is current',
    bySocket,
    async (world) => {
      const { owner, port, say } = await serving(world);
      await owner.kill();
      await eventually(() => assert.equal(world.logged(ABSENT).length, 2));
      say([a.instance('a'), b.instance('b')]);
      await fileSays(world, / server b_/);
      await assert.rejects(ask(port), /ECONNREFUSED/);
      await startOwner(world.directory, world.config);
      await world.becomes('web', ['a', 'b']);
      assert.equal(world.reloads(), 0);
    },
  );
});

describe('a HAProxy that runs', () => {
  for (const [how, settings] of [
    ['its master socket', bySocket],
    ['a command', bySignal],
  ] as const) {
    scenario(`gets members without a reload, and a structure by ${how}`, settings, async (world) => {
      const { say, daemon, web, owner } = await serving(world);
      const worker = await world.workerPid();
      say([a.instance('a'), b.instance('b')]);
      await world.becomes('web', ['a', 'b']);
      assert.equal(await world.workerPid(), worker);
      daemon.discovery.update([web({ balance: 'leastconn' })]);
      await eventually(() => assert.equal(world.logged('reloaded HAProxy').length, 1));
      await world.becomes('web', ['a', 'b']);
      assert.notEqual(await world.workerPid(), worker);
      assert.equal(await world.masterPid(), owner.pid);
    });
  }

  scenario(
    'is adopted by a new daemon, and left by one that ends, whatever on_exit says',
    bySocket,
    async (world) => {
      const { daemon, web, owner, port } = await serving(world);
      const worker = await world.workerPid();
      await daemon.stop();
      const second = world.start([web()], { onExit: 'stop' });
      await eventually(() => assert.equal(world.logged('found a running HAProxy').length, 2));
      await world.becomes('web', ['a']);
      await second.stop();
      assert.equal(isRunning(owner.pid), true);
      assert.equal(await world.workerPid(), worker);
      assert.equal(await ask(port), String(a.port));
      assert.equal(world.reloads(), 0);
    },
  );
});

describe('the first takeover', () => {
  scenario(
    'of a file that is named as ours: one reload, and a copy of it is kept',
    bySocket,
    async (world) => {
      const own = await freePort();
      const text = ownFile(own, world.config.runtimeSocket);
      await writeFile(world.config.configFile, text);
      await startOwner(world.directory, world.config);
      assert.equal(await ask(own), String(b.port));
      world.registry.say('/services/web', [a.instance('a')]);
      const port = await freePort();
      world.start([service('web', `127.0.0.1:${port}`)]);
      await world.becomes('web', ['a']);
      assert.equal(await ask(port), String(a.port));
      assert.equal(world.logged('HAProxy runs on a file that is not ours, handing it ours').length, 1);
      assert.equal(world.reloads(), 1);
      assert.equal(await readFile(`${world.config.configFile}.before-tandem`, 'utf8'), text);
    },
  );

  scenario(
    'of one that shows no socket of ours yet: it is asked once to load the file',
    bySocket,
    async (world) => {
      const own = await freePort();
      const socket = path.join(world.directory, 'run', 'own.sock');
      await writeFile(world.config.configFile, ownFile(own, socket));
      await startOwner(world.directory, world.config, { runtimeSocket: socket });
      world.registry.say('/services/web', [a.instance('a')]);
      const port = await freePort();
      world.start([service('web', `127.0.0.1:${port}`)]);
      await world.becomes('web', ['a']);
      assert.equal(await ask(port), String(a.port));
      assert.equal(world.logged(ABSENT).length, 0);
    },
  );

  scenario(
    'of one that runs on another file: that file is left alone, it goes on, and what is wrong is said',
    (directory) => ({ ...bySocket(directory), reload_deadline: '2s' }),
    async (world) => {
      const own = await freePort();
      const file = path.join(world.directory, 'own.cfg');
      const text = ownFile(own, world.config.runtimeSocket);
      await writeFile(file, text);
      const owner = await startOwner(world.directory, world.config, { file });
      world.registry.say('/services/web', [a.instance('a')]);
      const port = await freePort();
      world.start([service('web', `127.0.0.1:${port}`)]);
      await eventually(() => {
        const [failure] = world.logged(FAILED);
        assert.equal(failure?.facts['code'], 'HAPROXY_RELOAD_FAILED');
        assert.match(String(failure.facts['err']), /still shows "".*-f .*haproxy\.cfg/);
      });
      assert.equal(await ask(own), String(b.port));
      assert.equal(await readFile(file, 'utf8'), text);
      assert.equal(isRunning(owner.pid), true);
      // Its owner sees to it.
      await owner.kill();
      await startOwner(world.directory, world.config);
      await world.becomes('web', ['a']);
      assert.equal(await ask(port), String(a.port));
    },
  );
});

describe('a request for a reload', () => {
  const failing = (script: string): Settings => {
    return () => reloadedBy(script, { reload_deadline: '2s' });
  };

  /** The daemon wants another structure and does not get it; what runs goes on, with current members. */
  async function refused(world: HaproxyWorld, reason: RegExp, code = 'HAPROXY_RELOAD_FAILED'): Promise<void> {
    const { daemon, web, say, port } = await serving(world);
    daemon.discovery.update([web({ balance: 'leastconn' })]);
    await eventually(() => {
      const [failure] = world.logged(FAILED);
      assert.equal(failure?.facts['code'], code);
      assert.match(String(failure.facts['err']), reason);
    });
    say([b.instance('b')]);
    await world.becomes('web', ['b']);
    assert.equal(await ask(port), String(b.port));
    await fileSays(world, /balance roundrobin/);
  }

  scenario('that fails is told with its output', failing('echo "no such unit" >&2; exit 5'), (world) =>
    refused(world, /ended with 5: no such unit/),
  );

  scenario('that succeeds without doing anything is not believed', failing('exit 0'), (world) =>
    refused(world, /still shows "tandem [0-9a-f]{16}"/),
  );

  scenario(
    'that hangs is ended at its time limit',
    (directory) => failing(`echo $$ > ${directory}/hung; exec sleep 600`)(directory),
    async (world) => {
      await refused(world, /did not end within 2000 ms/);
      const pid = Number(await readFile(path.join(world.directory, 'hung'), 'utf8'));
      await eventually(() => assert.equal(isRunning(pid), false));
    },
  );

  scenario(
    'that is a master socket nobody listens on is named',
    (directory) => ({ mode: 'external', reload: { master_socket: path.join(directory, 'nowhere.sock') } }),
    (world) => refused(world, /nowhere\.sock takes no request for a reload/, 'HAPROXY_UNREACHABLE'),
  );

  scenario(
    'that does not exist is named',
    () => ({ mode: 'external', reload: { command: ['/no/such/program'] } }),
    (world) => refused(world, /"\/no\/such\/program" cannot be started/),
  );

  scenario(
    'that works again is asked again',
    (directory) => reloadedBy(`test -e ${directory}/works && kill -USR2 "$(cat ${pidFileOf(directory)})"`),
    async (world) => {
      await rm(path.join(world.directory, 'works'), { force: true });
      await refused(world, /ended with 1/);
      await writeFile(path.join(world.directory, 'works'), '');
      await eventually(() => assert.equal(world.logged('reloaded HAProxy').length, 1), 40_000);
      await fileSays(world, /balance leastconn/);
      await world.becomes('web', ['b']);
    },
  );
});
