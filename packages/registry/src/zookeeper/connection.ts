import { messageOf } from '@tandem/core';
import library, { type Client, type ConnectionManager } from 'node-zookeeper-client';

import type { Dialer, Line } from './dialer.ts';
import { createExchange, type Exchange } from './exchange.ts';
import { createFramer } from './framer.ts';
import { createGreeting } from './greeting.ts';
import { type Beat, startHeartbeat } from './heartbeat.ts';
import type { Operation } from './opcodes.ts';
import { AUTH_XID } from './packets.ts';
import { createReconnectDelay } from './reconnect-delay.ts';
import type { WatchListener } from './watches.ts';
import type { Wish } from './window.ts';

/**
 * One client of the library is one session. The library (node-zookeeper-client 1.1.3, unmaintained) keeps the
 * connection's state machine, its queues and the handshake; everything that it gets wrong is overridden on the
 * instance, before connect(). The letters in comments name the faults in the project's ZooKeeper reference.
 */
export interface Connection {
  /**
   * Sends one operation and resolves with its answer. Rejects at once while there is no connection, and with
   * `REGISTRY_CONNECTION_LOST` when it breaks before the answer (the outcome is then unknown).
   * `onWatch` is called once when the watch that the operation set fires. Whoever aborts the signal has stopped
   * waiting: what is not sent by then never is, and a watch that comes too late is not kept.
   */
  run<T>(operation: Operation<T>, options: { signal: Wish; onWatch?: WatchListener }): Promise<T>;
  /** From now on the listener hears of everything at and below a path that the server tells this connection. */
  listenBelow(path: string, listener: WatchListener): void;
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
  | {
      readonly kind: 'connected';
      readonly session: SessionCredentials;
      readonly timeoutMs: number;
      readonly server: string;
    }
  | { readonly kind: 'disconnected'; readonly reason: string }
  | { readonly kind: 'expired' }
  /** Every server has refused our credentials. They are asked again, so that `connected` may follow. */
  | { readonly kind: 'auth-failed'; readonly server: string };

export interface ConnectionOptions {
  readonly dialer: Dialer;
  readonly sessionTimeoutMs: number;
  readonly resume: SessionCredentials | undefined;
  readonly onEvent: (event: ConnectionEvent) => void;
  readonly random?: (() => number) | undefined;
  /** The longest wait before servers that have refused our credentials are asked again; default 30 s. */
  readonly refusedMs?: number | undefined;
}

/** ConnectionManager.STATES of the library. */
const STATE = {
  disconnected: 0,
  connecting: 1,
  connected: 2,
  closing: -1,
  closed: -2,
  expired: -3,
} as const;
const MAX_HANDSHAKE_MS = 5_000;
const CLOSE_DEADLINE_MS = 2_000;

export function openConnection(options: ConnectionOptions): Connection {
  return new LibraryConnection(options);
}

class LibraryConnection implements Connection {
  readonly #options: ConnectionOptions;
  readonly #client: Client;
  readonly #manager: ConnectionManager;
  readonly #exchange: Exchange;
  readonly #framer = createFramer(
    (frame) => this.#onFrame(frame),
    () => this.#drop('the server sent a frame of negative length'),
  );
  readonly #delay;
  #beat: Beat | undefined;
  #lastReadAt = 0;
  #disconnectedAt: number | undefined = performance.now();
  #line: Line | undefined;
  readonly #abort = new AbortController();
  #dropReason: string | undefined;
  #disposed = false;
  #closing: Promise<boolean> | undefined;
  #isEndAnswered = false;
  #onClosed: (() => void) | undefined;

