// What every way of having a HAProxy keeps, on a real one: ours, or somebody else's by its master socket or a command.
import assert from 'node:assert/strict';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';

import type { HaproxyConfig } from '@tandem/discovery';
import {
  createHaproxyProcess,
  createWorkers,
  type HaproxyProcess,
  readIdentity,
  reloadTo,
} from '@tandem/discovery/testing';

import {
  createHaproxyWorld,
  eventually,
  freePort,
  type HaproxyWorld,
  isRunning,
} from '../support/haproxy.ts';

export interface ProcessKind {
  readonly name: string;
  readonly settings: (directory: string) => Record<string, unknown>;
  /** Makes a HAProxy run on the file, whoever has to start it. */
  readonly begin: (world: HaproxyWorld, haproxy: HaproxyProcess) => Promise<void>;
  /** Whether the end of the daemon may be the end of HAProxy. */
  readonly isOurs: boolean;
}

const timeout = 60_000;
const signal = new AbortController().signal;

interface Scene {
  readonly world: HaproxyWorld;
  readonly config: HaproxyConfig;
  readonly haproxy: HaproxyProcess;
  /** Makes the file one that shows this mark, with more lines in its global section. */
  readonly write: (mark: string, ...globalLines: string[]) => Promise<void>;
  readonly begin: () => Promise<void>;
  /** Writes a structure, and has HAProxy load it. */
  readonly reload: (mark: string, ...globalLines: string[]) => Promise<void>;
  readonly mark: () => Promise<string>;
}

function scenario(kind: ProcessKind, name: string, body: (scene: Scene) => Promise<void>): void {
  test(name, { timeout }, async () => {
    const world = await createHaproxyWorld(kind.settings);
    const port = await freePort();
    const { config, log } = world;
    const haproxy = createHaproxyProcess(config, { log, onExit: () => {} });
    const workers = createWorkers(config.runtimeSocket);
    const write = (mark: string, ...globalLines: string[]) =>
      writeFile(
        config.configFile,
        [
          'global',
          `  description ${mark}`,
          `  stats socket ${config.runtimeSocket} mode 660 level admin expose-fd listeners`,
          ...globalLines.map((line) => `  ${line}`),
          'defaults',
          '  timeout connect 1s',
          '  timeout client 1s',
          '  timeout server 1s',
          'listen web',
          `  bind 127.0.0.1:${port}`,
          '',
        ].join('\n'),
      );
    try {
      await body({
        world,
        config,
        haproxy,
        write,
        begin: () => kind.begin(world, haproxy),
        async reload(mark, ...globalLines) {
          const before = await workers.identity(signal);
          await write(mark, ...globalLines);
          await reloadTo(mark, before, {
            process: haproxy,
            workers,
            deadlineMs: config.reloadDeadlineMs,
            signal,
          });
          workers.replace(before.incarnation);
        },
        mark: async () => (await readIdentity(config.runtimeSocket)).mark,
      });
    } catch (error) {
      process.stderr.write(`${world.entries.map((entry) => JSON.stringify(entry)).join('\n')}\n`);
      throw error;
    } finally {
      await haproxy.stop(0);
      await world.end();
    }
  });
}

export function testHaproxyProcess(kind: ProcessKind): void {
  describe(`HAProxy as ${kind.name}`, () => {
    scenario(
      kind,
      'a file is taken, or refused with what is wrong with it',
      async ({ config, haproxy, write }) => {
        await write('tandem 1');
        assert.equal(await haproxy.check(config.configFile, signal), undefined);
        await write('tandem 1', 'no-such-keyword');
        assert.match((await haproxy.check(config.configFile, signal)) ?? '', /\[ALERT\].*no-such-keyword/);
        await writeFile(config.configFile, '');
        assert.notEqual(await haproxy.check(config.configFile, signal), undefined);
      },
    );

    scenario(kind, 'a missing program is named', async ({ world, write }) => {
      await write('tandem 1');
      const binary = path.join(world.directory, 'nowhere');
      const haproxy = createHaproxyProcess({ ...world.config, binary }, { log: world.log, onExit: () => {} });
      await assert.rejects(haproxy.check(world.config.configFile, signal), { code: 'HAPROXY_MISSING' });
    });

    scenario(
      kind,
      'one that runs is found, also by another daemon',
      async ({ world, haproxy, write, begin }) => {
        await write('tandem 1');
        await begin();
        const worker = await world.workerPid();
        assert.equal(await haproxy.ensure(signal), 'found');
        const second = createHaproxyProcess(world.config, { log: world.log, onExit: () => {} });
        assert.equal(await second.ensure(signal), 'found');
        assert.deepEqual([haproxy.isRunning(), second.isRunning()], [true, true]);
        assert.equal(await world.workerPid(), worker);
      },
    );

    scenario(
      kind,
      'a reload brings a worker with the new file',
      async ({ world, write, begin, reload, mark }) => {
        await write('tandem 1');
        await begin();
        const worker = await world.workerPid();
        await reload('tandem 2');
        assert.equal(await mark(), 'tandem 2');
        assert.notEqual(await world.workerPid(), worker);
      },
    );

    scenario(
      kind,
      'reloads back to back end with the newest file',
      async ({ write, begin, reload, mark }) => {
        await write('tandem 0');
        await begin();
        for (let round = 1; round <= 8; round += 1) {
          await reload(`tandem ${round}`);
          assert.equal(await mark(), `tandem ${round}`);
        }
      },
    );

    scenario(
      kind,
      'a file that cannot be loaded is told, what ran goes on, and a better one is loaded then',
      async ({ world, write, begin, reload, mark }) => {
        await write('tandem 1');
        await begin();
        const worker = await world.workerPid();
        await assert.rejects(reload('tandem 2', 'stats socket /nowhere/at/all.sock'), {
          code: 'HAPROXY_RELOAD_FAILED',
        });
        assert.deepEqual([await mark(), await world.workerPid()], ['tandem 1', worker]);
        await reload('tandem 3');
        assert.equal(await mark(), 'tandem 3');
      },
    );

    scenario(kind, 'a wait that is called off ends at once', async ({ config, haproxy, write, begin }) => {
      await write('tandem 1');
      await begin();
      await haproxy.ensure(signal);
      const controller = new AbortController();
      const asked = haproxy.requestReload(controller.signal);
      controller.abort(new Error('called off'));
      await assert.rejects(asked, /^Error: called off$/);
      await eventually(() => readIdentity(config.runtimeSocket));
    });

    scenario(
      kind,
      kind.isOurs ? 'its stop is the end of HAProxy' : 'its stop leaves HAProxy to its owner',
      async ({ world, haproxy, write, begin }) => {
        await write('tandem 1');
        await begin();
        const pid = await world.masterPid();
        await haproxy.tidy();
        await haproxy.stop(10_000);
        assert.equal(isRunning(pid), !kind.isOurs);
      },
    );

    scenario(kind, 'a directory that has vanished is no reason to fail but to say so', async (scene) => {
      const { config, haproxy, world } = scene;
      await rm(path.dirname(config.configFile), { recursive: true });
      if (kind.isOurs) await assert.rejects(haproxy.ensure(signal));
      else assert.equal(await haproxy.ensure(signal), 'absent');
      await mkdir(path.dirname(config.configFile));
      await scene.write('tandem 1');
      await scene.begin();
      assert.equal(await haproxy.ensure(signal), 'found');
      assert.equal(world.logged('HAProxy has ended').length, 0);
    });
  });
}
