import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { Connection } from './connection.ts';
import { Database } from './database.ts';
import { Sessions } from './sessions.ts';
import type { Traffic } from './traffic.ts';
import type { Generation } from './opcodes.ts';

export interface EmbeddedZooKeeperOptions {
  /** Default 127.0.0.1. */
  readonly host?: string;
  /** Default 0: any free port. */
  readonly port?: number;
  /** How often expiry is looked at, and the base of the session limits. Default 500. */
  readonly tickTimeMs?: number;
  /** Default 2 ticks. */
  readonly minSessionTimeoutMs?: number;
  /** Default 20 ticks. */
  readonly maxSessionTimeoutMs?: number;
  /** A larger request ends its connection. Default 1,048,575. */
  readonly maxRequestBytes?: number;
  /** Which servers' requests are known; others end their connection. Default 3.9. */
  readonly generation?: Generation;
  /** How often containers that lost their last child are removed. Default 60,000. */
  readonly containerCheckIntervalMs?: number;
  /** Milliseconds since the epoch, for the times of nodes and the expiry of sessions. The default never goes back. */
  readonly clock?: { now(): number };
  /** Bytes for session passwords. Default: crypto's. */
  readonly random?: (size: number) => Buffer;
}

export interface SessionSummary {
  readonly id: bigint;
  readonly timeoutMs: number;
  readonly connected: boolean;
  readonly ephemerals: readonly string[];
}

export interface EmbeddedZooKeeper {
  readonly host: string;
  /** The port it listens on. */
  readonly port: number;
  /** What a client is given to connect. */
  readonly connectString: string;
  /** Frames received from all clients: handshakes, requests and pings. */
  readonly packetsReceived: number;
  /** The sessions that are alive, oldest first. */
  sessions(): readonly SessionSummary[];
  /** Ends a session as if it had not been heard from for too long; false if there is none. */
  expireSession(id: bigint): boolean;
  /** Ends every socket and timer that the server started. Nothing is kept. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

const monotonicClock = { now: () => performance.timeOrigin + performance.now() };

/** Starts a ZooKeeper server in this process: one node, in memory, for demo, development and tests. */
export async function startEmbeddedZooKeeper(
  options: EmbeddedZooKeeperOptions = {},
): Promise<EmbeddedZooKeeper> {
  const {
    host = '127.0.0.1',
    port = 0,
    tickTimeMs = 500,
    maxRequestBytes = 1_048_575,
    generation = '3.9',
  } = options;
  const { clock = monotonicClock, random = randomBytes } = options;
  const limits = {
    minTimeoutMs: options.minSessionTimeoutMs ?? 2 * tickTimeMs,
    maxTimeoutMs: options.maxSessionTimeoutMs ?? 20 * tickTimeMs,
  };
  const now = () => clock.now();
  const database = new Database(new Sessions(limits, now, random), now);
  const traffic: Traffic = { received: 0, sent: 0, connections: 0 };
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    void new Connection(socket, database, traffic, { maxRequestBytes, generation });
  });
  server.listen(port, host);
  await once(server, 'listening');
  // Such as too many open files: the one who wanted to connect sees it.
  server.on('error', () => {});
  const stopTimers = startTimers(database, tickTimeMs, options.containerCheckIntervalMs ?? 60_000);
  return present(server, database, traffic, host, async () => {
    stopTimers();
    const closed = once(server, 'close');
    server.close();
    for (const socket of sockets) socket.destroy();
    await closed;
  });
}

/** Returns what stops them. */
function startTimers(database: Database, tickTimeMs: number, containerCheckIntervalMs: number): () => void {
  let isStopped = false;
  const expireOverdue = () => {
    if (isStopped) return;
    for (const session of database.sessions.overdue()) database.expireSession(session);
  };
  // After a pause of the whole process timers run first, though every client has written in time:
  // two turns later all that was waiting in the sockets has been read.
  const ticks = setInterval(() => setImmediate(() => setImmediate(expireOverdue)), tickTimeMs);
  const containerChecks = setInterval(() => database.removeEmptyContainers(), containerCheckIntervalMs);
  return () => {
    isStopped = true;
    clearInterval(ticks);
    clearInterval(containerChecks);
  };
}

function present(
  server: Server,
  database: Database,
  traffic: Traffic,
  host: string,
  shutDown: () => Promise<void>,
): EmbeddedZooKeeper {
  const { port } = server.address() as AddressInfo;
  let closing: Promise<void> | undefined;
  const close = () => (closing ??= shutDown());
  return {
    host,
    port,
    connectString: `${host.includes(':') ? `[${host}]` : host}:${port}`,
    get packetsReceived() {
      return traffic.received;
    },
    sessions: () =>
      database.sessions.all().map(({ id, timeoutMs, connection }) => ({
        id,
        timeoutMs,
        connected: connection !== undefined,
        ephemerals: [...database.tree.ephemeralsOf(id)],
      })),
    expireSession: (id) => {
      const session = database.sessions.get(id);
      if (session === undefined) return false;
      database.expireSession(session);
      return true;
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}
