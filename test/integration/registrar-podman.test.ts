// A whole registrar, the daemon itself, in front of real containers: Podman runs them and answers the Docker API.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import type { Instance } from '@tandem/core';
import { startEmbeddedZooKeeper } from '@tandem/embedded-zookeeper';

import { eventually } from '../support/eventually.ts';
import { freePort } from '../support/haproxy.ts';
import { startPodman } from '../support/podman.ts';
import { noSurprises, openTestRegistry } from '../support/registries.ts';
import { root } from '../support/tandem.ts';

noSurprises();

const SLOW = { withinMs: 30_000 };

/** An HTTP server on a port of the loopback. */
function server(port: number): string[] {
  const program = `require('node:http').createServer((_, response) => response.end('ok')).listen(${port}, '127.0.0.1')`;
  return [process.execPath, '--eval', program];
}

function labelled(port: number): string[] {
  const labels = {
    service: 'web',
    port: String(port),
    'labels.version': '1.4.2',
    'check.http.path': '/',
    'check.http.interval': '100ms',
  };
  return Object.entries(labels).flatMap(([key, value]) => ['--label', `tandem.${key}=${value}`]);
}

test(
  'real containers are announced while they run and are well, whatever restarts',
  { timeout: 180_000 },
  async () => {
    await using podman = await startPodman();
    await using zookeeper = await startEmbeddedZooKeeper();
    const directory = mkdtempSync(path.join(tmpdir(), 'tandem-registrar-'));
    const configFile = path.join(directory, 'tandem.yaml');
    mkdirSync(path.join(directory, 'services.d'));
    writeFileSync(
      configFile,
      `host: { name: i-1, address: 127.0.0.1 }
registry: { zookeeper: { servers: ["127.0.0.1:${zookeeper.port}"], session_timeout: 8s } }
state_dir: state
haproxy: { runtime_socket: haproxy.sock, config_file: haproxy.cfg }
registrar: { docker: { api: "unix://${podman.socketPath}", resync: 10m, hold: 2s } }
`,
    );
    const observer = await openTestRegistry(zookeeper.port);
    const controller = new AbortController();
    const history: (readonly Instance[])[] = [];
    const observed = (async () => {
      for await (const { instances } of observer.watch('/services/web', controller.signal))
        history.push(instances);
    })();
    const announces = (...ports: readonly number[]) =>
      eventually(() => assert.equal(listed(history.at(-1)?.map(({ port }) => port)), listed(ports)), SLOW);
    let daemon = startDaemon(configFile);
    try {
      const [first, second] = [await freePort(), await freePort()];
      await announces();
      await podman.start('web-1', labelled(first), server(first));
      await announces(first);
      assert.deepEqual(history.at(-1), [
        { name: 'i-1', host: '127.0.0.1', port: first, labels: { version: '1.4.2' } },
      ]);

      const health = ['--health-cmd', '["/usr/bin/test", "-e", "/tmp/well"]', '--health-retries', '1'];
      await podman.start(
        'web-2',
        [...labelled(second), ...health, '--health-interval', 'disable'],
        server(second),
      );
      await eventually(
        async () => assert.equal((await fetch(`http://127.0.0.1:${second}/`)).status, 200),
        SLOW,
      );
      await announces(first);
      await podman.command('exec', 'web-2', '/usr/bin/touch', '/tmp/well');
      await podman.command('healthcheck', 'run', 'web-2');
      await announces(first, second);
      await podman.command('exec', 'web-2', '/usr/bin/rm', '/tmp/well');
      await assert.rejects(podman.command('healthcheck', 'run', 'web-2'));
      await announces(first);
      await podman.command('exec', 'web-2', '/usr/bin/touch', '/tmp/well');
      await podman.command('healthcheck', 'run', 'web-2');
      await announces(first, second);

      await podman.command('pause', 'web-1');
      await announces(second);
      await podman.command('unpause', 'web-1');
      await announces(first, second);

      // A restart of the registrar while nobody answers for the containers.
      const before = history.length;
      await podman.endService();
      daemon.kill('SIGKILL');
      await once(daemon, 'exit');
      daemon = startDaemon(configFile);
      await eventually(
        () => assert.equal(zookeeper.sessions().filter(({ connected }) => connected).length, 2),
        SLOW,
      );
      await sleep(3_000);
      assert.equal(history.length, before, 'nothing has changed');
      await podman.startService();
      await podman.command('kill', 'web-1');
      await announces(second);
      await podman.command('rm', '--force', '--time', '0', 'web-2');
      await announces();
      for (const instances of history.slice(before))
        assert.ok(instances.length < 2, 'only what died has gone');

      await podman.start('web-3', labelled(first), server(first));
      await announces(first);
      daemon.kill('SIGTERM');
      await once(daemon, 'exit');
      await announces();
    } finally {
      if (daemon.exitCode === null && daemon.signalCode === null) {
        daemon.kill('SIGKILL');
        await once(daemon, 'exit');
      }
      controller.abort();
      await observed;
      await observer.close();
      rmSync(directory, { recursive: true, force: true });
    }
  },
);

function listed(ports: readonly number[] | undefined): string | undefined {
  return ports?.toSorted((a, b) => a - b).join(' ');
}

function startDaemon(configFile: string): ChildProcess {
  const main = path.join(root, 'packages', 'cli', 'dist', 'main.js');
  return spawn(process.execPath, ['--enable-source-maps', main, 'register', '--config', configFile], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
}
