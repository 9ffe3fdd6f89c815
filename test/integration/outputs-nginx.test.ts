// The template output keeps a real NGINX routing: the example from deploy/examples, under load.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import type { Instance } from '@tandem/core';
import { createTemplateOutput, type Offers, TemplateSection } from '@tandem/discovery/testing';

import { eventually, freePort, type LogEntry, recordingLog, service } from '../support/haproxy.ts';
import { ask, type Load, startLoad } from '../support/load.ts';
import { startHttpOrigin } from '../support/origin.ts';
import { root } from '../support/tandem.ts';

const BINARY = '/usr/sbin/nginx';
const EXAMPLE = path.join(root, 'deploy', 'examples', 'templates', 'nginx.conf.hbs');
const CANNOT = 'cannot bring the target of a template up to date, trying again';

interface NginxWorld {
  readonly template: string;
  readonly target: string;
  readonly entries: LogEntry[];
  offer(instances: readonly Instance[]): void;
  logged(message: string): LogEntry[];
  /** Resolves once exactly these ports answer. */
  answers(ports: readonly number[]): Promise<void>;
  workers(): Promise<readonly string[]>;
  /** Ends the output and starts a successor. */
  restart(): Promise<void>;
}

/** The example with the paths of this test. */
async function exampleFor(directory: string): Promise<string> {
  const text = await readFile(EXAMPLE, 'utf8');
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((name) => `  ${name}_temp_path ${directory}/${name};\n`)
    .join('');
  return text
    .replace('/run/nginx.pid', `${directory}/nginx.pid`)
    .replace('/var/log/nginx/error.log warn', `${directory}/error.log notice`)
    .replace('http {\n', `http {\n${temporary}`);
}

async function inNginx(port: number, body: (world: NginxWorld) => Promise<void>): Promise<void> {
  assert.ok(existsSync(BINARY), `${BINARY} is missing: run deploy/setup.sh (it installs nginx-light)`);
  const directory = await mkdtemp(path.join(tmpdir(), 'tandem-nginx-'));
  const target = path.join(directory, 'nginx.conf');
  const template = path.join(directory, 'nginx.conf.hbs');
  const pidFile = path.join(directory, 'nginx.pid');
  const stateDir = path.join(directory, 'state');
  await mkdir(stateDir);
  await writeFile(template, await exampleFor(directory));
  await writeFile(target, `pid ${pidFile};\nerror_log ${directory}/error.log;\nevents {}\nhttp {}\n`);
  const nginx = [BINARY, '-p', directory, '-e', path.join(directory, 'error.log')];
  const config = TemplateSection.parse({
    template,
    target,
    check: [...nginx, '-t', '-q', '-c', '{file}'],
    reload: [...nginx, '-c', target, '-s', 'reload'],
    settle: { quiet: '20ms', max: '200ms' },
  });
  const { log, entries } = recordingLog();
  let stop: () => Promise<void> = () => Promise.resolve();
  let output = createTemplateOutput(config, { stateDir, log });
  function start() {
    output = createTemplateOutput(config, { stateDir, log });
    const controller = new AbortController();
    const ended = output.run(controller.signal);
    stop = () => {
      controller.abort();
      return ended;
    };
  }
  const args = ['-c', target, '-g', 'daemon off; master_process on;'];
  const master = spawn(BINARY, [...nginx.slice(1), ...args], { stdio: 'ignore' });
  try {
    await eventually(() => assert.ok(existsSync(pidFile), 'nginx has started'));
    start();
    await body({
      template,
      target,
      entries,
      offer(instances) {
        const web = service('web', `127.0.0.1:${port}`);
        const offers: Offers = new Map([['web', { service: web, instances, holds: new Map() }]]);
        output.offer(offers);
      },
      logged: (message) => entries.filter((entry) => entry.message === message),
      answers: (ports) =>
        eventually(async () => {
          const seen = new Set<number>();
          for (let round = 0; round < 12; round += 1) seen.add(Number(await ask(port)));
          assert.deepEqual(seen, new Set(ports));
        }),
      workers: () => childrenOf(master),
      async restart() {
        await stop();
        start();
      },
    });
  } finally {
    await stop();
    await end(master);
    await rm(directory, { recursive: true, force: true });
  }
}

async function childrenOf({ pid }: ChildProcess): Promise<readonly string[]> {
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8');
  return children.trim().split(' ');
}

async function end(master: ChildProcess): Promise<void> {
  if (master.exitCode !== null || master.signalCode !== null) return;
  const ended = once(master, 'exit');
  master.kill('SIGTERM');
  await ended;
}

