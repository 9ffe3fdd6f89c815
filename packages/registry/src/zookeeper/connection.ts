import { messageOf, TandemError } from '@tandem/core';
import library, { type Client, type ConnectionManager } from 'node-zookeeper-client';

import type { Dialer, Line } from './dialer.ts';
import { createFramer } from './framer.ts';
import { createGreeting } from './greeting.ts';
import { type Beat, startHeartbeat } from './heartbeat.ts';
import { JuteReader } from './jute.ts';
import { OPCODE, type Operation, refusal, removeWatches } from './opcodes.ts';
import { type Answer, AUTH_XID, isOurs, packRequest, unpackAnswer } from './packets.ts';
import { createReconnectDelay } from './reconnect-delay.ts';
import { createWatchTable, type WatchListener } from './watches.ts';
import { createWindow, type Wish } from './window.ts';

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
/** ZooKeeper throttles all clients of a server together at 1,000 outstanding requests. */
const MAX_IN_FLIGHT = 250;
const MAX_HANDSHAKE_MS = 5_000;
const CLOSE_DEADLINE_MS = 2_000;
/** The server closes the connection on larger requests, with everything else that is in flight (B20). */
const MAX_REQUEST_BYTES = 1_000_000;
const MAX_XID = 0x7fff_fff0;
const NOTIFICATION_XID = -1;
const PING_XID = -2;

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
  /** The server knows recursive watches. */
  #hasRecursive = false;
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
    // 0 is below what 3.4 and 3.5 take for a request (B15).
    manager.xid = 1;
    manager.connect = () => this.#connect();
    // The library pings only while nothing arrives, and so loses busy sessions (B4). The heartbeat is ours.
    manager.onSocketTimeout = () => {};
    manager.on('state', (state: number) => this.#onState(state));
    this.#client.connect();
  }

  run<T>(
    operation: Operation<T>,
    { signal, onWatch }: { signal: Wish; onWatch?: WatchListener },
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
        send: () => this.#send(operation, settle, () => reject(connectionLost(operation))),
        fail: reject,
      });
    });
  }

  listenBelow(path: string, listener: WatchListener): void {
    this.#watches.addRecursive(path, listener);
  }

  forgetWatch(listener: WatchListener): void {
    const left = this.#watches.forget(listener);
    // A server that cannot set them would end the connection over it.
    if (!this.#hasRecursive) return;
    for (const path of left) {
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
    if (code === 0 && operation.opcode === OPCODE.setWatches2) this.#hasRecursive = true;
    if (code === 0) return unpackAnswer(operation, frame);
    const recovered = operation.recover?.(code);
    return recovered === undefined
      ? { ok: false, error: refusal(operation, code) }
      : { ok: true, value: recovered.value };
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
      watches: this.#watches,
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
    if (xid === AUTH_XID) {
      if (frame.readInt32BE(16) === 0) this.#onAccepted();
      else this.#onRefused();
      return true;
    }
    if (xid === PING_XID) return false;
    const packet = this.#manager.pendingQueue[0];
    if (packet?.request.header.xid !== xid) {
      // The library would drop the request that waits at the head, too, and nobody would ever hear of it.
      this.#drop(`the server answered request ${xid}, which is not the one that waits`);
      return true;
    }
    if (!isOurs(packet.request)) return false;
    this.#manager.pendingQueue.shift();
    const zxid = frame.readBigInt64BE(8);
    if (zxid > 0n) this.#manager.zxid = Buffer.from(frame.subarray(8, 16));
    packet.callback?.(null, frame);
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
