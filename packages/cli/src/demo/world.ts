import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { readMasterPid } from '@tandem/discovery';

/** How often the demo's registrar probes, and how many failures take an instance out. */
export const CHECK = { intervalMs: 200, rise: 1, fall: 2 } as const;

/** A complete host on one machine: its files, its daemons, its instances. Everything is ended by pid. */
export interface World {
  readonly directory: string;
  /** The full path of the instances in ZooKeeper. */
  readonly registryPath: string;
  readonly port: number;
  readonly runtimeSocket: string;
  startInstance(name: string): Promise<number>;
  portOf(name: string): number;
  /** Sends a signal to an instance and resolves when it is gone. */
  signalInstance(name: string, signal: NodeJS.Signals): Promise<void>;
  writeInstanceFile(name: string): Promise<void>;
  removeInstanceFile(name: string): Promise<void>;
  writeServiceFile(options: { balance: string }): Promise<void>;
  startDaemon(name: Daemon): void;
  isDaemonAlive(name: Daemon): boolean;
  /** Resolves when it is gone. */
  killDaemon(name: Daemon, signal?: NodeJS.Signals): Promise<void>;
  haproxyPid(): Promise<number | undefined>;
  /** The reasons of every reload so far, as the discovery daemon has logged them. */
  reloadReasons(): Promise<string[]>;
  log(name: Daemon): string;
  /** Ends everything; `keepFiles` leaves the directory for a look. */
  end(options: { keepFiles: boolean }): Promise<void>;
}

export type Daemon = 'register' | 'discover';

const CHROOT = `/tandem-demo-${process.pid}`;

/** @param zookeeper where it is, as HOST:PORT */
export async function createWorld(zookeeper: string): Promise<World> {
  const directory = await mkdtemp(path.join(tmpdir(), 'tandem-demo-'));
  await mkdir(path.join(directory, 'services.d'));
  await mkdir(path.join(directory, 'run'));
  const world = new DemoWorld(directory, await freePort());
  const host = `# The host file of the demo
host: { name: demo-host, address: 127.0.0.1, labels: { zone: here } }
registry: { zookeeper: { servers: ["${zookeeper}"], chroot: ${CHROOT}, session_timeout: 4s } }
state_dir: state
haproxy: { config_file: run/haproxy.cfg, runtime_socket: run/haproxy.sock }
`;
  await writeFile(path.join(directory, 'tandem.yaml'), host);
  return world;
}

class DemoWorld implements World {
  readonly directory: string;
  readonly registryPath = `${CHROOT}/services/web`;
  readonly port: number;
  readonly runtimeSocket: string;
  readonly #masterSocket: string;
  readonly #main = path.join(import.meta.dirname, '..', 'main.js');
  readonly #toy = path.join(import.meta.dirname, 'toy-service.js');
  readonly #instances = new Map<string, { port: number; child: ChildProcess | undefined }>();
  readonly #daemons = new Map<Daemon, ChildProcess>();
  readonly #children = new Set<ChildProcess>();

  constructor(directory: string, port: number) {
    this.directory = directory;
    this.port = port;
    this.runtimeSocket = path.join(directory, 'run', 'haproxy.sock');
    this.#masterSocket = path.join(directory, 'run', 'haproxy-master.sock');
  }

  async startInstance(name: string): Promise<number> {
    const port = this.#instances.get(name)?.port ?? (await freePort());
    const child = this.#spawn([this.#toy, String(port)], 'instances.log');
    this.#instances.set(name, { port, child });
    await accepts(port);
    return performance.now();
  }

  portOf(name: string): number {
    const instance = this.#instances.get(name);
    if (instance === undefined) throw new Error(`the demo has no instance ${name}`);
    return instance.port;
  }

