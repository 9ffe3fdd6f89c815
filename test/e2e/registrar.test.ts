import assert from 'node:assert/strict';
import { type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile, stat, writeFile } from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { inDirectory } from '../support/directory.ts';
import { createDiscoveryHost } from '../support/discovery-host.ts';
import { eventually } from '../support/eventually.ts';
import { freePort } from '../support/haproxy.ts';
import { type FakeInitSystem, startInitSystem } from '../support/init-system.ts';
import { startLoad } from '../support/load.ts';
import { type Origin, startHttpOrigin } from '../support/origin.ts';
import { createRegistrarHost, type RegistrarHost } from '../support/registrar-host.ts';
import { tandem } from '../support/tandem.ts';

const CHECK = '{ http: { path: /, interval: 50ms, timeout: 5s } }';

interface Scene extends AsyncDisposable {
  readonly host: RegistrarHost;
  readonly origin: Origin;
  daemon: ChildProcess;
}

/** A registrar with the service `web` on a living origin, seen by others. */
async function startScene(more = '', service = ''): Promise<Scene> {
  const host = await createRegistrarHost(more);
  const origin = await startHttpOrigin();
  await host.write(
    'web',
    `service: web\nregister:\n  port: ${origin.port}\n  weight: 10\n  checks: [${CHECK}]\n${service}`,
  );
  const scene = {
    host,
    origin,
    daemon: host.start(),
    async [Symbol.asyncDispose]() {
      await host[Symbol.asyncDispose]();
      await origin.close();
    },
  };
  try {
    await host.becomes('web', [origin.port]);
  } catch (error) {
    await scene[Symbol.asyncDispose]();
    throw error;
  }
  return scene;
}

/** Resolves when the registrar answers. */
async function answers(host: RegistrarHost): Promise<void> {
  await eventually(
    async () => {
      const { code, stderr } = await host.command('services');
      assert.equal(code, 0, stderr);
    },
    { withinMs: 30_000 },
  );
}

async function done(host: RegistrarHost, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await host.command(...args);
  assert.equal(code, 0, `${args.join(' ')}: ${stderr}`);
  assert.equal(stderr, '');
  return stdout;
}

/** The state of a service as programs get it. */
async function stateOf(host: RegistrarHost, service: string): Promise<Record<string, unknown>> {
  const { services } = JSON.parse(await done(host, 'services', '--json')) as {
    services: Record<string, unknown>[];
  };
  const found = services.find((one) => one['service'] === service);
  assert.ok(found !== undefined, `${service} is not there`);
  return found;
}