  constructor(options: ConnectionOptions) {
    const { dialer, sessionTimeoutMs, resume, refusedMs, random = Math.random } = options;
    this.#options = options;
    this.#client = library.createClient('placeholder.invalid:1', {
      sessionTimeout: sessionTimeoutMs,
      retries: 0,
      ...(resume === undefined ? {} : { sessionId: idBytes(resume.id), sessionPassword: resume.password }),
    });
    const manager = this.#client.connectionManager;
    this.#manager = manager;
    this.#delay = createReconnectDelay(
      { serverCount: () => dialer.count, sessionTimeoutMs: () => manager.sessionTimeout, refusedMs },
      random,
    );
    this.#exchange = createExchange({
      queues: manager,
      isConnected: () => manager.state === STATE.connected && !this.#disposed,
      drop: (reason) => this.#drop(reason),
    });
    manager.connect = () => this.#connect();
    // The library pings only while nothing arrives, and so loses busy sessions (B4). The heartbeat is ours.
    manager.onSocketTimeout = () => {};
    manager.on('state', (state: number) => this.#onState(state));
    this.#client.connect();
  }

  run<T>(operation: Operation<T>, options: { signal: Wish; onWatch?: WatchListener }): Promise<T> {
    return this.#exchange.run(operation, options);
  }

  listenBelow(path: string, listener: WatchListener): void {
    this.#exchange.watches.addRecursive(path, listener);
  }

  forgetWatch(listener: WatchListener): void {
    this.#exchange.forgetWatch(listener);
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

  // --- connecting

  /** In place of the library's own, which knows neither TLS nor names with several addresses, and never gives up (B2). */
  #connect(): void {
    const manager = this.#manager;
    manager.setState(STATE.connecting);
    const { signal } = this.#abort;
    const limitMs = () => Math.min(MAX_HANDSHAKE_MS, manager.sessionTimeout / 3);
    this.#options.dialer.dial({ signal, delay: this.#delay, limitMs }).then(
      (line) => this.#greet(line),
      (error: unknown) => {
        // Dialing ends by itself only when there is nobody left to connect for.
        if (!signal.aborted) throw error;
      },
    );
  }

  /** Gives the library its socket, with the listeners that it would have set itself. */
  #greet(line: Line): void {
    if (this.#disposed) return;
    const manager = this.#manager;
    const { socket } = line;
    this.#line = line;
    manager.socket = socket;
    socket.on('data', (chunk: Buffer) => this.#onSocketData(chunk));
    socket.on('drain', () => manager.onSocketDrain());
    socket.on('close', () => manager.onSocketClosed());
    const { hello, lastZxid, requests } = createGreeting({
      lastZxid: manager.zxid.readBigInt64BE(0),
      downMs: performance.now() - (this.#disconnectedAt ?? performance.now()),
      session: { ...this.#session(), timeoutMs: manager.sessionTimeout },
      credentials: line.credentials,
      watches: this.#exchange.watches,
    });
    if (lastZxid === 0n) manager.zxid = Buffer.alloc(8);
    socket.write(hello);
    // At the head, before whatever waits, and never twice (B8).
    manager.packetQueue.queue.unshift(...requests.map((request) => ({ request, callback() {} })));
  }

  #session(): SessionCredentials {
    const { sessionId, sessionPassword } = this.#manager;
    return { id: sessionId.readBigInt64BE(0), password: Buffer.from(sessionPassword) };
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
        this.#line?.settled('refused');
        this.#options.onEvent({ kind: 'expired' });
        return;
      case STATE.closed:
        this.#onClosed?.();
        return;
      default:
    }
  }

  #onConnected(): void {
    const manager = this.#manager;
    this.#lastReadAt = performance.now();
    const { socket, sessionTimeout } = manager;
    this.#beat = startHeartbeat({
      sessionTimeoutMs: sessionTimeout,
      lastReadAt: () => this.#lastReadAt,
      ping: (frame) => socket?.write(frame),
      silent: (ms) => {
        if (manager.socket === socket) this.#drop(`no answer for ${Math.round(ms)} ms`);
      },
    });
    // Whoever has credentials is connected when they are taken, and not before.
    if (this.#line?.credentials === undefined) this.#onAccepted();
  }

  #onAccepted(): void {
    this.#disconnectedAt = undefined;
    this.#delay.connected();
    this.#line?.settled('accepted');
    this.#options.onEvent({
      kind: 'connected',
      session: this.#session(),
      timeoutMs: this.#manager.sessionTimeout,
      server: this.#line?.server ?? '',
    });
  }

  /** The library would give up for good. Here another server is asked, and all of them again later (B24). */
  #onRefused(): void {
    const server = this.#line?.server ?? '';
    this.#line?.settled('refused');
    if (this.#delay.refused()) this.#options.onEvent({ kind: 'auth-failed', server });
    this.#drop('the server refused the credentials');
  }

  /** Puts away everything that the library would carry over into the next connection (B3, B6, B8). */
  #onDisconnected(): void {
    const wasConnected = this.#disconnectedAt === undefined;
    this.#disconnectedAt ??= performance.now();
    this.#beat?.stop();
    this.#beat = undefined;
    this.#line = undefined;
    this.#delay.disconnected();
    this.#framer.reset();
    this.#manager.pendingBuffer = null;
    this.#exchange.fail({ isOver: false });
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

  /** Answers to our credentials, events and answers to our requests; the rest (handshake, pings, close) is the library's. */
  #takeFrame(frame: Buffer): boolean {
    if (frame.readInt32BE(4) !== AUTH_XID) return this.#exchange.takeFrame(frame);
    if (frame.readInt32BE(16) === 0) this.#onAccepted();
    else this.#onRefused();
    return true;
  }

  // --- ending

  #drop(reason: string): void {
    this.#dropReason ??= reason;
    this.#manager.socket?.destroy(new Error(reason));
  }

  #dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    const manager = this.#manager;
    this.#abort.abort(new Error('the connection is closed'));
    this.#beat?.stop();
    this.#delay.disconnected();
    manager.connect = () => {};
    manager.socket?.destroy();
    this.#exchange.fail({ isOver: true });
  }
}

function idBytes(id: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64BE(id);
  return bytes;
}
