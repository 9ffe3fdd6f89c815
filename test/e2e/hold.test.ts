import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';

import type { DiscoveryState } from '@tandem/discovery';
import { converse } from '@tandem/discovery/testing';

import { createDiscoveryHost, type DiscoveryHost } from '../support/discovery-host.ts';
import { eventually } from '../support/eventually.ts';
import { freePort } from '../support/haproxy.ts';
import { ask, type Load, startLoad } from '../support/load.ts';
import { type Origin, startHttpOrigin } from '../support/origin.ts';

interface Scene extends AsyncDisposable {
  readonly host: DiscoveryHost;
  /** `one`, `two` and `three` of the service `web`. */
  readonly origins: readonly [Origin, Origin, Origin];
  readonly port: number;
  daemon: ReturnType<DiscoveryHost['start']>;
  /** Steady requests, until the end of the scene at the latest. */
  load(perSecond: number): Load;
}

const NAMES = ['one', 'two', 'three'] as const;

async function startScene(): Promise<Scene> {
  const host = await createDiscoveryHost();
  const origins = [await startHttpOrigin(), await startHttpOrigin(), await startHttpOrigin()] as const;
  const port = await freePort();
  const instances = origins.map(
    (origin, index) => `{ name: ${NAMES[index]}, host: 127.0.0.1, port: ${origin.port} }`,
  );
  await host.write(
    'web',
    `service: web\ndiscover:\n  listen: ${port}\n  source: { static: { instances: [${instances.join(', ')}] } }\n`,
  );
  const loads: Load[] = [];
  const scene: Scene = {
    host,
    origins,
    port,
    daemon: host.start(),
    load(perSecond) {
      const load = startLoad({ port, perSecond });
      loads.push(load);
      return load;
    },
    async [Symbol.asyncDispose]() {
      for (const load of loads) await load.stop();
      await host[Symbol.asyncDispose]();
      for (const origin of origins) await origin.close();
    },
  };
  try {
    await host.becomes('web', portsOf(origins));
  } catch (error) {
    await scene[Symbol.asyncDispose]();
    throw error;
  }
  return scene;
}

function portsOf(origins: readonly Origin[]): number[] {
  return origins.map((origin) => origin.port);
}

/** Which of the origins answer a hundred requests. */
async function whoAnswers(port: number): Promise<number[]> {
  const answers = new Set<number>();
  for (let count = 0; count < 100; count += 1) answers.add(Number(await ask(port)));
  return [...answers].toSorted((a, b) => a - b);
}

function sorted(ports: readonly number[]): number[] {
  return ports.toSorted((a, b) => a - b);
}

