// A host with the real discovery daemon as a child process, a real HAProxy, and origins behind it. No registry needed
// where the services say themselves where their instances are.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { readMasterPid, readRunning } from '@tandem/discovery';

import { eventually } from './eventually.ts';
import { type Finished, root, tandem } from './tandem.ts';

const PLAIN_BUILD = [path.join(root, 'packages', 'cli', 'dist', 'main.js'), 'discover'];

export interface DiscoveryHost extends AsyncDisposable {
  readonly directory: string;
  readonly config: string;
  readonly servicesDir: string;
  readonly runtimeSocket: string;
  /** The text of the host file, for another one. */
  readonly hostFile: string;
  write(name: string, text: string): Promise<void>;
  remove(name: string): Promise<void>;
  /** Starts a daemon, by default on the host file, and that of the plain build. */
  start(config?: string, program?: readonly string[], env?: NodeJS.ProcessEnv): ChildProcess;
  end(daemon: ChildProcess, signal: NodeJS.Signals): Promise<void>;
  /** The lines of every daemon's log with this message. */
  logged(message: string): Record<string, unknown>[];
  /** A command against this host. */
  command(...args: string[]): Promise<Finished>;
  /** What HAProxy sends requests to, as sorted ports. */
  ports(backend: string): Promise<number[]>;
  becomes(backend: string, ports: readonly number[]): Promise<void>;
  worker(): Promise<string>;
  masterPid(): Promise<number>;
  /** Kills every process of HAProxy, and waits until they are gone. */
  killHaproxy(): Promise<void>;
  reloads(): string[];
}

/** @param zookeeper where its registry is; without it, the services have sources of their own */
export async function createDiscoveryHost(more = '', zookeeper?: string): Promise<DiscoveryHost> {
  const registry =
    zookeeper === undefined ? 'memory: {}' : `zookeeper: { servers: ['${zookeeper}'], session_timeout: 6s }`;
  const directory = await mkdtemp(path.join(tmpdir(), 'tandem-host-'));
  const servicesDir = path.join(directory, 'services.d');
  await mkdir(servicesDir);
  const hostFile = `host: { name: h, address: 127.0.0.1, labels: { zone: a } }
registry: { ${registry} }
state_dir: state
discovery: { control: run/discovery.sock }
haproxy:
  config_file: run/haproxy.cfg
  runtime_socket: run/haproxy.sock
${more}`;
  const config = path.join(directory, 'tandem.yaml');
  await writeFile(config, hostFile);
  return new Host(directory, config, hostFile);
}

class Host implements DiscoveryHost {
  readonly directory: string;
  readonly config: string;
  readonly hostFile: string;
  readonly servicesDir: string;
  readonly runtimeSocket: string;
  readonly #children = new Set<ChildProcess>();

  constructor(directory: string, config: string, hostFile: string) {
    this.directory = directory;
    this.config = config;
    this.hostFile = hostFile;
    this.servicesDir = path.join(directory, 'services.d');
    this.runtimeSocket = path.join(directory, 'run', 'haproxy.sock');
  }

  write(name: string, text: string): Promise<void> {
    return writeFile(path.join(this.servicesDir, `${name}.yaml`), text);
  }

  remove(name: string): Promise<void> {
    return rm(path.join(this.servicesDir, `${name}.yaml`));
  }

  start(
    config = this.config,
    program: readonly string[] = PLAIN_BUILD,
    env: NodeJS.ProcessEnv = {},
  ): ChildProcess {
    const output = openSync(path.join(this.directory, 'discover.log'), 'a');
    const child = spawn(process.execPath, ['--enable-source-maps', ...program, '--config', config], {
      stdio: ['ignore', output, output],
      env: { ...process.env, ...env },
    });
    closeSync(output);
    this.#children.add(child);
    child.once('exit', () => this.#children.delete(child));
    return child;
  }

  async end(daemon: ChildProcess, signal: NodeJS.Signals): Promise<void> {
    if (daemon.exitCode !== null || daemon.signalCode !== null) return;
    const gone = once(daemon, 'exit');
    daemon.kill(signal);
    await gone;
  }

  logged(message: string): Record<string, unknown>[] {
    return readFileSync(path.join(this.directory, 'discover.log'), 'utf8')
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as Record<string, unknown>)
      .filter((entry) => entry['msg'] === message);
  }

  command(...args: string[]): Promise<Finished> {
    return tandem(args.includes('--config') ? args : [...args, '--config', this.config]);
  }

  async ports(backend: string): Promise<number[]> {
    const { backends } = await readRunning(this.runtimeSocket);
    return [...(backends.get(backend)?.values() ?? [])]
      .filter((server) => server.state === 'ready')
      .map(({ port }) => port)
      .toSorted((a, b) => a - b);
  }

  becomes(backend: string, ports: readonly number[]): Promise<void> {
    const wanted = ports.toSorted((a, b) => a - b).join();
    return eventually(
      async () => {
        const have = (await this.ports(backend)).join();
        if (have !== wanted) throw new Error(`${backend} has [${have}] instead of [${wanted}]`);
      },
      { withinMs: 30_000 },
    );
  }

  async worker(): Promise<string> {
    return (await readRunning(this.runtimeSocket)).incarnation;
  }

  masterPid(): Promise<number> {
    return eventually(() => readMasterPid(path.join(this.directory, 'run', 'haproxy-master.sock')));
  }

  killHaproxy(): Promise<void> {
    return eventually(() => {
      const pids = this.#haproxyPids();
      for (const pid of pids) kill(pid);
      if (pids.length > 0) throw new Error(`HAProxy ${pids.join()} does not end`);
    });
  }

  reloads(): string[] {
    return this.logged('reloading HAProxy').map(({ reason }) => JSON.stringify(reason));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#children) await this.end(child, 'SIGKILL');
    await this.killHaproxy();
    await rm(this.directory, { recursive: true, force: true });
  }

  /** Every HAProxy that runs on this host's files. */
  #haproxyPids(): number[] {
    return readdirSync('/proc')
      .filter((entry) => /^\d+$/.test(entry))
      .filter((pid) => readOrNothing(`/proc/${pid}/cmdline`).includes(`${this.directory}/run/`))
      .filter((pid) => !/^\d+ \(.*\) [ZX]/s.test(readOrNothing(`/proc/${pid}/stat`)))
      .map(Number);
  }
}

function readOrNothing(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has gone by itself.
  }
}