test('no request fails while instances come and go behind NGINX', { timeout: 120_000 }, async () => {
  const port = await freePort();
  const origins = await Promise.all(Array.from({ length: 4 }, () => startHttpOrigin()));
  let load: Load | undefined;
  try {
    await inNginx(port, async (world) => {
      const at = (...indices: number[]) =>
        indices.flatMap((index) => origins.slice(index % 4, (index % 4) + 1));
      const offer = (...indices: number[]) =>
        world.offer(at(...indices).map((origin) => origin.instance(`i${origin.port}`, 2)));
      const portsOf = (...indices: number[]) => at(...indices).map((origin) => origin.port);

      offer(0, 1);
      await world.answers(portsOf(0, 1));
      load = startLoad({ port, perSecond: 100 });
      for (let change = 1; change <= 12; change += 1) {
        // A burst of states that nobody has to see, and the one that stays.
        offer(change);
        offer(change, change + 1, change + 2);
        offer(change, change + 1);
        await world.answers(portsOf(change, change + 1));
      }
      await sleep(300);
      const answers = await load.stop();

      assert.deepEqual(load.failures, []);
      assert.ok(load.sent() > 100, `only ${load.sent()} requests were sent`);
      assert.equal(answers.size, origins.length);
      assert.deepEqual(world.logged(CANNOT), []);
      assert.equal(world.logged('a template has a new target').length, 13, 'bursts are one change each');
    });
  } finally {
    await load?.stop();
    await Promise.all(origins.map((origin) => origin.close()));
  }
});

test('what NGINX refuses is told, and does not become its configuration', { timeout: 120_000 }, async () => {
  const port = await freePort();
  const [one, two] = await Promise.all([startHttpOrigin(), startHttpOrigin()]);
  try {
    await inNginx(port, async (world) => {
      world.offer([one.instance('one')]);
      await world.answers([one.port]);
      const before = await readFile(world.target, 'utf8');

      const good = await readFile(world.template, 'utf8');
      await writeFile(world.template, good.replace('access_log off;', 'acess_log off;'));
      await eventually(() => assert.equal(world.logged(CANNOT).length, 1));
      const { facts } = world.logged(CANNOT)[0] ?? assert.fail();
      assert.equal(facts['code'], 'TEMPLATE_REFUSED');
      assert.match(String(facts['err']), /unknown directive "acess_log"/);
      assert.equal(await readFile(world.target, 'utf8'), before);
      await world.answers([one.port]);

      // One mistake costs only itself: instances go on to come and go with the template from before.
      world.offer([two.instance('two')]);
      await world.answers([two.port]);
      assert.equal(world.logged(CANNOT).length, 1);

      await writeFile(world.template, good.replace('worker_processes auto', 'worker_processes 1'));
      await eventually(() =>
        assert.equal(world.logged('the target of a template is up to date again').length, 1),
      );
      await eventually(async () => assert.equal((await world.workers()).length, 1));
      await world.answers([two.port]);
      const names = await readdir(path.dirname(world.target));
      assert.deepEqual(
        names.filter((name) => name.includes('candidate')),
        [],
      );
    });
  } finally {
    await Promise.all([one.close(), two.close()]);
  }
});

test(
  'hostile announcements do not reach NGINX, and a restart does not reload it',
  { timeout: 120_000 },
  async () => {
    const port = await freePort();
    const origin = await startHttpOrigin();
    try {
      await inNginx(port, async (world) => {
        const hostile: Instance[] = [
          { name: 'x; } server { return 200 hacked; } #', host: '127.0.0.1', port: 1 },
          { name: 'y', host: 'unix:/var/run/docker.sock', port: 1 },
          { name: 'z', host: '0.0.0.0', port: 22 },
          { ...origin.instance('idle'), weight: 0 },
        ];
        const instances = [origin.instance('good'), ...hostile];
        world.offer(instances);
        await world.answers([origin.port]);
        const text = await readFile(world.target, 'utf8');
        assert.deepEqual(text.match(/^ +server [^{\n]*;$/gm), [
          `    server 127.0.0.1:${origin.port} weight=1;`,
        ]);
        assert.equal(world.logged('kept text of the registry out of a template').length, 1);

        const before = await world.workers();
        await world.restart();
        world.offer(instances);
        await eventually(() =>
          assert.equal(world.logged('kept text of the registry out of a template').length, 2),
        );
        await sleep(300);
        const added = (await world.workers()).filter((pid) => !before.includes(pid));
        assert.deepEqual(added, [], 'a reload would have made new workers');
        assert.equal(world.logged('a template has a new target').length, 1);

        // Nobody is left, and that is an answer, too.
        world.offer([]);
        await eventually(() => assert.rejects(ask(port), /status 502/));
      });
    } finally {
      await origin.close();
    }
  },
);
