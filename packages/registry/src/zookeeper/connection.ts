import { messageOf, TandemError } from '@tandem/core';
import library, { type Client, type ConnectionManager } from 'node-zookeeper-client';

import { type Beat, startHeartbeat } from './heartbeat.ts';
import { createFramer } from './framer.ts';
import { JuteReader } from './jute.ts';
import { OPCODE, type Operation, refusal, removeWatches } from './opcodes.ts';
import { type Answer, isOurs, packHello, packRequest, unpackAnswer } from './packets.ts';
import { createReconnectDelay } from './reconnect-delay.ts';
import { type ServerAddress, shuffled } from './servers.ts';
import { createWatchTable, type WatchListener } from './watches.ts';
import { createWindow } from './window.ts';

/**
 * One client of the library is one session. The library (node-zookeeper-client 1.1.3, unmaintained) keeps the
 * connection's state machine, its queues and the handshake; everything that it gets wrong is overridden on the
 * instance, before connect(). The letters in comments name the faults in the project's ZooKeeper reference.
 */
export interface Connection {
  /**
   * Sends one operation and resolves with its answer. Rejects at once while there is no connection, and with
   * `REGISTRY_CONNECTION_LOST` when it breaks before the answer (the outcome is then unknown).
   * `onWatch` is called when the watch that the operation set fires: once, or for ever if it is persistent. Whoever aborts the signal has stopped
   * waiting: what is not sent by then never is, and a watch that comes too late is not kept.
   */
  run<T>(operation: Operation<T>, options: { signal: AbortSignal; onWatch?: WatchListener }): Promise<T>;
  forgetWatch(listener: WatchListener): void;
  /**
   * Ends within two seconds. `keepSession` leaves session and ephemeral nodes to whoever resumes it.
   * Resolves with whether the server has confirmed the end of the session.
   */
  close(options: { keepSession: boolean }): Promise<boolean>;
}

/** What is needed to take a session up again. */
export interface SessionCredentials {
  readonly id: bigint;
  readonly password: Buffer;
}

export type ConnectionEvent =
  | { readonly kind: 'connected'; readonly session: SessionCredentials; readonly timeoutMs: number }
  | { readonly kind: 'disconnected'; readonly reason: string }
  | { readonly kind: 'expired' }
  | { readonly kind: 'auth-failed' };

export interface ConnectionOptions {
  readonly servers: readonly ServerAddress[];
  readonly sessionTimeoutMs: number;
  readonly resume: SessionCredentials | undefined;
  readonly onEvent: (event: ConnectionEvent) => void;
  readonly random?: () => number;
}

/** ConnectionManager.STATES of the library. */
const STATE = {
  disconnected: 0,
  connecting: 1,
  connected: 2,
  closing: -1,
  closed: -2,
  expired: -3,
  authFailed: -4,
} as const;
/** ZooKeeper throttles all clients of a server together at 1,000 outstanding requests. */
const MAX_IN_FLIGHT = 250;
const MAX_HANDSHAKE_MS = 5_000;
const CLOSE_DEADLINE_MS = 2_000;
/** The server closes the connection on larger requests, with everything else that is in flight (B20). */
const MAX_REQUEST_BYTES = 1_000_000;
const MAX_XID = 0x7fff_fff0;
const NOTIFICATION_XID = -1;

export function openConnection(options: ConnectionOptions): Connection {
  return new LibraryConnection(options);
}

