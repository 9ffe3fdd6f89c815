// A discovery daemon with a real HAProxy, a registry that the test controls, and a log that the test can read.
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { createLatest, type Instance, type Latest, type Log, type Snapshot } from '@tandem/core';
import {
  createDiscovery,
  type Discovery,
  type DiscoveredService,
  DiscoverSection,
  DiscoverySection,
  type HaproxyConfig,
  HaproxySection,
  readMasterPid,
  readRunning,
} from '@tandem/discovery';
import { converse, readIdentity } from '@tandem/discovery/testing';
import type { Registry } from '@tandem/registry';

export { freePort } from './ports.ts';

export const BINARY = '/usr/sbin/haproxy';

export interface LogEntry {
  readonly level: 'debug' | 'info' | 'warn' | 'error';
  readonly facts: Readonly<Record<string, unknown>>;
  readonly message: string;
}

/** A log that keeps what it is told. */
export function recordingLog(): { log: Log; entries: LogEntry[] } {
  const entries: LogEntry[] = [];
  const write = (level: LogEntry['level']) => (facts: Readonly<Record<string, unknown>>, message: string) =>
    void entries.push({ level, facts, message });
  const log: Log = {
    debug: write('debug'),
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
    child: () => log,
  };
  return { log, entries };
}

/** Only `watch`: silent about a path until the test says something of it. */
export interface FakeRegistry extends Registry {
  say(path: string, instances: readonly Instance[]): void;
  /** As a registry that is away: says nothing of a path to those who ask from now on. */
  hush(path: string): void;
  /** Lets every watch of a path throw, once. */
  fail(path: string): void;
  /** How many watches of a path are open. */
  watches(path: string): number;
}

export function createFakeRegistry(): FakeRegistry {
  const known = new Map<string, Snapshot>();
  const mailboxes = new Map<string, Set<Latest<Snapshot | Error>>>();
  const mailboxesOf = (path: string) => mailboxes.get(path) ?? new Set<Latest<Snapshot | Error>>();
  return {
    async *watch(path, signal) {
      const mailbox = createLatest<Snapshot | Error>(signal);
      mailboxes.set(path, mailboxesOf(path).add(mailbox));
      try {
        const first = known.get(path);
        if (first !== undefined) mailbox.set(first);
        for await (const said of mailbox) {
          if (said instanceof Error) throw said;
          yield said;
        }
      } finally {
        mailboxesOf(path).delete(mailbox);
      }
    },
    say(path, instances) {
      const snapshot: Snapshot = { instances, rejected: [] };
      known.set(path, snapshot);
      for (const mailbox of mailboxesOf(path)) mailbox.set(snapshot);
    },
    hush: (path) => void known.delete(path),
    fail(path) {
      for (const mailbox of mailboxesOf(path)) mailbox.set(new Error('the registry is broken'));
    },
    watches: (path) => mailboxesOf(path).size,
    announce: () => {
      throw new Error('nothing is announced in these tests');
    },
    withdrawUnclaimed() {},
    status: { state: 'connected' },
    close: () => Promise.resolve(),
  };
}

/** A daemon in this process. */
export interface Daemon {
  readonly discovery: Discovery;
  /** Rejects when `run` did. */
  stop(): Promise<void>;
}

/** What a daemon is told beside its services and its HAProxy. */
export interface DaemonOptions {
  readonly host?: { readonly name: string; readonly labels: Readonly<Record<string, string>> };
  /** `discovery` of the host file. Without it no loss is implausible: most tests are about what HAProxy does with one. */
  readonly settings?: Record<string, unknown>;
}

export interface HaproxyWorld {
  readonly directory: string;
  readonly stateDir: string;
  readonly config: HaproxyConfig;
  readonly registry: FakeRegistry;
  readonly entries: LogEntry[];
  readonly log: Log;
  /** Starts a daemon on these files; its successor finds what it left. */
  start(
    services: readonly DiscoveredService[],
    config?: Partial<HaproxyConfig>,
    options?: DaemonOptions,
  ): Daemon;
  masterPid(): Promise<number>;
  workerPid(): Promise<number>;
  /** Commands of an operator, behind the daemon's back. */
  operate(...commands: string[]): Promise<string[]>;
  /** The servers in rotation, as `name address:port weight`. */
  servers(backend: string): Promise<string[]>;
  /** The same of the file on disk. */
  serversInFile(backend: string): Promise<string[]>;
  /** Resolves once the servers in rotation have these names, and the file says the same. */
  becomes(backend: string, names: readonly string[]): Promise<void>;
  logged(message: string): LogEntry[];
  reloads(): number;
  /** For the message of a test that counts them. */
  reloadReasons(): string;
  /** Ends every daemon and every HAProxy of this world. */
  end(): Promise<void>;
}

/** Tests wait for outcomes, however slow the machine is. */
export const PATIENCE_MS = 15_000;

type Settings = Record<string, unknown>;

/** @param settings the haproxy section of a host file; may depend on where the world is */
export async function createHaproxyWorld(
  settings: Settings | ((directory: string) => Settings) = {},
): Promise<HaproxyWorld> {
  if (!existsSync(BINARY)) throw new Error(`${BINARY} is missing: run deploy/setup.sh (it installs haproxy)`);
  const directory = await mkdtemp(path.join(tmpdir(), 'tandem-haproxy-'));
  await mkdir(path.join(directory, 'run'));
  await mkdir(path.join(directory, 'state'));
  const parsed = HaproxySection.parse({
    binary: BINARY,
    config_file: path.join(directory, 'run', 'haproxy.cfg'),
    runtime_socket: path.join(directory, 'run', 'haproxy.sock'),
    ...(typeof settings === 'function' ? settings(directory) : settings),
  });
  return new World(directory, parsed);
}

