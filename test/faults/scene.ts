// What the suites of faults share: a server, a proxy of their own in front of it, and clients behind the proxy.
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { type Log, silentLog } from '@tandem/core';
import type { Registry } from '@tandem/registry';
import {
  type ConnectionEvent,
  createDialer,
  openConnection,
  openSession,
  type Session,
} from '@tandem/registry/testing';

import { eventually } from '../support/eventually.ts';
import { startFaultProxy } from '../support/fault-proxy.ts';
import {
  endLater,
  instanceOf,
  limit,
  listen,
  nodesOf,
  type OpenOptions,
  openTestRegistry,
} from '../support/registries.ts';

export const CONNECTED = 'connected to ZooKeeper';
export const DISCONNECTED = 'lost the connection';
export const EXPIRED = 'session has expired';

/** A server that runs for as long as the tests of a file. */
export interface FaultServer {
  /** For the titles of the suites. */
  readonly kind: string;
  /** To be asked in a test: before the first one nothing runs. */
  port(): number;
}

let count = 0;

/** A registry behind a proxy of its own, with a path that no other test uses. */
export async function enter(server: FaultServer, options: OpenOptions = {}) {
  count += 1;
  const path = `/faults/${count}`;
  const proxy = await startFaultProxy(server.port());
  const registries: Registry[] = [];
  const open = async (more: OpenOptions = {}, ports: readonly number[] = [proxy.port]) => {
    const { log, lines, said } = listen();
    const registry = await openTestRegistry(ports, { log, ...options, ...more });
    registries.push(registry);
    const sessions = () => said(CONNECTED).map(({ facts }) => facts['session']);
    return { registry, lines, said, sessions };
  };
  return {
    path,
    proxy,
    nodes: nodesOf(server.port()),
    open,
    ...(await open()),
    async [Symbol.asyncDispose]() {
      proxy.pass();
      proxy.kill();
      await Promise.all(registries.map((registry) => registry.close()));
      await proxy.close();
    },
  };
}

/** A log that remembers warnings and errors only. */
export function listenToTrouble() {
  const { log, said } = listen();
  const loud: Log = { ...silentLog, warn: log.warn, error: log.error, child: () => loud };
  return { log: loud, said };
}

export async function announce(registry: Registry, path: string, ...instance: Parameters<typeof instanceOf>) {
  const announcer = registry.announce(path, instanceOf(...instance));
  announcer.set(instanceOf(...instance));
  await announcer.agreed(limit());
  return announcer;
}

/** One connection, without anything that would open another after it. */
export function openTestConnection(port: number, sessionTimeoutMs: number) {
  const heard: ConnectionEvent[] = [];
  const connection = openConnection({
    dialer: createDialer({ servers: [{ host: '127.0.0.1', port }], log: silentLog }),
    sessionTimeoutMs,
    resume: undefined,
    onEvent: (event) => void heard.push(event),
  });
  endLater(() => connection.close({ keepSession: false }));
  const ofKind = <K extends ConnectionEvent['kind']>(kind: K) =>
    heard.filter((event): event is Extract<ConnectionEvent, { kind: K }> => event.kind === kind);
  return {
    connection,
    /** What it has told so far. */
    events: () => heard.map(({ kind }) => kind),
    connected: (times = 1) => eventually(() => assert.equal(ofKind('connected').length, times)),
    /** Each that it has had. */
    sessions: () => new Set(ofKind('connected').map(({ session }) => session.id)),
    reasons: () => ofKind('disconnected').map(({ reason }) => reason),
  };
}

/** To be closed by the test. */
export function openTestSession(port: number, sessionTimeoutMs: number): Session {
  return openSession({ servers: [{ host: '127.0.0.1', port }], sessionTimeoutMs, log: silentLog });
}

/** The library's own insides, for what would take months to reach from the outside. */
export interface LibraryManager {
  xid: number;
  readonly pendingQueue: readonly object[];
}

/** The library's manager of the connection that is opened meanwhile. */
export function catchManager<T>(open: () => T): { opened: T; manager: LibraryManager } {
  const registry = path.resolve(import.meta.dirname, '../../../packages/registry/package.json');
  const library = createRequire(registry)('node-zookeeper-client') as {
    createClient: (...values: unknown[]) => { connectionManager: LibraryManager };
  };
  const { createClient } = library;
  let manager: LibraryManager | undefined;
  library.createClient = (...values) => {
    const client = createClient(...values);
    manager = client.connectionManager;
    return client;
  };
  try {
    const opened = open();
    if (manager === undefined) throw new Error('nobody has asked the library for a client');
    return { opened, manager };
  } finally {
    library.createClient = createClient;
  }
}

export async function temporaryDirectory(): Promise<{ name: string } & AsyncDisposable> {
  const name = await mkdtemp(path.join(tmpdir(), 'tandem-faults-'));
  return { name, [Symbol.asyncDispose]: () => rm(name, { recursive: true, force: true }) };
}
