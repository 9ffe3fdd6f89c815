import assert from 'node:assert/strict';
import { appendFile, mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { createDiscoveryHost, type DiscoveryHost } from '../support/discovery-host.ts';
import { eventually } from '../support/eventually.ts';
import { freePort } from '../support/haproxy.ts';
import { ask, type Load, startLoad } from '../support/load.ts';
import { type Origin, startHttpOrigin } from '../support/origin.ts';

/** A running daemon with the service `web` on two origins, under steady traffic. */
interface Scene extends AsyncDisposable {
  readonly host: DiscoveryHost;
  readonly origins: readonly [Origin, Origin];
  readonly port: number;
  readonly load: Load;
  /** Kills the daemon, and starts another once this is done. */
  readonly restart: (meanwhile: () => Promise<void>) => Promise<void>;
  /** Writes `web` with these origins. */
  readonly writeWeb: (origins: readonly Origin[], more?: string) => Promise<void>;
  /** Every request so far got its answer. */
  assertNothingFailed(): Promise<void>;
}

function service(name: string, listen: number, origins: readonly Origin[], more = ''): string {
  const instances = origins.map(({ host, port }) => `{ host: ${host}, port: ${port} }`).join(', ');
  return `service: ${name}
discover:
  listen: ${listen}
  allow_empty: true
  guard: { max_lost_percent: 100 }
  source: { static: { instances: [${instances}] } }
${more}`;
}

async function startScene(): Promise<Scene> {
  const host = await createDiscoveryHost();
  const origins = [await startHttpOrigin(), await startHttpOrigin()] as const;
  const port = await freePort();
  const writeWeb = (some: readonly Origin[], more = '') =>
    host.write('web', service('web', port, some, more));
  await writeWeb(origins);
  let daemon = host.start();
  try {
    await host.becomes(
      'web',
      origins.map((origin) => origin.port),
    );
  } catch (error) {
    await host[Symbol.asyncDispose]();
    for (const origin of origins) await origin.close();
    throw error;
  }
  const load = startLoad({ port, perSecond: 100 });
  return {
    host,
    origins,
    port,
    load,
    writeWeb,
    async restart(meanwhile) {
      await host.end(daemon, 'SIGKILL');
      await meanwhile();
      daemon = host.start();
    },
    async assertNothingFailed() {
      await eventually(() => assert.ok(load.sent() > 50, `only ${load.sent()} requests were sent`));
      await load.stop();
      assert.deepEqual(load.failures, []);
    },
    async [Symbol.asyncDispose]() {
      await load.stop();
      await host[Symbol.asyncDispose]();
      for (const origin of origins) await origin.close();
    },
  };
}

/** Resolves when a log line with this message has come, after `count` earlier ones. */
function untilLogged(host: DiscoveryHost, message: string, count = 0): Promise<Record<string, unknown>> {
  return eventually(
    () => {
      const entry = host.logged(message)[count];
      assert.ok(entry !== undefined, `never logged: ${message}`);
      return entry;
    },
    { withinMs: 30_000 },
  );
}

describe('while the daemon runs', { timeout: 240_000 }, () => {
  test('services are added, changed and removed, and only what HAProxy cannot change at run time reloads it', async () => {
    await using scene = await startScene();
    const { host, origins, writeWeb } = scene;
    const [one, two] = origins;
    const worker = await host.worker();

    await writeWeb([one]);
    await host.becomes('web', [one.port]);
    await writeWeb(origins);
    await host.becomes('web', [one.port, two.port]);
    await writeWeb(origins, '# a comment\n');
    await sleep(1_000);
    assert.deepEqual(host.reloads(), [], 'membership and comments need no reload');
    assert.equal(await host.worker(), worker);

    const apiPort = await freePort();
    await host.write('api', service('api', apiPort, [one]));
    await eventually(async () => assert.equal(await ask(apiPort), String(one.port)), { withinMs: 30_000 });
    assert.equal(host.reloads().length, 1, host.reloads().join());

    await writeWeb(origins, '  balance: leastconn\n');
    await eventually(() => assert.equal(host.reloads().length, 2), { withinMs: 30_000 });

    await host.remove('api');
    await eventually(() => assert.rejects(ask(apiPort), /ECONNREFUSED/), { withinMs: 30_000 });
    assert.equal(host.reloads().length, 3, host.reloads().join());
    await scene.assertNothingFailed();
  });

  test('ten new services at once make one reload', async () => {
    await using scene = await startScene();
    const { host, origins } = scene;
    const ports = await Promise.all(Array.from({ length: 10 }, () => freePort()));

    for (const [index, port] of ports.entries())
      await host.write(`more-${index}`, service(`more-${index}`, port, [origins[0]]));
    for (const port of ports)
      await eventually(async () => assert.equal(await ask(port), String(origins[0].port)), {
        withinMs: 30_000,
      });

    assert.equal(host.reloads().length, 1, host.reloads().join());
    await scene.assertNothingFailed();
  });

  test('a bad file keeps its last good version and hurts no other, and is taken when it is mended', async () => {
    await using scene = await startScene();
    const { host, origins, port, writeWeb } = scene;
    const worker = await host.worker();
    const apiPort = await freePort();

    await host.write('web', `service: web\ndiscover: { lisetn: ${port} }\n`);
    const entry = await untilLogged(host, 'set a service file aside');
    assert.equal(entry['line'], 2);
    assert.match(String(entry['remedy']), /Did you mean "listen"\?/);
    await host.write('thief', service('thief', port, [origins[0]]));
    await untilLogged(host, 'set a service file aside', 1);
    assert.equal(await host.worker(), worker);
    assert.deepEqual(host.reloads(), []);

    await host.write('api', service('api', apiPort, [origins[1]]));
    await eventually(async () => assert.equal(await ask(apiPort), String(origins[1].port)), {
      withinMs: 30_000,
    });
    await host.becomes(
      'web',
      origins.map((origin) => origin.port),
    );
    await writeWeb([origins[0]]);
    await host.becomes('web', [origins[0].port]);
    assert.equal(host.reloads().length, 1, host.reloads().join());
    await scene.assertNothingFailed();
  });

  test('a services_dir that is deleted changes nothing, and one that comes back is followed at once', async () => {
    await using scene = await startScene();
    const { host, origins, writeWeb } = scene;
    const [one, two] = origins;

    await rm(host.servicesDir, { recursive: true });
    await untilLogged(host, 'set a service file aside');
    await host.becomes('web', [one.port, two.port]);
    await mkdir(host.servicesDir);
    await writeWeb([two]);
    await host.becomes('web', [two.port]);
    // As a deployment does it that swaps whole directories.
    const next = path.join(host.directory, 'next');
    await mkdir(next);
    await writeFile(path.join(next, 'web.yaml'), service('web', scene.port, [one]));
    await rename(host.servicesDir, path.join(host.directory, 'previous'));
    await rename(next, host.servicesDir);
    await host.becomes('web', [one.port]);

    await scene.assertNothingFailed();
  });

  test("HAProxy's log is kept small, also when nothing changes", async () => {
    await using scene = await startScene();
    const { host } = scene;
    const file = path.join(host.directory, 'run', 'haproxy.log');
    await eventually(async () =>
      assert.match((await host.command('status')).stdout, /last applied [2-9]s ago/),
    );

    for (let round = 0; round < 2; round += 1) {
      await appendFile(file, 'x'.repeat(5 * 1024 * 1024));
      await eventually(async () => assert.ok((await stat(file)).size < 1024 * 1024));
    }

    assert.deepEqual(host.reloads(), []);
    await scene.assertNothingFailed();
  });

  test('a host file that changed is named on SIGHUP, and a mistake in it with its place; its settings stay', async () => {
    await using scene = await startScene();
    const { host } = scene;
    const pid = await host.masterPid();
    const hangUp = () => process.kill(Number(host.logged('starting')[0]?.['pid']), 'SIGHUP');

    await writeFile(host.config, host.hostFile.replace('state_dir', 'state_dri'));
    hangUp();
    const mistake = await untilLogged(
      host,
      'a mistake in the host file, going on with the settings of the start',
    );
    assert.deepEqual([mistake['line'], mistake['column']], [3, 1]);
    await writeFile(host.config, `${host.hostFile}  defaults: [timeout http-keep-alive 30s]\n`);
    hangUp();
    await untilLogged(host, 'the host file has changed, a restart of the daemon will take it');

    assert.equal(await host.masterPid(), pid);
    assert.deepEqual(host.reloads(), []);
    await scene.assertNothingFailed();
  });
});

describe('a daemon that is killed and started again', { timeout: 240_000 }, () => {
  /** A second service beside `web`. */
  async function startApi(scene: Scene): Promise<number> {
    const { host, origins } = scene;
    const port = await freePort();
    await host.write('api', service('api', port, [origins[0]]));
    await eventually(async () => assert.equal(await ask(port), String(origins[0].port)), {
      withinMs: 30_000,
    });
    // The daemon may take a moment to learn what its reload has come to.
    await untilLogged(host, 'reloaded HAProxy');
    await eventually(async () =>
      assert.match(await readFile(path.join(host.directory, 'state', 'structure.json'), 'utf8'), /"api"/),
    );
    return port;
  }

  test('goes on with a service whose file was broken meanwhile, and follows the others', async () => {
    await using scene = await startScene();
    const { host, origins, writeWeb } = scene;
    const [one, two] = origins;
    const apiPort = await startApi(scene);
    const worker = await host.worker();

    await scene.restart(async () => {
      await host.write('web', 'service: web\ndiscover: [\n');
      await host.write('api', service('api', apiPort, [two]));
    });
    await untilLogged(host, 'set a service file aside');
    await host.becomes('api', [two.port]);
    await host.becomes('web', [one.port, two.port]);
    assert.equal(await ask(apiPort), String(two.port));
    assert.equal(await host.worker(), worker, 'nothing is worth a reload');
    await scene.restart(() => host.remove('api'));
    await eventually(() => assert.rejects(ask(apiPort), /ECONNREFUSED/), { withinMs: 30_000 });
    await writeWeb([one]);
    await host.becomes('web', [one.port]);

    await scene.assertNothingFailed();
  });

  test('changes nothing while services_dir is away, also when it has never seen it', async () => {
    await using scene = await startScene();
    const { host, origins, writeWeb } = scene;
    const [one, two] = origins;
    const apiPort = await startApi(scene);
    const worker = await host.worker();
    const away = path.join(host.directory, 'away');

    await scene.restart(() => rename(host.servicesDir, away));
    await untilLogged(host, 'set a service file aside');
    await eventually(async () => {
      const { stdout } = await host.command('status');
      assert.match(stdout, /^api +1 .*\nweb +2 /m);
      assert.match(stdout, /last applied/);
    });
    await scene.restart(() => rm(path.join(host.directory, 'state', 'discovery-services.json')));
    await untilLogged(host, 'nothing is known of the services, leaving everything as it is');
    await sleep(1_000);
    assert.match((await host.command('status')).stdout, /starting: .*no services/s);
    assert.equal(await ask(apiPort), String(one.port));
    await host.becomes('web', [one.port, two.port]);
    assert.equal(await host.worker(), worker);
    assert.equal(host.reloads().length, 1, 'only that for the new service');

    await rename(away, host.servicesDir);
    await writeWeb([two]);
    await host.becomes('web', [two.port]);
    assert.equal(await host.worker(), worker);
    await scene.assertNothingFailed();
  });
});
