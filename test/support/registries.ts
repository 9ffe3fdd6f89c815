// What the tests of registries share: opening one, following it, and looking at the nodes behind its back.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { after } from 'node:test';

import { type Instance, type Log, silentLog, type Snapshot } from '@tandem/core';
import { openRegistry, type Registry, type RegistryConfig } from '@tandem/registry';

import { eventually } from './eventually.ts';
import { connectWire, type WireClient, zk } from './zookeeper-wire.ts';

export interface OpenOptions {
  readonly resumeFile?: string;
  readonly pathEncoding?: boolean;
  readonly sessionTimeoutMs?: number;
  readonly chroot?: string;
  readonly mirror?: 'auto' | 'classic';
  readonly log?: Log;
  readonly tls?: ZooKeeperConfig['tls'];
  readonly auth?: ZooKeeperConfig['auth'];
  readonly acl?: ZooKeeperConfig['acl'];
}

type ZooKeeperConfig = Extract<RegistryConfig, { kind: 'zookeeper' }>['zookeeper'];

/** A registry on ZooKeeper servers that listen on loopback, by the way that the daemons go. */
export async function openTestRegistry(
  ports: number | readonly number[],
  options: OpenOptions = {},
): Promise<Registry> {
  const {
    pathEncoding = false,
    sessionTimeoutMs = 4000,
    chroot = '',
    mirror = 'auto',
    log = silentLog,
  } = options;
  const { tls, auth, acl = 'open' } = options;
  const servers = [ports].flat().map((port) => ({ host: '127.0.0.1', port }));
  const registry = await openRegistry(
    {
      kind: 'zookeeper',
      zookeeper: { servers, chroot, sessionTimeoutMs, pathEncoding, mirror, tls, auth, acl },
      pathTemplate: '/services/{service}',
    },
    { log, ...(options.resumeFile === undefined ? {} : { resumeFile: options.resumeFile }) },
  );
  endLater(() => registry.close());
  return registry;
}

/** A process of its own that announces some instances and then stays, or ends by itself: closes, or keeps. */
export function spawnRegistry(
  ports: number | readonly number[],
  options: {
    path: string;
    names: readonly string[];
    resumeFile: string;
    sessionTimeoutMs?: number;
    end?: 'close' | 'keep';
  },
): ChildProcess {
  const program = `
    const { openTestRegistry, instanceOf, limit } = await import(${JSON.stringify(import.meta.url)});
    const { path, names, resumeFile, sessionTimeoutMs = 10_000, end } = ${JSON.stringify(options)};
    const registry = await openTestRegistry(${JSON.stringify(ports)}, { sessionTimeoutMs, resumeFile });
    for (const name of names) {
      const announcer = registry.announce(path, instanceOf(name));
      announcer.set(instanceOf(name));
      await announcer.agreed(limit());
    }
    if (end !== undefined) await registry.close({ keep: end === 'keep' });
  `;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', program], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  endLater(() => child.kill('SIGKILL'));
  return child;
}

export interface Line {
  readonly message: string;
  readonly facts: Readonly<Record<string, unknown>>;
  /** By the monotonic clock, in milliseconds. */
  readonly at: number;
}

/** A log that remembers. */
export function listen(): { log: Log; lines: Line[]; said: (part: string) => Line[] } {
  const lines: Line[] = [];
  const write = (facts: Readonly<Record<string, unknown>>, message: string) =>
    void lines.push({ message, facts, at: performance.now() });
  const log: Log = { debug: write, info: write, warn: write, error: write, child: () => log };
  return { log, lines, said: (part) => lines.filter(({ message }) => message.includes(part)) };
}

/** The nodes as they really are, seen and changed past the registry. */
export interface Nodes {
  /** Names in order of their sequence numbers; none for a path that does not exist. */
  children(path: string): Promise<string[]>;
  /** The data of every child, in the same order. */
  records(path: string): Promise<string[]>;
  /** Makes a node that belongs to nobody, and its parents. */
  create(path: string, data?: string): Promise<void>;
  write(path: string, data: string): Promise<void>;
  /** Deletes a node and everything below it. */
  remove(path: string): Promise<void>;
}