describe('an operator of a registrar', { timeout: 240_000 }, () => {
  test('drains a service and brings it back; a drain outlives kill -9, and its checks go on', async () => {
    await using scene = await startScene();
    const { host, origin } = scene;
    const { port } = origin;

    assert.equal(
      await done(host, 'drain', 'web', '--wait'),
      'web: drained, and the registry has confirmed it\n',
    );
    await host.becomes('web', []);
    await host.end(scene.daemon, 'SIGKILL');
    scene.daemon = host.start();
    await answers(host);
    const before = origin.answered();
    await eventually(() => assert.ok(origin.answered() > before + 2, 'the checks have stopped'));
    await eventually(async () => assert.equal((await stateOf(host, 'web'))['health'], 'up'));
    assert.deepEqual(host.seen('web'), []);
    const table = await done(host, 'services');
    assert.match(table, /^registry connected, 1 service: 1 drained$/m);
    assert.match(
      table,
      new RegExp(`^web +127\\.0\\.0\\.1:${port} +up +no +10 +drained by "tandem drain"$`, 'm'),
    );

    assert.equal(await done(host, 'undrain', 'web'), 'web: no longer drained\n');
    await host.becomes('web', [port]);
    await host.end(scene.daemon, 'SIGKILL');
    scene.daemon = host.start();
    await answers(host);
    await host.becomes('web', [port]);
  });

  test('drains everything, also what comes later, and brings one back or all', async () => {
    await using scene = await startScene();
    const { host, origin } = scene;
    await host.write('api', 'service: api\nregister: { port: 8001 }\n');
    await host.becomes('api', [8001]);

    assert.equal(
      await done(host, 'drain', '--all', '--wait=30s'),
      'every service: drained, and the registry has confirmed it\n',
    );
    await host.becomes('api', []);
    await host.becomes('web', []);
    await host.write('late', 'service: late\nregister: { port: 8002 }\n');
    await eventually(async () => assert.deepEqual((await stateOf(host, 'late'))['drained'], ['operator']));
    await done(host, 'undrain', 'web');
    await host.becomes('web', [origin.port]);
    assert.deepEqual(host.seen('api'), []);
    assert.equal(await done(host, 'undrain', '--all'), 'every service: no longer drained\n');
    await host.becomes('api', [8001]);
    await host.becomes('late', [8002]);
  });

  test('is answered while the registry is away, and told what is not confirmed', async () => {
    await using scene = await startScene();
    const { host } = scene;
    await host.zookeeper.close();

    const drained = await host.command('drain', 'web', '--wait=500ms');
    assert.equal(drained.code, 1);
    assert.equal(drained.stdout, 'web: drained\n');
    assert.match(
      drained.stderr,
      /the registry has not confirmed within 500ms: .*stays in force.*DEADLINE_EXCEEDED/,
    );
    assert.equal(await done(host, 'drain', 'web'), 'web: drained\n');
    assert.equal(await done(host, 'weight', 'web', '3'), 'web: has the weight 3\n');
    assert.match(await done(host, 'services'), /^registry suspended, 1 service: 1 drained$/m);
    await host.write('shop', 'service: shop\nregister: { port: 8001, checks: [{ push: { ttl: 1h } }] }\n');
    await eventually(() => done(host, 'report', 'shop', 'pass'));
    await eventually(async () => assert.equal((await stateOf(host, 'shop'))['health'], 'up'));
    assert.equal(await done(host, 'undrain', 'web'), 'web: no longer drained\n');
  });

  test('gives a service another weight, over restarts, until it is reset', async () => {
    await using scene = await startScene();
    const { host } = scene;
    const weighs = (weight: number) =>
      eventually(() => assert.equal(host.seen('web')?.[0]?.weight, weight), { withinMs: 30_000 });

    assert.equal(await done(host, 'weight', 'web', '3'), 'web: has the weight 3\n');
    await weighs(3);
    await host.end(scene.daemon, 'SIGKILL');
    scene.daemon = host.start();
    await answers(host);
    assert.deepEqual((await stateOf(host, 'web'))['weight'], { configured: 10, override: 3, announced: 3 });
    assert.match(
      await done(host, 'services', 'web'),
      /^ {2}weight 3, set by "tandem weight", 10 in its file$/m,
    );
    await weighs(3);
    assert.equal(await done(host, 'weight', 'web', '--reset'), 'web: has the weight of its service file\n');
    await weighs(10);
    assert.equal(host.history('web').indexOf(''), -1, 'a weight is no reason to be away');
  });

  test('sees why a service is down', async () => {
    await using scene = await startScene();
    const { host, origin } = scene;
    await origin.close();

    await host.becomes('web', []);

    assert.match(
      await done(host, 'services'),
      new RegExp(
        `^web +127\\.0\\.0\\.1:${origin.port} +down +no +10 +checks\\[0\\]\\.http: connection refused$`,
        'm',
      ),
    );
    const one = await done(host, 'services', 'web');
    assert.match(
      one,
      new RegExp(`^web: h 127\\.0\\.0\\.1:${origin.port} at /services/web, down, not announced$`, 'm'),
    );
    assert.match(one, /^checks\[0\]\.http +down +\d+ms +connection refused$/m);
  });

  test('is told what could have been meant, and what is in the way', async () => {
    await using scene = await startScene();
    const { host } = scene;

    const cases: readonly (readonly [readonly string[], number, RegExp])[] = [
      [['drain', 'wbe'], 1, /no such service\. Known: web \[CONTROL_REFUSED\]/],
      [['undrain', 'wbe'], 1, /no such service\. Known: web/],
      [['weight', 'wbe', '1'], 1, /no such service\. Known: web/],
      [['services', 'wbe'], 1, /the registrar knows no service "wbe"\. Did you mean "web"\?/],
      [['report', 'web', 'pass'], 1, /that service has no push check\. Services that have one: none/],
      [['report', 'wbe', 'pass'], 1, /no such service\. Those that report themselves: none/],
      [['drain', '\u001b[2J'], 1, /no such service/],
      [['drain'], 2, /name a service or --all/],
      [['drain', 'web', '--all'], 2, /name a service or --all/],
      [['drain', '--wait', 'web'], 2, /--wait: "web" is not a duration such as 10s/],
      [['drain', 'web', '--wait=2h'], 2, /up to 10m/],
      [['undrain'], 2, /name a service or --all/],
      [['weight', 'web'], 2, /name a weight or --reset/],
      [['weight', 'web', '3', '--reset'], 2, /name a weight or --reset/],
      [['weight', 'web', 'much'], 2, /a whole number from 0 to 256/],
      [['weight', 'web', '1.5'], 2, /a whole number from 0 to 256/],
      [['weight', 'web', '257'], 2, /a whole number from 0 to 256/],
      [['report', 'web', 'fine'], 2, /Invalid values/],
    ];
    for (const [args, code, says] of cases) {
      const finished = await host.command(...args);
      assert.equal(finished.code, code, `${args.join(' ')}: ${finished.stderr}`);
      assert.match(finished.stderr, says);
      assert.equal(finished.stdout, '');
    }
    assert.notEqual(host.seen('web')?.length, 0);

    await host.end(scene.daemon, 'SIGTERM');
    for (const args of [['services'], ['drain', 'web'], ['undrain', '--all'], ['weight', 'web', '1']]) {
      const finished = await host.command(...args);
      assert.equal(finished.code, 1);
      assert.match(finished.stderr, /cannot reach the registrar at .*registrar\.sock: it is not running, or/);
    }
  });

  test('cannot start a second registrar on its socket, and the first goes on', async () => {
    await using scene = await startScene();
    const { host, origin } = scene;
    const other = path.join(host.directory, 'other.yaml');
    await writeFile(other, host.hostFile.replace('state_dir: state', 'state_dir: other-state'));

    const refused = await tandem(['register', '--config', other]);

    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /another process already answers at the control socket .*registrar\.sock/);
    assert.deepEqual(
      host.seen('web')?.map(({ port }) => port),
      [origin.port],
    );
    assert.equal(host.history('web').length, 1, 'the second has announced something');
  });
});