  async signalInstance(name: string, signal: NodeJS.Signals): Promise<void> {
    await endChild(this.#instances.get(name)?.child, signal);
  }

  async writeInstanceFile(name: string): Promise<void> {
    const { intervalMs, rise, fall } = CHECK;
    const text = `service: ${name}
path: /services/web
register:
  port: ${this.portOf(name)}
  checks:
    - http: { path: /health, interval: ${intervalMs}ms, timeout: 150ms, rise: ${rise}, fall: ${fall} }
`;
    await writeFile(this.#serviceFile(name), text);
  }

  removeInstanceFile(name: string): Promise<void> {
    return rm(this.#serviceFile(name));
  }

  async writeServiceFile({ balance }: { balance: string }): Promise<void> {
    const text = `service: web
discover:
  listen: 127.0.0.1:${this.port}
  mode: http
  balance: ${balance}
`;
    await writeFile(this.#serviceFile('web'), text);
  }

  startDaemon(name: Daemon): void {
    const config = path.join(this.directory, 'tandem.yaml');
    this.#daemons.set(
      name,
      this.#spawn(['--enable-source-maps', this.#main, name, '--config', config], `${name}.log`),
    );
  }

  isDaemonAlive(name: Daemon): boolean {
    const child = this.#daemons.get(name);
    return child !== undefined && isRunning(child);
  }

  killDaemon(name: Daemon, signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    return endChild(this.#daemons.get(name), signal);
  }

  haproxyPid(): Promise<number | undefined> {
    return readMasterPid(this.#masterSocket).catch(() => undefined);
  }

  async reloadReasons(): Promise<string[]> {
    const text = await readFile(this.log('discover'), 'utf8').catch(() => '');
    return [...text.matchAll(/"reason":\{"kind":"([^"]+)"[^\n]*"msg":"reloading HAProxy"/g)].map(
      (match) => match[1] ?? '',
    );
  }

  log(name: Daemon): string {
    return path.join(this.directory, `${name}.log`);
  }

  async end({ keepFiles }: { keepFiles: boolean }): Promise<void> {
    for (const name of ['discover', 'register'] as const)
      await endChild(this.#daemons.get(name), 'SIGTERM', 3_000);
    for (const pid of await this.#haproxyPids()) process.kill(pid, 'SIGTERM');
    await Promise.all([...this.#children].map((child) => endChild(child, 'SIGKILL')));
    if (!keepFiles) await rm(this.directory, { recursive: true, force: true });
  }

  /**
   * Every HAProxy of this world that still lives. Its master socket may be silent at this moment, so the pids come from
   * the daemon's log, and count only if their command line is of this world.
   */
  async #haproxyPids(): Promise<number[]> {
    const text = await readFile(this.log('discover'), 'utf8').catch(() => '');
    const logged = new Set([...text.matchAll(/"haproxyPid":(\d+)/g)].map((match) => Number(match[1])));
    const commands = await Promise.all(
      [...logged].map(
        async (pid) => [pid, await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')] as const,
      ),
    );
    return commands.filter(([, command]) => command.includes(this.directory)).map(([pid]) => pid);
  }

  #serviceFile(name: string): string {
    return path.join(this.directory, 'services.d', `${name}.yaml`);
  }

  #spawn(args: readonly string[], logName: string): ChildProcess {
    const output = openSync(path.join(this.directory, logName), 'a');
    const child = spawn(process.execPath, args, { stdio: ['ignore', output, output] });
    closeSync(output);
    this.#children.add(child);
    child.once('exit', () => this.#children.delete(child));
    return child;
  }
}

function isRunning(child: ChildProcess): boolean {
  return child.exitCode === null && child.signalCode === null;
}

async function endChild(
  child: ChildProcess | undefined,
  signal: NodeJS.Signals,
  graceMs?: number,
): Promise<void> {
  if (child === undefined || !isRunning(child)) return;
  const gone = once(child, 'exit');
  child.kill(signal);
  const timer = graceMs === undefined ? undefined : setTimeout(() => child.kill('SIGKILL'), graceMs);
  await gone;
  clearTimeout(timer);
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = net.createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as net.AddressInfo;
      server.close(() => resolve(port));
    });
  });
}

async function accepts(port: number): Promise<void> {
  for (let attempt = 0; attempt < 500; attempt += 1) {
    const isOpen = await new Promise<boolean>((resolve) => {
      const socket = net.connect(port, '127.0.0.1');
      socket.once('connect', () => resolve(true));
      socket.once('error', () => resolve(false));
      socket.once('connect', () => socket.destroy());
    });
    if (isOpen) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`nothing listens on port ${port}`);
}