/** By a connection of its own for every look, so that it outlives restarts of the server. */
export function nodesOf(port: number, chroot = ''): Nodes {
  async function ask<T>(task: (client: WireClient) => Promise<T>): Promise<T> {
    const client = await connectWire(port, { timeoutMs: 2000 });
    try {
      return await task(client);
    } finally {
      // Without the end of the session the server would remember every look for a while.
      await zk.closeSession(client).catch(() => {});
      client.destroy();
    }
  }
  const list = async (client: WireClient, path: string): Promise<string[]> => {
    const { children = [] } = await zk.getChildren(client, path);
    return children.map(String).toSorted((a, b) => sequenceOf(a) - sequenceOf(b) || (a < b ? -1 : 1));
  };
  const remove = async (client: WireClient, path: string): Promise<void> => {
    for (const child of await list(client, path)) await remove(client, `${path}/${child}`);
    await zk.delete(client, path);
  };
  return {
    children: (path) => ask((client) => list(client, chroot + path)),
    records: (path) =>
      ask(async (client) => {
        const records: string[] = [];
        for (const child of await list(client, chroot + path)) {
          const node = await zk.getData(client, `${chroot}${path}/${child}`);
          if (node.code === 0) records.push(node.data ?? '');
        }
        return records;
      }),
    create: (path, data = '') =>
      ask(async (client) => {
        const parts = (chroot + path).split('/').slice(1);
        for (let depth = 1; depth <= parts.length; depth += 1) {
          const part = `/${parts.slice(0, depth).join('/')}`;
          await zk.create(client, { path: part, data: depth === parts.length ? data : '' });
        }
      }),
    write: (path, data) =>
      ask(async (client) => assert.equal((await zk.setData(client, chroot + path, data)).code, 0)),
    remove: (path) => ask((client) => remove(client, chroot + path)),
  };
}

function sequenceOf(name: string): number {
  return Number(/_(\d+)$/.exec(name)?.[1] ?? -1);
}

/** One watch of a path, read as fast as it comes. */
export interface Follower {
  /** Everything that was yielded so far. */
  readonly snapshots: readonly Snapshot[];
  readonly latest: Snapshot | undefined;
  /** Waits until exactly these are the instances, named by `name:weight` or `name`. */
  shows(...expected: string[]): Promise<void>;
  stop(): Promise<void>;
}

export function follow(registry: Registry, path: string): Follower {
  const controller = new AbortController();
  const snapshots: Snapshot[] = [];
  const done = (async () => {
    for await (const snapshot of registry.watch(path, controller.signal)) snapshots.push(snapshot);
  })();
  return {
    snapshots,
    get latest() {
      return snapshots.at(-1);
    },
    async shows(...expected) {
      await eventually(() => assert.deepEqual(label(snapshots.at(-1)), expected.toSorted()));
    },
    stop() {
      controller.abort();
      return done;
    },
  };
}

/** What a snapshot holds, short: `name:weight` or `name`. */
export function label(snapshot: Snapshot | undefined): string[] | undefined {
  return snapshot?.instances
    .map(({ name, weight }) => (weight === undefined ? name : `${name}:${weight}`))
    .toSorted();
}

/** The same of one record as it stands in a node. */
export function labelOf(record: string): string {
  const { name, weight } = JSON.parse(record) as Instance;
  return weight === undefined ? name : `${name}:${weight}`;
}

/** An instance with this name and weight, and a port of its own. */
export function instanceOf(name: string, weight?: number, port = 8080): Instance {
  return { name, host: '10.0.0.1', port, ...(weight === undefined ? {} : { weight }) };
}

/** For every wait whose length does not matter. */
export function limit(ms = 20_000): AbortSignal {
  return AbortSignal.timeout(ms);
}

const ends: (() => unknown)[] = [];

/** What a test that fails leaves running is ended with its file, which would never end otherwise. */
export function endLater(end: () => unknown): void {
  ends.push(end);
}

/** Ends what is left, and fails the file when anything in it made Node warn, or ended in an error that nobody took. */
export function noSurprises(): void {
  const surprises: unknown[] = [];
  const note = (surprise: unknown) => void surprises.push(surprise);
  const events = ['warning', 'unhandledRejection', 'uncaughtException'] as const;
  for (const event of events) process.on(event, note);
  after(async () => {
    await Promise.all(ends.map((end) => end()));
    for (const event of events) process.off(event, note);
    assert.deepEqual(surprises, []);
  });
}
