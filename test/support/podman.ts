// Podman from the distribution, with storage of its own in a directory of the test: what else runs on this machine is not
// seen and not touched. Containers have the network of the host, and its /usr to run programs from.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { eventually } from './eventually.ts';
import { askUnix } from './http-backend.ts';
import { run } from './tandem.ts';

export interface Podman extends AsyncDisposable {
  readonly socketPath: string;
  /** Runs a command of podman, which must succeed, and resolves with what it says. */
  command(...args: readonly string[]): Promise<string>;
  /** Starts a container that runs a program of this host. */
  start(name: string, options: readonly string[], program: readonly string[]): Promise<void>;
  /** What its API answers. */
  ask(path: string): Promise<unknown>;
  startService(): Promise<void>;
  endService(): Promise<void>;
}

const PROGRAM = 'podman';
const IMAGE = 'localhost/tandem-test:1';
/** Podman would raise the limits of its containers, which not every root may do. */
const LIMITS = ['--ulimit', 'nofile=1024:1024', '--ulimit', 'nproc=1024:1024'];

/** Needs root, podman and runc: without them it throws, nothing real is ever skipped. */
export async function startPodman(): Promise<Podman> {
  const directory = mkdtempSync(path.join(tmpdir(), 'tandem-podman-'));
  const socketPath = path.join(directory, 'podman.sock');
  const place = ['--root', path.join(directory, 'root'), '--runroot', path.join(directory, 'run')];
  // runc runs wherever cgroups are of an old, a new or a mixed kind.
  const settings = ['--storage-driver', 'vfs', '--cgroup-manager', 'cgroupfs', '--events-backend', 'file'];
  const global = [...place, '--tmpdir', path.join(directory, 'tmp'), ...settings, '--runtime', 'runc'];
  let service: ChildProcess | undefined;

  async function command(...args: readonly string[]): Promise<string> {
    const { code, stdout, stderr } = await run(PROGRAM, [...global, ...args], { limitMs: 60_000 });
    assert.equal(code, 0, `podman ${args.join(' ')}: ${stderr}`);
    return stdout.trim();
  }
  const podman: Podman = {
    socketPath,
    command,
    async start(name, options, program) {
      const mounts = [...new Set(['/usr', path.dirname(process.execPath)])].filter(
        (mount, index) => index === 0 || !mount.startsWith('/usr/'),
      );
      const volumes = mounts.flatMap((mount) => ['--volume', `${mount}:${mount}:ro`]);
      const fixed = ['--detach', '--network', 'host', '--name', name, ...LIMITS, ...volumes];
      await command('run', ...fixed, ...options, IMAGE, ...program);
    },
    ask: (where) => askUnix(socketPath, where),
    async startService() {
      service = spawn(PROGRAM, [...global, 'system', 'service', '--time=0', `unix://${socketPath}`], {
        stdio: 'ignore',
      });
      await eventually(() => podman.ask('/version'), { withinMs: 30_000 });
    },
    async endService() {
      const ending = service;
      service = undefined;
      if (ending === undefined) return;
      const ended = once(ending, 'exit');
      ending.kill('SIGKILL');
      await ended;
      rmSync(socketPath, { force: true });
    },
    async [Symbol.asyncDispose]() {
      try {
        await command('rm', '--all', '--force', '--time', '0');
      } finally {
        await podman.endService();
        rmSync(directory, { recursive: true, force: true });
      }
    },
  };
  await command('import', '--quiet', await makeImage(directory), IMAGE);
  await podman.startService();
  return podman;
}

/** Directories to mount things at, and nothing else. */
async function makeImage(directory: string): Promise<string> {
  const root = path.join(directory, 'image');
  for (const name of ['usr', 'tmp', 'proc', 'sys', 'dev', 'etc', 'run'])
    mkdirSync(path.join(root, name), { recursive: true });
  for (const name of ['bin', 'lib', 'lib64']) symlinkSync(`usr/${name}`, path.join(root, name));
  const file = path.join(directory, 'image.tar');
  const { code, stderr } = await run('tar', ['-C', root, '-cf', file, '.']);
  assert.equal(code, 0, stderr);
  return file;
}
