import { setMaxListeners } from 'node:events';

import { formatEndpoint, messageOf, TandemError, withDeadline } from '@tandem/core';

import {
  type Connection,
  type ConnectionEvent,
  openConnection,
  type SessionCredentials,
} from './connection.ts';
import { createDialer, type Dialer, type DialerOptions } from './dialer.ts';
import type { Acl, Operation } from './opcodes.ts';
import type { WatchListener } from './watches.ts';

/**
 * suspended: no connection, but the session may well live. Everything is kept and the old session is tried without
 * limit, since a new leader arms every session anew; only the server's word makes it lost.
 */
export type SessionState =
  | { readonly state: 'connecting' }
  | { readonly state: 'connected'; readonly id: bigint }
  | { readonly state: 'suspended' }
  | { readonly state: 'lost' }
  | { readonly state: 'closed' }
  /** The servers refuse our credentials. They are asked again from time to time. */
  | { readonly state: 'failed'; readonly error: TandemError };

/** The life line to one ensemble: one session at a time, a new one whenever the server has ended the last. */
export interface Session {
  readonly state: SessionState;
  /** Who may do what with the nodes that are made on it. */
  readonly acl: Acl;
  /** Called on every change of state from now on; returns what ends it. */
  subscribe(listener: (state: SessionState) => void): () => void;
  /**
   * Waits for a connection and runs one operation. `deadlineMs` covers both. Rejects with the codes of
   * `Connection.run`, or `REGISTRY_CLOSED`. Never repeats an operation by itself.
   */
  run<T>(operation: Operation<T>, options?: RunOptions): Promise<T>;
  /** The listener hears of what recursive watches tell of a path, until it is forgotten or the session has ended. */
  listenBelow(path: string, listener: WatchListener): void;
  forgetWatch(listener: WatchListener): void;
  /** Resolves with the session's id once there is a connection; rejects with the reason of the signal. */
  connected(signal: AbortSignal): Promise<bigint>;
  /** Resolves with whether the server has confirmed the end of the session. */
  close(options: { keepSession: boolean }): Promise<boolean>;
}

export interface RunOptions {
  readonly signal?: AbortSignal;
  readonly deadlineMs?: number;
  readonly onWatch?: WatchListener;
}

export interface SessionOptions extends DialerOptions {
  readonly sessionTimeoutMs: number;
  /** Default: `open`. */
  readonly acl?: Acl;
  readonly resume?: SessionCredentials | undefined;
  /** Called before anything runs on a session, with what a successor needs to resume it. */
  readonly onCredentials?: (session: SessionCredentials) => void;
  /** The longest wait before servers that have refused our credentials are asked again; default 30 s. */
  readonly refusedMs?: number | undefined;
}

const OPERATION_DEADLINE_MS = 10_000;
/** A start without ZooKeeper is nothing to worry about, but somebody should know. */
const PATIENCE_MS = 3_000;

export function openSession(options: SessionOptions): Session {
  return new SupervisedSession(options);
}