class LibraryConnection implements Connection {
  readonly #options: ConnectionOptions;
  readonly #client: Client;
  readonly #manager: ConnectionManager;
  readonly #watches = createWatchTable();
  readonly #window = createWindow(MAX_IN_FLIGHT);
  readonly #framer = createFramer(
    (frame) => this.#onFrame(frame),
    () => this.#drop('the server sent a frame of negative length'),
  );
  readonly #delay;
  #beat: Beat | undefined;
  #lastReadAt = 0;
  #disconnectedAt: number | undefined = performance.now();
  #connectTimer: NodeJS.Timeout | undefined;
  #handshakeTimer: NodeJS.Timeout | undefined;
  #dropReason: string | undefined;
  #disposed = false;
  #closing: Promise<boolean> | undefined;
  #isEndAnswered = false;
  #onClosed: (() => void) | undefined;

  constructor(options: ConnectionOptions) {
    const { servers, sessionTimeoutMs, resume, random = Math.random } = options;
    this.#options = options;
    this.#client = library.createClient('placeholder.invalid:1', {
      sessionTimeout: sessionTimeoutMs,
      retries: 0,
      ...(resume === undefined ? {} : { sessionId: idBytes(resume.id), sessionPassword: resume.password }),
    });
    const manager = this.#client.connectionManager;
    this.#manager = manager;
    this.#delay = createReconnectDelay(
      { serverCount: servers.length, sessionTimeoutMs: () => manager.sessionTimeout },
      random,
    );
    manager.servers = shuffled(servers, random);
    // 0 is below what 3.4 and 3.5 take for a request (B15).
    manager.xid = 1;
    manager.findNextServer = (callback) => this.#connectNext(callback);
    manager.onSocketConnected = () => this.#onSocketConnected();
    manager.onSocketData = (chunk) => this.#onSocketData(chunk);
    // The library pings only while nothing arrives, and so loses busy sessions (B4). The heartbeat is ours.
    manager.onSocketTimeout = () => {};
    manager.on('state', (state: number) => this.#onState(state));
    this.#client.connect();
  }

  run<T>(
    operation: Operation<T>,
    { signal, onWatch }: { signal: AbortSignal; onWatch?: WatchListener },
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.#manager.state !== STATE.connected || this.#disposed) {
        reject(connectionLost(operation));
        return;
      }
      if (operation.body.length > MAX_REQUEST_BYTES) {
        reject(
          new TandemError(
            'REGISTRY_REFUSED',
            `a request to ${operation.name} ${operation.path} is larger than 1 MB`,
          ),
        );
        return;
      }
      const settle = (frame: Buffer) => {
        const answer = this.#answer(operation, frame, signal.aborted ? undefined : onWatch);
        if (answer.ok) resolve(answer.value);
        else reject(answer.error);
      };
      this.#window.enter({
        signal,
        send: () => {
          // Before its answer: to take it off again is then always the later request.
          if (operation.isWatching === true && onWatch !== undefined)
            this.#watches.addRecursive(operation.path, onWatch);
          this.#send(operation, settle, () => reject(connectionLost(operation)));
        },
        fail: reject,
      });
    });
  }

  forgetWatch(listener: WatchListener): void {
    for (const path of this.#watches.forget(listener)) {
      // A server that does not hear it sends events that nobody listens to, until the connection ends.
      this.run(removeWatches(path), { signal: NEVER }).catch(() => {});
    }
  }

  close(options: { keepSession: boolean }): Promise<boolean> {
    this.#closing ??= this.#close(options);
    return this.#closing;
  }

  /** Never waits for the library to end by itself: under a blackhole it would not (B13). */
  async #close({ keepSession }: { keepSession: boolean }): Promise<boolean> {
    const isEnding = !keepSession && this.#manager.state === STATE.connected;
    const isEnded = isEnding && (await this.#endSession());
    this.#dispose();
    return isEnded;
  }

  #endSession(): Promise<boolean> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve(false), CLOSE_DEADLINE_MS);
      this.#onClosed = () => {
        clearTimeout(timer);
        resolve(this.#isEndAnswered);
      };
      this.#client.close();
    });
  }

  // --- requests

  #send<T>(operation: Operation<T>, settle: (frame: Buffer) => void, lost: () => void): void {
    if (this.#manager.xid > MAX_XID) this.#manager.xid = 1;
    this.#manager.queue(packRequest(operation.opcode, operation.body), (error, frame) => {
      if (frame === undefined || error !== null) {
        this.#window.lost();
        lost();
        return;
      }
      settle(frame);
      this.#window.answered();
    });
  }

  #answer<T>(operation: Operation<T>, frame: Buffer, onWatch: WatchListener | undefined): Answer<T> {
    const code = frame.readInt32BE(16);
    // Before anything is awaited: an event may follow in the same chunk.
    const kind = operation.watchKind?.(code);
    if (onWatch !== undefined && kind !== undefined) this.#watches.add(kind, operation.path, onWatch);
    if (code === 0) return unpackAnswer(operation, frame);
    const recovered = operation.recover?.(code);
    return recovered === undefined
      ? { ok: false, error: refusal(operation, code) }
      : { ok: true, value: recovered.value };
  }

  // --- connecting

  #connectNext(callback: (server: ServerAddress) => void): void {
    if (this.#disposed) return;
    const manager = this.#manager;
    this.#connectTimer = setTimeout(() => {
      const server = manager.servers.shift();
      if (this.#disposed || server === undefined) return;
      manager.servers.push(server);
      callback(server);
      this.#watchHandshake();
    }, this.#delay.next());
  }

  /** The library's own limit ends with the TCP connect: a peer that accepts and says nothing would hold it for ever (B2). */
  #watchHandshake(): void {
    const manager = this.#manager;
    const { socket } = manager;
    clearTimeout(manager.connectTimeoutHandler ?? undefined);
    socket?.setKeepAlive(true, 15_000);
    const limit = Math.min(MAX_HANDSHAKE_MS, manager.sessionTimeout / 3);
    this.#handshakeTimer = setTimeout(() => {
      if (manager.socket === socket && manager.state === STATE.connecting) this.#drop('no handshake in time');
    }, limit);
  }

  #onSocketConnected(): void {
    const manager = this.#manager;
    clearTimeout(manager.connectTimeoutHandler ?? undefined);
    // A server whose data were wiped drops every client that has seen more than it has, without a word (B10).
    // After a session timeout in vain the client stops claiming so, and learns whether its session still lives.
    const downMs = performance.now() - (this.#disconnectedAt ?? performance.now());
    const lastZxid = downMs > manager.sessionTimeout ? 0n : manager.zxid.readBigInt64BE(0);
    if (lastZxid === 0n) manager.zxid = Buffer.alloc(8);
    const hello = packHello({
      lastZxid,
      timeoutMs: manager.sessionTimeout,
      sessionId: manager.sessionId.readBigInt64BE(0),
      password: manager.sessionPassword,
    });
    manager.socket?.write(hello);
    // At the head, before whatever waits, and never twice (B8).
    manager.packetQueue.queue.unshift(
      ...this.#watches
        .requests(lastZxid)
        .map((body) => ({ request: packRequest(OPCODE.setWatches, body), callback() {} })),
    );
  }

  #onState(state: number): void {
    switch (state) {
      case STATE.connected:
        this.#onConnected();
        return;
      case STATE.disconnected:
        this.#onDisconnected();
        return;
      case STATE.expired:
        this.#options.onEvent({ kind: 'expired' });
        return;
      case STATE.authFailed:
        this.#options.onEvent({ kind: 'auth-failed' });
        return;
      case STATE.closed:
        this.#onClosed?.();
        return;
      default:
    }
  }

  #onConnected(): void {
    const manager = this.#manager;
    clearTimeout(this.#handshakeTimer);
    this.#disconnectedAt = undefined;
    this.#lastReadAt = performance.now();
    this.#delay.connected();
    const { socket, sessionTimeout } = manager;
    this.#beat = startHeartbeat({
      sessionTimeoutMs: sessionTimeout,
      lastReadAt: () => this.#lastReadAt,
      ping: (frame) => socket?.write(frame),
      silent: (ms) => {
        if (manager.socket === socket) this.#drop(`no answer for ${Math.round(ms)} ms`);
      },
    });
    const session = {
      id: manager.sessionId.readBigInt64BE(0),
      password: Buffer.from(manager.sessionPassword),
    };
    this.#options.onEvent({ kind: 'connected', session, timeoutMs: sessionTimeout });
  }

  /** Puts away everything that the library would carry over into the next connection (B3, B6, B8). */
  #onDisconnected(): void {
    const wasConnected = this.#disconnectedAt === undefined;
    this.#disconnectedAt ??= performance.now();
    clearTimeout(this.#handshakeTimer);
    this.#beat?.stop();
    this.#beat = undefined;
    this.#delay.disconnected();
    this.#framer.reset();
    this.#manager.pendingBuffer = null;
    for (const packet of this.#manager.packetQueue.queue.splice(0)) packet.callback?.(LOST);
    this.#window.failWaiting(connectionLost());
    const reason = this.#dropReason ?? 'the connection ended';
    this.#dropReason = undefined;
    if (wasConnected) this.#options.onEvent({ kind: 'disconnected', reason });
  }

  // --- receiving

  #onSocketData(chunk: Buffer): void {
    this.#lastReadAt = performance.now();
    this.#framer.push(chunk);
  }

  #onFrame(frame: Buffer): void {
    const manager = this.#manager;
    try {
      if (manager.state !== STATE.connecting && frame.length >= 20 && this.#takeFrame(frame)) return;
      manager.pendingBuffer = null;
      Object.getPrototypeOf(manager).onSocketData.call(manager, frame);
    } catch (error) {
      // A throw in a socket handler would end the process (B3, B9, B29).
      this.#drop(`cannot read what the server sent: ${messageOf(error)}`);
    }
    const isIdle = manager.pendingQueue.length === 0 && manager.packetQueue.queue.length === 0;
    // The library sends nothing after the end of the session, so that is what was answered last.
    if (manager.state === STATE.closing && isIdle) this.#isEndAnswered = true;
    if (manager.socket?.destroyed === true) this.#framer.reset();
  }

  /** Events and answers to our requests; the rest (handshake, pings, close) is the library's. */
  #takeFrame(frame: Buffer): boolean {
    const xid = frame.readInt32BE(4);
    if (xid === NOTIFICATION_XID) {
      const reader = new JuteReader(frame, 20);
      const type = reader.int();
      reader.int();
      this.#watches.fire({ type, path: reader.text() });
      return true;
    }
    const packet = this.#manager.pendingQueue[0];
    if (packet === undefined || packet.request.header.xid !== xid || !isOurs(packet.request)) return false;
    this.#manager.pendingQueue.shift();
    const zxid = frame.readBigInt64BE(8);
    if (zxid > 0n) this.#manager.zxid = Buffer.from(frame.subarray(8, 16));
    packet.callback?.(null, frame);
    return true;
  }

  // --- ending

  /** Always with an error: otherwise the library leaves a timer armed that kills the next, healthy socket (B28). */
  #drop(reason: string): void {
    this.#dropReason ??= reason;
    this.#manager.socket?.destroy(new Error(reason));
  }

  #dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    const manager = this.#manager;
    clearTimeout(this.#connectTimer);
    clearTimeout(this.#handshakeTimer);
    clearTimeout(manager.connectTimeoutHandler ?? undefined);
    this.#beat?.stop();
    this.#delay.disconnected();
    manager.connect = () => {};
    manager.socket?.on('error', () => {});
    manager.socket?.destroy();
    for (const packet of [...manager.packetQueue.queue.splice(0), ...manager.pendingQueue.splice(0)])
      packet.callback?.(LOST);
    this.#window.failWaiting(connectionLost());
  }
}

const LOST = new Error('connection lost');
const NEVER = new AbortController().signal;

function connectionLost(operation?: Pick<Operation<unknown>, 'name' | 'path'>): TandemError {
  const what = operation === undefined ? '' : ` to ${operation.name} ${operation.path}`;
  return new TandemError('REGISTRY_CONNECTION_LOST', `no connection to ZooKeeper${what}`);
}

function idBytes(id: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64BE(id);
  return bytes;
}
