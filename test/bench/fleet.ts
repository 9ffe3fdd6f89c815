// A discovery daemon as a process, with a real ZooKeeper and a real HAProxy, and a fleet of instances to follow.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { codecFor, type Instance } from '@tandem/core';
import { readMasterPid } from '@tandem/discovery';

import { freePorts, type RealZooKeeper, startRealZooKeeper } from '../support/real-zookeeper.ts';
import { askWord, connectWire, FLAGS, type WireClient, zk } from '../support/zookeeper-wire.ts';
import { announceAll } from './nodes.ts';
import { unitArguments } from './unit-arguments.ts';
import { type Usage, usageOf } from './usage.ts';

const LIMIT_MS = 30_000;
const START_LIMIT_MS = 120_000;
const CODEC = codecFor();

export interface FleetOptions {
  readonly services: number;
  /** Of each service. */
  readonly instances: number;
}

/** One of the instances that a fleet begins with, or one that comes later. */
export function member(index: number): Instance {
  return {
    name: `i-${index}`,
    host: `10.${(index >> 16) & 255}.${(index >> 8) & 255}.${index & 255}`,
    port: 8_080,
    labels: { zone: 'eu-central-1a' },
  };
}

export class Fleet implements AsyncDisposable {
  readonly services: readonly string[];
  readonly client: WireClient;
  readonly #directory: string;
  readonly #zookeeper: RealZooKeeper;
  readonly #pinger: NodeJS.Timeout;
  #daemon: ChildProcess | undefined;

  static async create({ services, instances }: FleetOptions): Promise<Fleet> {
    const directory = await mkdtemp(path.join(tmpdir(), 'tandem-bench-'));
    const zookeeper = await startRealZooKeeper();
    const client = await connectWire(zookeeper.port);
    const names = Array.from({ length: services }, (_, index) => `service-${index}`);
    const fleet = new Fleet(directory, zookeeper, client, names);
    await fleet.#configure();
    await zk.create(client, { path: '/services', data: '' });
    const members = Array.from({ length: instances }, (_, index) => member(index));
    for (const name of names) {
      await zk.create(client, { path: `/services/${name}`, data: '' });
      await announceAll(client, `/services/${name}`, members, false);
    }
    return fleet;
  }

  private constructor(
    directory: string,
    zookeeper: RealZooKeeper,
    client: WireClient,
    services: readonly string[],
  ) {
    this.#directory = directory;
    this.#zookeeper = zookeeper;
    this.client = client;
    this.services = services;
    this.#pinger = setInterval(() => void client.ping(), 2_000);
  }