class SupervisedSession implements Session {
  readonly #options: SessionOptions;
  readonly #dialer: Dialer;
  readonly #listeners = new Set<(state: SessionState) => void>();
  #state: SessionState = { state: 'connecting' };
  #connection: Connection;
  #renewal: NodeJS.Timeout | undefined;
  readonly #patience: NodeJS.Timeout;
  #closing: Promise<boolean> | undefined;
  /** Somebody was told that our credentials are refused. */
  #isRefused = false;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#dialer = createDialer(options);
    this.#connection = this.#open(options.resume);
    this.#patience = setTimeout(() => {
      if (this.#state.state !== 'connecting') return;
      const servers = options.servers.map(formatEndpoint);
      const { failures } = this.#dialer;
      options.log.warn({ servers, failures }, 'no connection to ZooKeeper yet, going on trying');
    }, PATIENCE_MS);
  }

  get acl(): Acl {
    return this.#options.acl ?? 'open';
  }

  get state(): SessionState {
    return this.#state;
  }

  subscribe(listener: (state: SessionState) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  run<T>(operation: Operation<T>, options: RunOptions = {}): Promise<T> {
    const deadlineMs = options.deadlineMs ?? OPERATION_DEADLINE_MS;
    // One signal may stand over a thousand reads; every one of them takes its listener off again.
    if (options.signal !== undefined) setMaxListeners(0, options.signal);
    // At once, so that what is run one after the other goes out in this order.
    if (this.#state.state === 'connected') return this.#runNow(operation, options, deadlineMs);
    const watch = options.onWatch === undefined ? {} : { onWatch: options.onWatch };
    return withDeadline(options.signal, deadlineMs, async (signal) => {
      await this.connected(signal);
      return this.#connection.run(operation, { signal, ...watch });
    });
  }

  /** As `withDeadline`, without a signal of its own: a fleet of services is read at every start. */
  #runNow<T>(operation: Operation<T>, { signal, onWatch }: RunOptions, deadlineMs: number): Promise<T> {
    return new Promise((resolve, reject) => {
      const wish = { aborted: false, reason: undefined as unknown };
      const giveUp = (reason: unknown) => {
        end();
        wish.aborted = true;
        wish.reason = reason;
        reject(reason);
      };
      const onAbort = () => giveUp(signal?.reason);
      const onTimeout = () =>
        giveUp(new TandemError('DEADLINE_EXCEEDED', `took longer than ${deadlineMs} ms`));
      let last: NodeJS.Immediate | undefined;
      const timer = setTimeout(() => (last = setImmediate(onTimeout)), deadlineMs);
      const end = () => {
        clearTimeout(timer);
        clearImmediate(last);
        signal?.removeEventListener('abort', onAbort);
      };
      if (signal?.aborted === true) {
        giveUp(signal.reason);
        return;
      }
      signal?.addEventListener('abort', onAbort, { once: true });
      const watch = onWatch === undefined ? {} : { onWatch };
      const onAnswer = (value: T): void => {
        end();
        resolve(value);
      };
      const onFailure = (error: Error): void => {
        end();
        reject(error);
      };
      void this.#connection.run(operation, { signal: wish, ...watch }).then(onAnswer, onFailure);
    });
  }

  listenBelow(path: string, listener: WatchListener): void {
    this.#connection.listenBelow(path, listener);
  }

  forgetWatch(listener: WatchListener): void {
    this.#connection.forgetWatch(listener);
  }

  connected(signal: AbortSignal): Promise<bigint> {
    return new Promise((resolve, reject) => {
      const settle = (): boolean => {
        switch (this.#state.state) {
          case 'connected':
            resolve(this.#state.id);
            return true;
          case 'closed':
            reject(new TandemError('REGISTRY_CLOSED', 'the ZooKeeper client has been closed'));
            return true;
          case 'connecting':
          case 'suspended':
          case 'lost':
          case 'failed':
            return false;
        }
      };
      if (settle()) return;
      if (signal.aborted) {
        reject(signal.reason as Error);
        return;
      }
      const end = () => {
        unsubscribe();
        signal.removeEventListener('abort', onAbort);
      };
      const onAbort = () => {
        end();
        reject(signal.reason as Error);
      };
      const unsubscribe = this.subscribe(() => {
        if (settle()) end();
      });
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  close(options: { keepSession: boolean }): Promise<boolean> {
    if (this.#closing === undefined) {
      this.#become({ state: 'closed' });
      clearTimeout(this.#renewal);
      clearTimeout(this.#patience);
      this.#closing = this.#connection.close(options);
    }
    return this.#closing;
  }

  #open(resume: SessionCredentials | undefined): Connection {
    const { sessionTimeoutMs, refusedMs, random } = this.#options;
    const connection: Connection = openConnection({
      dialer: this.#dialer,
      sessionTimeoutMs,
      resume,
      refusedMs,
      random,
      // Events of a connection that has been replaced are nobody's business any more.
      onEvent: (event) => {
        if (this.#connection === connection || this.#connection === undefined) this.#onEvent(event);
      },
    });
    return connection;
  }

  #onEvent(event: ConnectionEvent): void {
    if (this.#state.state === 'closed') return;
    const { log } = this.#options;
    switch (event.kind) {
      case 'connected': {
        const id = event.session.id;
        const { server, timeoutMs } = event;
        log.info({ session: hex(id), timeoutMs, server }, 'connected to ZooKeeper');
        this.#isRefused = false;
        this.#options.onCredentials?.(event.session);
        this.#become({ state: 'connected', id });
        return;
      }
      case 'disconnected':
        if (this.#state.state === 'lost') return;
        log.warn({ reason: event.reason }, 'lost the connection to ZooKeeper, keeping the session');
        this.#become({ state: 'suspended' });
        return;
      case 'expired':
        log.warn({}, 'the ZooKeeper session has expired, starting a new one');
        this.#become({ state: 'lost' });
        // Unless somebody who was told has closed it.
        if (this.#state.state === 'lost') this.#renew();
        return;
      case 'auth-failed': {
        const message = 'ZooKeeper refused the credentials';
        const error = new TandemError('REGISTRY_AUTH_FAILED', message, { details: { server: event.server } });
        const remedy =
          'Let the servers accept the scheme of registry.zookeeper.auth, or take it out; they are asked again';
        if (!this.#isRefused)
          log.error({ server: event.server, remedy }, 'ZooKeeper refused the credentials');
        this.#isRefused = true;
        this.#become({ state: 'failed', error });
        return;
      }
    }
  }

  /** With jitter, so that a fleet whose sessions ended together does not come back in one instant. */
  #renew(): void {
    const { random = Math.random, sessionTimeoutMs } = this.#options;
    const old = this.#connection;
    const delay = Math.min(sessionTimeoutMs / 10, 500) * random();
    this.#renewal = setTimeout(() => {
      void old.close({ keepSession: true });
      if (this.#state.state === 'closed') return;
      this.#become({ state: 'connecting' });
      this.#connection = this.#open(undefined);
    }, delay);
  }

  #become(state: SessionState): void {
    this.#state = state;
    for (const listener of this.#listeners) {
      // One of them has closed it, and the others have been told of that.
      if (this.#state !== state) return;
      try {
        listener(state);
      } catch (error) {
        this.#options.log.error({ err: messageOf(error) }, 'a listener of the ZooKeeper session failed');
      }
    }
  }
}

export function hex(id: bigint): string {
  return `0x${BigInt.asUintN(64, id).toString(16)}`;
}