describe('an operator', { timeout: 240_000 }, () => {
  test('holds an instance and releases it: the others serve meanwhile, and no request fails', async () => {
    await using scene = await startScene();
    const { host, origins, port } = scene;
    const [one, two, three] = origins;
    const load = scene.load(100);

    const held = await host.command('hold', 'web', 'two');
    assert.equal(held.code, 0, held.stderr);
    assert.equal(held.stdout, `web: two_127.0.0.1:${two.port} is in drain\n`);
    await host.becomes('web', portsOf([one, three]));
    assert.deepEqual(await whoAnswers(port), sorted(portsOf([one, three])));
    const status = await host.command('status', 'web');
    assert.match(status.stdout, new RegExp(`^two +127\\.0\\.0\\.1:${two.port} +1 +drain$`, 'm'));

    const maint = await host.command('hold', 'web', `127.0.0.1:${one.port}`, '--maint');
    assert.equal(maint.stdout, `web: one_127.0.0.1:${one.port} is in maint\n`);
    await host.becomes('web', portsOf([three]));
    const both = await host.command('release', 'web');
    assert.equal(both.code, 1);
    assert.match(both.stderr, /several are held, name one of them or --all: .*one_.*two_/);
    const released = await host.command('release', 'web', 'two');
    assert.equal(released.stdout, `web: two_127.0.0.1:${two.port} is in use again\n`);
    await host.becomes('web', portsOf([two, three]));
    const all = await host.command('release', 'web', '--all');
    assert.equal(all.stdout, `web: one_127.0.0.1:${one.port} is in use again\n`);
    await host.becomes('web', portsOf(origins));
    assert.equal((await host.command('release', 'web', '--all')).stdout, 'web: nothing is held\n');

    await load.stop();
    assert.deepEqual(load.failures, []);
    assert.deepEqual(host.reloads(), []);
  });

  test('finds a hold as it was after a restart of the daemon, a crash of HAProxy, and both', async () => {
    await using scene = await startScene();
    const { host, origins, port } = scene;
    const [one, two, three] = origins;
    await host.command('hold', 'web', 'two');
    await host.becomes('web', portsOf([one, three]));
    const before = two.answered();
    const load = scene.load(50);

    await host.end(scene.daemon, 'SIGKILL');
    scene.daemon = host.start();
    await eventually(async () => assert.equal((await host.command('status')).code, 0), { withinMs: 30_000 });
    await host.becomes('web', portsOf([one, three]));
    await load.stop();
    assert.deepEqual(load.failures, []);

    const worker = await host.worker();
    process.kill(await host.masterPid(), 'SIGKILL');
    await eventually(async () => assert.notEqual(await host.worker(), worker), { withinMs: 30_000 });
    await host.becomes('web', portsOf([one, three]));
    assert.equal(two.answered(), before, 'the held instance got traffic');

    await host.end(scene.daemon, 'SIGKILL');
    process.kill(await host.masterPid(), 'SIGKILL');
    scene.daemon = host.start();
    await eventually(async () => assert.deepEqual(await whoAnswers(port), sorted(portsOf([one, three]))), {
      withinMs: 30_000,
    });
    assert.equal(two.answered(), before, 'the held instance got traffic');
    const file = await readFile(path.join(host.directory, 'run', 'haproxy.cfg'), 'utf8');
    assert.match(file, new RegExp(`server two_\\S+ 127\\.0\\.0\\.1:${two.port} .*\\bdisabled\\b`));
    await host.command('release', 'web', 'two');
    await host.becomes('web', portsOf(origins));
  });

  test('is told what could have been meant, and what is in the way', async () => {
    await using scene = await startScene();
    const { host } = scene;

    const cases: readonly (readonly [readonly string[], RegExp])[] = [
      [['hold', 'wbe', 'one'], /no such service\. Known: web \[CONTROL_REFUSED\]/],
      [['hold', 'web', 'four'], /no such instance\. Known: one_127\.0\.0\.1:\d+, three_127.*, two_127/],
      [['hold', 'web', '127.0.0.1'], /several instances are meant, name one of them: one_/],
      [['hold', 'web', '\u001b[2J'], /no such instance/],
      [['release', 'web', 'one'], /not held\. Held: none/],
      [['release', 'wbe'], /follows no service "wbe"\. Did you mean "web"\?/],
      [['status', 'wbe'], /follows no service "wbe"\. Did you mean "web"\?/],
    ];
    for (const [args, says] of cases) {
      const finished = await host.command(...args);
      assert.equal(finished.code, 1, args.join(' '));
      assert.match(finished.stderr, says);
      assert.equal(finished.stdout, '');
    }
    const usage = await host.command('release', 'web', 'one', '--all');
    assert.equal(usage.code, 2, usage.stderr);

    await host.end(scene.daemon, 'SIGTERM');
    for (const args of [['status'], ['hold', 'web', 'one'], ['release', 'web', '--all']]) {
      const finished = await host.command(...args);
      assert.equal(finished.code, 1);
      assert.match(
        finished.stderr,
        /cannot reach the discovery daemon at .*discovery\.sock: it is not running, or/,
      );
    }
  });

  test('sees in one table what the daemon sees', async () => {
    await using scene = await startScene();
    const { host } = scene;

    const table = await host.command('status');
    assert.equal(table.code, 0, table.stderr);
    assert.match(table.stdout, /^HAProxy \d+\.\d+\.\d+\S* \(tandem [0-9a-f]{16}\), last applied \d+[sm]/);
    assert.match(table.stdout, /\nSERVICE +IN USE +HELD +GUARDED +KNOWN +NOTES\nweb +3 +0 +0 +3\n$/);
    const json = JSON.parse((await host.command('status', '--json')).stdout) as {
      services: { service: string }[];
    };
    assert.deepEqual(
      json.services.map(({ service }) => service),
      ['web'],
    );
  });
});