class World implements HaproxyWorld {
  readonly directory: string;
  readonly stateDir: string;
  readonly config: HaproxyConfig;
  readonly registry = createFakeRegistry();
  readonly entries: LogEntry[];
  readonly log: Log;
  readonly #daemons = new Set<Daemon>();

  constructor(directory: string, config: HaproxyConfig) {
    this.directory = directory;
    this.stateDir = path.join(directory, 'state');
    this.config = config;
    const { log, entries } = recordingLog();
    this.log = log;
    this.entries = entries;
  }

  start(
    services: readonly DiscoveredService[],
    config: Partial<HaproxyConfig> = {},
    options: DaemonOptions = {},
  ): Daemon {
    const { registry, stateDir, log } = this;
    const haproxy = { ...this.config, ...config };
    const { host = { name: 'host-1', labels: {} } } = options;
    const settings = DiscoverySection.parse(options.settings ?? { guard: { max_lost_percent: 100 } });
    const discovery = createDiscovery({ registry, host, settings, haproxy, stateDir, log });
    const controller = new AbortController();
    discovery.update(services);
    const ended = discovery.run(controller.signal);
    // Seen by stop(); until then it is nobody's unhandled rejection.
    ended.catch(() => {});
    const daemon = {
      discovery,
      stop: async () => {
        this.#daemons.delete(daemon);
        controller.abort(new Error('the daemon shall end'));
        await ended;
      },
    };
    this.#daemons.add(daemon);
    return daemon;
  }

  masterPid(): Promise<number> {
    // Its socket refuses while it re-executes itself, also right after the start.
    return eventually(() => readMasterPid(this.config.masterSocket));
  }

  async workerPid(): Promise<number> {
    const { incarnation } = await readIdentity(this.config.runtimeSocket);
    return Number(incarnation.split(':')[0]);
  }

  operate(...commands: string[]): Promise<string[]> {
    return converse(this.config.runtimeSocket, commands);
  }

  async servers(backend: string): Promise<string[]> {
    const { backends } = await readRunning(this.config.runtimeSocket);
    return [...(backends.get(backend)?.values() ?? [])]
      .filter((server) => server.state === 'ready')
      .map(({ name, address, port, weight }) => `${name} ${endpoint(address, port)} ${weight}`)
      .toSorted();
  }

  async serversInFile(backend: string): Promise<string[]> {
    const text = await readFile(this.config.configFile, 'utf8');
    const section = text.split(/^(?=\S)/m).find((part) => part.startsWith(`backend ${backend}\n`)) ?? '';
    return [...section.matchAll(/^ {2}server (\S+) (\S+) id \d+ weight (\d+)/gm)]
      .map(([, name, address, weight]) => `${name} ${address} ${weight}`)
      .toSorted();
  }

  becomes(backend: string, names: readonly string[]): Promise<void> {
    return eventually(async () => {
      const servers = await this.servers(backend);
      const wanted = names.toSorted().join('\n');
      const have = servers
        .map((server) => server.split('_')[0] ?? '')
        .toSorted()
        .join('\n');
      if (have !== wanted) throw new Error(`${backend} has [${have}] instead of [${wanted}]`);
      const inFile = await this.serversInFile(backend);
      if (inFile.join('\n') !== servers.join('\n'))
        throw new Error(`the file says [${inFile.join(', ')}], HAProxy runs [${servers.join(', ')}]`);
    });
  }

  logged(message: string): LogEntry[] {
    return this.entries.filter((entry) => entry.message === message);
  }

  reloads(): number {
    return this.logged('reloading HAProxy').length;
  }

  reloadReasons(): string {
    return this.logged('reloading HAProxy')
      .map(({ facts }) => JSON.stringify(facts['reason']))
      .join(' ');
  }

  async end(): Promise<void> {
    for (const daemon of this.#daemons) await daemon.stop().catch(() => {});
    await eventually(() => {
      const pids = this.#haproxyPids();
      for (const pid of pids) kill(pid);
      if (pids.length > 0) throw new Error(`HAProxy ${pids.join(', ')} does not end`);
    });
    await rm(this.directory, { recursive: true, force: true });
  }

  /** Every HAProxy that runs on this world's files, also one that its sockets no longer lead to. */
  #haproxyPids(): number[] {
    return readdirSync('/proc')
      .filter((entry) => /^\d+$/.test(entry))
      .filter((pid) => commandOf(pid).includes(`${this.directory}/`))
      .map(Number)
      .filter((pid) => pid !== process.pid && isRunning(pid));
  }
}

function commandOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  } catch {
    return '';
  }
}

/** False for zombies, too. */
export function isRunning(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) [ZX]/s.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has gone by itself.
  }
}

function endpoint(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

/** Tries until it does not throw any more; gives up with the last reason. */
export async function eventually<T>(attempt: () => T | Promise<T>, patienceMs = PATIENCE_MS): Promise<T> {
  const giveUpAt = performance.now() + patienceMs;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (performance.now() > giveUpAt) throw error;
    }
    await sleep(10);
  }
}

/** A service with its instances below `/services/<name>`. */
export function service(
  name: string,
  listen: string | number | undefined,
  section: Record<string, unknown> = {},
): DiscoveredService {
  const config = DiscoverSection.parse({ ...(listen === undefined ? {} : { listen }), ...section });
  return { service: name, path: `/services/${name}`, config };
}