describe('a service that reports itself', { timeout: 240_000 }, () => {
  const PUSH = 'service: shop\nregister:\n  port: 8001\n  checks: [{ push: { ttl: 8s } }]\n';

  /** As a service does it that has no tandem command at hand. */
  function post(host: RegistrarHost, body: string): Promise<{ status: number; text: string }> {
    return new Promise((resolve, reject) => {
      const request = http.request(
        {
          socketPath: path.join(host.directory, 'run', 'registrar.sock'),
          path: '/v1/services/shop/health',
          method: 'POST',
          agent: false,
        },
        (response) => {
          let text = '';
          response.setEncoding('utf8').on('data', (part: string) => (text += part));
          response.once('end', () => resolve({ status: response.statusCode ?? 0, text }));
        },
      );
      request.once('error', reject);
      request.end(body);
    });
  }

  test('is announced while it says so, withdrawn when it says so, and when it falls silent', async () => {
    await using host = await createRegistrarHost();
    await host.write('shop', PUSH);
    host.start();
    await answers(host);
    await host.becomes('shop', []);

    assert.equal(await done(host, 'report', 'shop', 'pass'), 'shop: pass, taken by push\n');
    await host.becomes('shop', [8001]);
    await done(host, 'report', 'shop', 'fail', '--reason', 'disk full\u001b[2J');
    await host.becomes('shop', []);
    assert.match(await done(host, 'services'), /^shop .* down +no +checks\[0\]\.push: disk full \[2J$/m);
    assert.deepEqual(await post(host, '{"status":"warn","reason":"slow"}'), {
      status: 200,
      text: '{"check":"push"}\n',
    });
    await host.becomes('shop', [8001]);
    assert.match(await done(host, 'services', 'shop'), /^checks\[0\]\.push +up +\d+ms +slow$/m);
    await host.becomes('shop', []);
    assert.match(await done(host, 'services', 'shop'), /no report for 8s/);
  });

  test('is refused with what is wrong, and harms nobody with what it sends', async () => {
    await using host = await createRegistrarHost();
    await host.write('shop', PUSH);
    host.start();
    await answers(host);

    for (const body of ['', '{}', '{"status":"fine"}', '{"status":"pass","more":1}', '[]', 'garbage'])
      assert.equal((await post(host, body)).status, 400, body);
    assert.equal((await post(host, `{"status":"pass","reason":"${'x'.repeat(100_000)}"}`)).status, 413);
    await Promise.all(Array.from({ length: 100 }, () => post(host, '{"status":"pass"}')));

    await host.becomes('shop', [8001]);
  });

  test('stands while its registrar is restarted', async () => {
    await using host = await createRegistrarHost();
    await host.write('shop', PUSH.replace('8s', '5m'));
    const first = host.start();
    await answers(host);
    await done(host, 'report', 'shop', 'pass');
    await host.becomes('shop', [8001]);

    await host.end(first, 'SIGKILL');
    host.start();
    await answers(host);
    assert.equal((await stateOf(host, 'shop'))['health'], 'unknown');
    assert.deepEqual(
      host.seen('shop')?.map(({ port }) => port),
      [8001],
    );
    await done(host, 'report', 'shop', 'pass');
    assert.deepEqual(host.history('shop'), ['8001']);
  });
});

describe('whoever watches a registrar from outside', { timeout: 240_000 }, () => {
  test('sees a heartbeat that is never older than a few seconds, until the daemon is stopped', async () => {
    await using scene = await startScene('registrar: { heartbeat_file: run/heartbeat }\n');
    const { host, daemon } = scene;
    const file = path.join(host.directory, 'run', 'heartbeat');
    const time = async () => (await stat(file)).mtimeMs;

    const first = await eventually(time);
    await eventually(async () => assert.ok((await time()) > first));
    daemon.kill('SIGSTOP');
    await sleep(500);
    const last = await time();
    await sleep(3_000);
    assert.equal(await time(), last, 'a process that does not run gives no sign of life');
    daemon.kill('SIGCONT');
    await eventually(async () => assert.ok((await time()) > last));
  });

  test('is told nothing twice of a heartbeat file that cannot be there, and all else goes on', async () => {
    await using scene = await startScene('registrar: { heartbeat_file: /proc/nowhere/heartbeat }\n');
    const { host } = scene;

    await host.untilLogged('cannot touch the heartbeat file');
    await sleep(2_500);

    assert.equal(host.logged('cannot touch the heartbeat file').length, 1);
    await done(host, 'drain', 'web', '--wait');
  });

  test('hears as systemd that the registrar is ready, reloads, lives and stops, though the registry is away', () =>
    inDirectory(async (directory) => {
      await using init = await startInitSystem(directory);
      await using host = await createRegistrarHost();
      await host.write('web', 'service: web\nregister: { port: 8001 }\n');
      await host.zookeeper.close();
      const words = () => init.messages().map((lines) => lines.join(' '));
      const heard = (pattern: RegExp, count = 1) =>
        eventually(
          () => {
            const found = words().filter((word) => pattern.test(word));
            assert.ok(found.length >= count, `${pattern} not heard ${count} times: ${words().join(' | ')}`);
          },
          { withinMs: 30_000 },
        );

      const daemon = host.start({ NOTIFY_SOCKET: init.socket, WATCHDOG_USEC: '4000000' });
      await heard(/^READY=1$/);
      await answers(host);
      await heard(/^STATUS=1 service: 1 not confirmed$/);
      await heard(/^WATCHDOG=1$/, 3);
      await host.write('api', 'service: api\nregister: { port: 8002 }\n');
      await heard(/^STATUS=2 services: 2 not confirmed$/);
      daemon.kill('SIGHUP');
      await heard(/^READY=1$/, 2);
      daemon.kill('SIGTERM');
      await heard(/^STOPPING=1 EXTEND_TIMEOUT_USEC=\d+$/);

      const order = words().filter((word) => /^(READY|RELOADING|STOPPING)/.test(word));
      assert.match(
        order.join(' | '),
        /^READY=1 \| RELOADING=1 MONOTONIC_USEC=\d+ \| READY=1 \| STOPPING=1 EXTEND_TIMEOUT_USEC=\d+$/,
      );
    }));

  test('hears nothing in the name of the registrar from what its checks start', () =>
    inDirectory(async (directory) => {
      await using init: FakeInitSystem = await startInitSystem(directory);
      await using host = await createRegistrarHost();
      const file = path.join(host.directory, 'environment');
      await host.write(
        'web',
        `service: web\nregister:\n  port: 8001\n  checks: [{ command: { command: [sh, -c, 'env > ${file}'], interval: 100ms, timeout: 10s } }]\n`,
      );
      host.start({ NOTIFY_SOCKET: init.socket, WATCHDOG_USEC: '30000000' });
      await host.becomes('web', [8001]);

      assert.doesNotMatch(await readFile(file, 'utf8'), /NOTIFY_SOCKET|WATCHDOG/);
    }));
});

describe('a registrar that is asked to end', { timeout: 240_000 }, () => {
  const delay = (time: string) => `registrar: { shutdown_delay: ${time} }\n`;

  test('withdraws, and stays with its checks for those who still use its services', async () => {
    await using scene = await startScene(delay('1h'));
    const { host, origin, daemon } = scene;

    daemon.kill('SIGTERM');
    await host.becomes('web', []);
    await host.untilLogged('withdrawn, waiting for requests that are under way');
    const before = origin.answered();
    await eventually(() => assert.ok(origin.answered() > before + 2, 'the checks have stopped'));
    assert.match(await done(host, 'services'), /^web .* up +no +10 +drained for the end of the daemon$/m);
    assert.equal(daemon.exitCode, null);
    // By somebody who does not want to wait.
    await host.end(daemon, 'SIGTERM');

    assert.equal(daemon.exitCode, 0);
    assert.equal(host.logged('stopped').length, 1);
    assert.equal(existsSync(path.join(host.directory, 'run', 'registrar.sock')), false);
    assert.deepEqual(host.seen('web'), []);
  });

  test('ends when the delay is over', async () => {
    await using scene = await startScene(delay('1500ms'));
    const { host, daemon } = scene;

    await host.end(daemon, 'SIGTERM');

    assert.equal(daemon.exitCode, 0);
    const at = (message: string) => Date.parse(String(host.logged(message)[0]?.['time']));
    const waitedMs = at('stopped') - at('withdrawn, waiting for requests that are under way');
    assert.ok(waitedMs >= 1_490, `it has waited only ${waitedMs} ms`);
    await host.becomes('web', []);
  });

  test('costs nobody a request, though its services end with it', async () => {
    await using scene = await startScene(delay('1500ms'));
    const { host, origin, daemon } = scene;
    const other = await startHttpOrigin();
    await using neighbour = await createRegistrarHost('', { name: 'n', zookeeper: host.zookeeper });
    await using client = await createDiscoveryHost('', host.zookeeper.connectString);
    try {
      await neighbour.write('web', `service: web\nregister: { port: ${other.port}, checks: [${CHECK}] }\n`);
      neighbour.start();
      const port = await freePort();
      await client.write('web', `service: web\ndiscover: { listen: ${port}, mode: http }\n`);
      client.start();
      await client.becomes('web', [origin.port, other.port]);
      await using load = startLoad({ port, perSecond: 100 });
      await eventually(() => assert.ok(load.sent() > 50));

      await host.end(daemon, 'SIGTERM');
      // As a service does that is stopped after its registrar, in the middle of everything.
      await origin.close();
      const before = load.sent();
      await eventually(() => assert.ok(load.sent() > before + 100));
      const answers = await load.stop();

      assert.deepEqual(load.failures, []);
      assert.deepEqual([...answers.keys()].toSorted(), [String(origin.port), String(other.port)].toSorted());
      assert.deepEqual(client.reloads(), []);
    } finally {
      await other.close();
    }
  });

  test('by SIGUSR2 leaves everything to its successor, without any delay', async () => {
    await using scene = await startScene(delay('1h'));
    const { host, origin, daemon } = scene;

    await host.end(daemon, 'SIGUSR2');
    host.start();
    await answers(host);
    await eventually(async () => assert.equal((await stateOf(host, 'web'))['announced'], true));

    assert.deepEqual(host.history('web'), [String(origin.port)]);
  });

  test('while the registry is away does so all the same', async () => {
    await using scene = await startScene();
    const { host, daemon } = scene;
    await host.zookeeper.close();

    const startedAt = performance.now();
    await host.end(daemon, 'SIGTERM');

    assert.equal(daemon.exitCode, 0);
    assert.ok(performance.now() - startedAt < 25_000);
  });
});
