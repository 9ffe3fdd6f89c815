// What a host does without anybody's help after a crash: with the registry away, and with the daemon itself dead.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';

import { createDiscoveryHost } from '../support/discovery-host.ts';
import { eventually } from '../support/eventually.ts';
import { BINARY, freePort } from '../support/haproxy.ts';
import { ask, startLoad } from '../support/load.ts';
import { announceMember, type Member } from '../support/members.ts';
import { type Origin, startHttpOrigin } from '../support/origin.ts';
import { startRealZooKeeper } from '../support/real-zookeeper.ts';
import { createSavedHost, serviceFile } from '../support/saved-host.ts';

/** On a machine with much else to do; `npm run bench -- boot` is for the second that it should be. */
const LIMIT_MS = 3_000;

function portsOf(origins: readonly Origin[]): number[] {
  return origins.map(({ port }) => port).toSorted((a, b) => a - b);
}

describe('a boot while ZooKeeper is away', { timeout: 120_000 }, () => {
  for (const [what, isNew] of [
    ['serves every service from what was saved', false],
    ['waits for no service that nothing was saved of', true],
  ] as const) {
    test(`${what}, within ${LIMIT_MS / 1_000} s`, async () => {
      await using saved = await createSavedHost({ services: 5, members: 3 });
      const { host, services, origins } = saved;
      if (isNew) await host.write('new', serviceFile('new', await freePort()));

      const startedAt = performance.now();
      const daemon = host.start();
      const answers = await Promise.all(services.map(({ listen }) => eventually(() => ask(listen))));
      const tookMs = performance.now() - startedAt;

      assert.ok(tookMs < LIMIT_MS, `the last service answered after ${Math.round(tookMs)} ms`);
      for (const answer of answers) assert.ok(portsOf(origins).includes(Number(answer)), answer);
      for (const { name } of services) await host.becomes(name, portsOf(origins));
      assert.deepEqual(await host.ports('new'), []);
      assert.equal(daemon.exitCode, null);
      assert.deepEqual(host.reloads(), []);
    });
  }
});

describe('a boot while ZooKeeper is back with nothing in it', { timeout: 120_000 }, () => {
  test('costs no request while members are still to come; one that died meanwhile is gone in the end', async () => {
    await using saved = await createSavedHost({ services: 1, members: 4 });
    const { host, services, origins } = saved;
    const [{ name, listen } = { name: '', listen: 0 }] = services;
    const [dead, first, ...others] = origins as [Origin, Origin, ...Origin[]];
    await dead.close();
    await using zookeeper = await startRealZooKeeper();
    const config = path.join(host.directory, 'again.yaml');
    await writeFile(config, host.hostFile.replace(/127\.0\.0\.1:\d+/, zookeeper.connectString));
    await host.write(name, `service: ${name}\ndiscover: { listen: ${listen}, guard: { hold: 4s } }\n`);
    const members: Member[] = [];
    const announce = async (origin: Origin) => {
      const instance = origin.instance(`i-${origins.indexOf(origin)}`);
      members.push(await announceMember(zookeeper.port, `/services/${name}`, instance));
    };

    const daemon = host.start(config);
    await eventually(() => ask(listen));
    const load = startLoad({ port: listen, perSecond: 100 });
    try {
      const held = () => host.logged('refused an implausible loss, holding on to what was there').length;
      await eventually(() => assert.equal(held(), 1), { withinMs: 60_000 });
      await host.becomes(name, portsOf(origins));
      await announce(first);
      // The hold runs out while one is back of four: from now on, it carries everything.
      await host.becomes(name, portsOf([first]));
      for (const [index, origin] of others.entries()) {
        await announce(origin);
        await host.becomes(name, portsOf([first, ...others.slice(0, index + 1)]));
      }
    } finally {
      await load.stop();
      for (const member of members) await member.leave();
    }
    assert.deepEqual(load.failures, []);
    assert.ok(load.sent() > 200, `only ${load.sent()} requests were sent`);
    assert.equal(daemon.exitCode, null);
    assert.deepEqual(host.reloads(), []);
  });
});

describe('HAProxy that is killed while no daemon runs', { timeout: 120_000 }, () => {
  test('has the membership of the last change when somebody starts it on the file, and the next daemon adopts it', async () => {
    await using host = await createDiscoveryHost();
    const origins = await Promise.all(Array.from({ length: 4 }, () => startHttpOrigin()));
    const [one, two, three, four] = origins as [Origin, Origin, Origin, Origin];
    const listen = await freePort();
    const say = (some: readonly Origin[]) => {
      const instances = some.map(({ port }) => `{ host: 127.0.0.1, port: ${port} }`).join(', ');
      const source = `source: { static: { instances: [${instances}] } }`;
      return host.write('web', `service: web\ndiscover:\n  listen: ${listen}\n  ${source}\n`);
    };
    try {
      await say([one, two]);
      const daemon = host.start();
      await host.becomes('web', portsOf([one, two]));
      const first = await host.worker();
      await say([two, three, four]);
      await host.becomes('web', portsOf([two, three, four]));
      assert.equal(await host.worker(), first, 'membership has reloaded HAProxy');
      await host.end(daemon, 'SIGKILL');
      await host.killHaproxy();

      const run = path.join(host.directory, 'run');
      const args = [
        '-S',
        `${path.join(run, 'haproxy-master.sock')},mode,600`,
        '-f',
        path.join(run, 'haproxy.cfg'),
      ];
      await once(spawn(BINARY, ['-W', '-db', ...args], { stdio: 'ignore' }), 'spawn');
      await eventually(() => ask(listen));

      await host.becomes('web', portsOf([two, three, four]));
      const before = { worker: await host.worker(), master: await host.masterPid() };
      const load = startLoad({ port: listen, perSecond: 100 });
      try {
        host.start();
        await eventually(async () => assert.equal((await host.command('status')).code, 0), {
          withinMs: 30_000,
        });
        await say([one, two, three, four]);
        await host.becomes('web', portsOf(origins));
      } finally {
        await load.stop();
      }
      assert.deepEqual(load.failures, []);
      assert.deepEqual({ worker: await host.worker(), master: await host.masterPid() }, before);
      assert.deepEqual(host.reloads(), []);
    } finally {
      for (const origin of origins) await origin.close();
    }
  });
});