  get socket(): string {
    return path.join(this.#directory, 'run', 'haproxy.sock');
  }

  async #configure(): Promise<void> {
    await mkdir(path.join(this.#directory, 'services.d'));
    await writeFile(
      path.join(this.#directory, 'tandem.yaml'),
      `host: { name: bench, address: 127.0.0.1 }
registry: { zookeeper: { servers: ['${this.#zookeeper.connectString}'], session_timeout: 10s } }
state_dir: state
haproxy: { config_file: run/haproxy.cfg, runtime_socket: run/haproxy.sock }
discovery: { control: run/discovery.sock }
`,
    );
    const ports = await freePorts(this.services.length);
    for (const [index, service] of this.services.entries()) {
      const text = `service: ${service}\ndiscover: { listen: '127.0.0.1:${ports[index]}' }\n`;
      await writeFile(path.join(this.#directory, 'services.d', `${service}.yaml`), text);
    }
  }

  /** Starts the daemon and resolves with the time, in ms, until HAProxy has so many servers in rotation. */
  async start(servers: number): Promise<number> {
    const output = openSync(path.join(this.#directory, 'discover.log'), 'a');
    const startedAt = performance.now();
    this.#daemon = spawn(
      process.execPath,
      [...unitArguments('discovery'), '--config', path.join(this.#directory, 'tandem.yaml')],
      { stdio: ['ignore', output, output] },
    );
    closeSync(output);
    while ((await this.#countServers()) !== servers) {
      if (performance.now() - startedAt > START_LIMIT_MS || this.#daemon.exitCode !== null)
        throw new Error(`no HAProxy with ${servers} servers:\n${this.log().slice(-2_000)}`);
      await sleep(20);
    }
    return performance.now() - startedAt;
  }

  async #countServers(): Promise<number> {
    try {
      const text = await ask(this.socket, 'show servers state');
      let count = 0;
      for (const line of text.split('\n')) {
        if (/^\d/.test(line) && isInRotation(line)) count += 1;
      }
      return count;
    } catch {
      return -1;
    }
  }

  log(): string {
    return readFileSync(path.join(this.#directory, 'discover.log'), 'utf8');
  }

  /** Announces an instance as a registrar would, and returns its node. */
  async announce(service: string, index: number): Promise<string> {
    const instance = member(index);
    const { path: node } = await zk.create(this.client, {
      path: `/services/${service}/${CODEC.namePrefix(instance, { pathEncoding: false })}`,
      data: CODEC.encodeRecord(instance),
      flags: FLAGS.ephemeralSequential,
    });
    return String(node);
  }

  async withdraw(node: string): Promise<void> {
    await zk.delete(this.client, node);
  }

  /** Resolves with the moment at which HAProxy has been seen to route to it, or not to. */
  async untilRouted(service: string, index: number, isWanted: boolean): Promise<number> {
    const giveUpAt = performance.now() + LIMIT_MS;
    const { name, host, port } = member(index);
    while (performance.now() < giveUpAt) {
      const text = await ask(this.socket, `show servers state ${service}`);
      const at = text.indexOf(` ${name}_${host}:${port} `);
      const line = at === -1 ? '' : text.slice(text.lastIndexOf('\n', at) + 1, text.indexOf('\n', at));
      if ((line !== '' && isInRotation(line)) === isWanted) return performance.now();
      await sleep(1);
    }
    throw new Error(`HAProxy did not follow within ${LIMIT_MS} ms:\n${this.log().slice(-2_000)}`);
  }

  /** What the daemon has used so far. */
  usage(): Usage {
    return usageOf(this.#daemon?.pid ?? 0);
  }

  /** Packets between ZooKeeper and everybody but this benchmark, in both directions. */
  async packets(): Promise<number> {
    const text = await askWord(this.#zookeeper.port, 'cons');
    const own = this.client.sessionId.toString(16);
    return text
      .split('\n')
      .filter((line) => line.includes('sid=0x') && !line.includes(`sid=0x${own}`))
      .map((line) => Number(/recved=(\d+)/.exec(line)?.[1]) + Number(/sent=(\d+)/.exec(line)?.[1]))
      .reduce((sum, count) => sum + count, 0);
  }

  /** Which worker runs: another one after every reload. */
  async worker(): Promise<string> {
    const info = await ask(this.socket, 'show info');
    return /^Pid: (\d+)/m.exec(info)?.[1] ?? '';
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#pinger);
    this.client.destroy();
    const master = path.join(this.#directory, 'run', 'haproxy-master.sock');
    const pid = await readMasterPid(master).catch(() => undefined);
    if (this.#daemon !== undefined && this.#daemon.exitCode === null) {
      const gone = once(this.#daemon, 'exit');
      this.#daemon.kill('SIGTERM');
      await gone;
    }
    if (pid !== undefined) process.kill(pid, 'SIGTERM');
    await this.#zookeeper.stop();
    await rm(this.#directory, { recursive: true, force: true });
  }
}

/** A server is in rotation when its srv_admin_state, the seventh column, is 0 (HAProxy's management guide, 9.3). */
function isInRotation(line: string): boolean {
  return line.split(' ', 7)[6] === '0';
}

/** One command on a connection of its own, as short as it can be. */
export async function ask(socket: string, command: string): Promise<string> {
  const connection = net.connect(socket).setEncoding('utf8');
  let answer = '';
  connection.on('data', (text: string) => {
    answer += text;
  });
  connection.end(`${command}\n`);
  await once(connection, 'close');
  return answer;
}