describe('what an operator is told', { timeout: 120_000 }, () => {
  test('has everything that is set aside or held by others, and no command fails for it', async () => {
    await using scene = await startScene();
    const [origin, taken, alsoTaken] = scene.origins;
    const [first, edge, own] = [await freePort(), await freePort(), await freePort()];
    await using host = await createDiscoveryHost(`  foreign_holds: respect
  port_range: { http: ${first}-${first + 1}, spares: 1 }
  shared_frontends: { edge: { listen: ${edge} }, late: { listen: 127.0.0.1:${taken.port} } }
  extra_sections: { "listen stats": [mode http, "bind 127.0.0.1:${alsoTaken.port}"] }
`);
    const service = (listen: string, more = '') => `discover:
  ${listen}
  source: { static: { instances: [{ name: one, host: 127.0.0.1, port: ${origin.port} }, { name: two, host: 127.0.0.2, port: ${origin.port} }] } }
${more}`;
    await host.write('own', `service: own\n${service(`listen: ${own}`)}`);
    await host.write('spared', `service: spared\n${service(`listen: ${first}`)}`);
    host.start();
    const both = [origin.port, origin.port];
    await host.becomes('tandem-spare-http-1', both);
    await host.becomes('own', both);

    await host.write('too-many', `service: too-many\n${service(`listen: ${first + 1}`)}`);
    await host.write('own', `service: own\n${service(`listen: ${own}`, '  backend: [nonsense]\n')}`);
    const server = `two_127.0.0.2:${origin.port}`;
    const saysAll = (lines: readonly RegExp[]) =>
      eventually(
        async () => {
          const { code, stdout, stderr } = await host.command('status');
          assert.equal(code, 0, stderr);
          for (const line of lines) assert.match(stdout, line);
        },
        { withinMs: 30_000 },
      );
    // What somebody does to a HAProxy in the moment in which it starts, before the daemon has seen it, is undone as what an
    // earlier life has left: everything has come to rest first.
    await saysAll([
      /^! own goes on as it was: .*nonsense/m,
      /^! too-many is not there: all 1 spare backends for http are in use/m,
      /^! the shared frontend late is not there: .*taken/m,
      /^! the section listen stats is not there: .*taken/m,
    ]);
    await converse(host.runtimeSocket, [`set server tandem-spare-http-1/${server} state drain`]);
    await saysAll([new RegExp(`^! spared: ${server} is in drain, and not by "tandem hold"$`, 'm')]);
    const one = await host.command('status', 'spared');
    assert.match(one.stdout, new RegExp(`^ {2}${server} is in drain, and not by "tandem hold"$`, 'm'));
    assert.equal((await host.command('release', 'spared')).stdout, 'spared: nothing is held\n');
    const json = JSON.parse((await host.command('status', '--json')).stdout) as DiscoveryState;
    assert.deepEqual(json.haproxy.foreignHolds, [{ service: 'spared', server, kind: 'drain' }]);
    assert.deepEqual(
      host
        .logged('servers that somebody else holds are left as they are')
        .map(({ servers }) => servers)
        .at(-1),
      json.haproxy.foreignHolds,
    );
  });
});

describe('a second discovery daemon', { timeout: 120_000 }, () => {
  test('on the same HAProxy says that one runs already, and touches nothing', async () => {
    await using scene = await startScene();
    const { host, origins } = scene;
    const worker = await host.worker();
    const other = path.join(host.directory, 'other.yaml');
    await writeFile(
      other,
      host.hostFile
        .replace('state_dir: state', 'state_dir: other-state')
        .replace('discovery.sock', 'other.sock'),
    );

    const refused = await host.command('discover', '--config', other);
    const sameState = await host.command('discover');

    for (const { code, stderr } of [refused, sameState]) {
      assert.equal(code, 1);
      assert.match(stderr, /another process already runs the discovery .*\[ALREADY_RUNNING\]/);
    }
    assert.equal(await host.worker(), worker);
    await host.becomes('web', portsOf(origins));
    assert.equal((await host.command('status')).code, 0);
  });

  test('with a HAProxy of its own does not take the control socket of the first', async () => {
    await using scene = await startScene();
    const { host } = scene;
    const other = path.join(host.directory, 'other.yaml');
    await writeFile(
      other,
      host.hostFile
        .replace('state_dir: state', 'state_dir: other-state')
        .replace('haproxy.cfg', 'other.cfg')
        .replace('haproxy.sock', 'other-haproxy.sock'),
    );

    const refused = await host.command('discover', '--config', other);

    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /another process already answers at the control socket .*discovery\.sock/);
    assert.equal((await host.command('status')).code, 0);
  });
});
