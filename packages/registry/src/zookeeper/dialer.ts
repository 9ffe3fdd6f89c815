import type { Socket } from 'node:net';

import { type Log, messageOf, sleep, systemErrorCode } from '@tandem/core';

import type { Credentials } from './credentials.ts';
import { type Resolve, resolveBySystem } from './names.ts';
import type { Refreshed } from './named-file.ts';
import type { ReconnectDelay } from './reconnect-delay.ts';
import { createServerList, formatTarget, type Target } from './server-list.ts';
import type { ServerAddress } from './servers.ts';
import type { Tls } from './tls.ts';
import { openSocket } from './transport.ts';

/** Finds a server and reaches it. One for all connections of a client, one after the other. */
export interface Dialer {
  /**
   * Tries one address after the other, without limit, until a socket stands on which nothing has been said yet.
   * `limitMs` is for each address, and goes on until `settled`. Rejects only with the reason of the signal.
   */
  dial(options: { signal: AbortSignal; delay: ReconnectDelay; limitMs: () => number }): Promise<Line>;
  /** How many addresses there are to try, as far as is known. */
  readonly count: number;
  /** Why each server could not be reached lately. */
  readonly failures: Readonly<Record<string, string>>;
}

/** A socket to a server that has not answered yet. */
export interface Line {
  readonly socket: Socket;
  readonly server: string;
  readonly credentials: Credentials | undefined;
  /** The server has answered in ZooKeeper's protocol, so the watchdog may go. One that refuses us gives way to the next. */
  settled(outcome: 'accepted' | 'refused'): void;
}

export interface DialerOptions {
  readonly servers: readonly ServerAddress[];
  readonly log: Log;
  readonly tls?: Tls | undefined;
  readonly credentials?: Refreshed<Credentials> | undefined;
  readonly resolve?: Resolve | undefined;
  readonly random?: (() => number) | undefined;
}

export function createDialer(options: DialerOptions): Dialer {
  const { servers, log, resolve = resolveBySystem, random = Math.random } = options;
  const list = createServerList({ servers, resolve, random, log });
  const reports = createReports(log, options.tls !== undefined);

  return {
    async dial({ signal, delay, limitMs }) {
      for (;;) {
        await sleep(delay.next(), signal);
        const target = await list.next(signal);
        if (target === undefined) continue;
        const attempt = new Attempt({
          limitMs: limitMs(),
          signal,
          onFailure: (error) => reports.failed(target, error),
          onSettled(outcome) {
            if (outcome === 'accepted') list.restart();
            reports.reached(target);
          },
        });
        const line = await attempt.open(target, options);
        if (line !== undefined) return line;
      }
    },
    get count() {
      return list.count;
    },
    get failures() {
      return reports.failures();
    },
  };
}

/** From the first packet to one address until the server has taken us, under one watchdog. */
class Attempt {
  readonly #onFailure: (error: unknown) => void;
  readonly #onSettled: Line['settled'];
  readonly #outer: AbortSignal;
  readonly #abort = new AbortController();
  readonly #onAbort = () => this.#end(this.#outer.reason);
  readonly #watchdog: NodeJS.Timeout;
  #isOver = false;

  constructor(options: {
    limitMs: number;
    signal: AbortSignal;
    onFailure: (error: unknown) => void;
    onSettled: Line['settled'];
  }) {
    const { limitMs, signal, onFailure, onSettled } = options;
    this.#onFailure = onFailure;
    this.#onSettled = onSettled;
    this.#outer = signal;
    signal.addEventListener('abort', this.#onAbort, { once: true });
    this.#watchdog = setTimeout(
      () => this.#fail(new Error(`no handshake within ${Math.round(limitMs)} ms`)),
      limitMs,
    );
  }

  /** Undefined when it has failed; rejects only with the reason of the signal. */
  async open(target: Target, options: DialerOptions): Promise<Line | undefined> {
    const { signal } = this.#abort;
    try {
      const [context, credentials] = await Promise.all([
        options.tls?.context.read(signal),
        options.credentials?.read(signal),
      ]);
      const serverName = options.tls?.serverName ?? target.host;
      const secure = context === undefined ? undefined : { context, serverName };
      const socket = await openSocket(target, { secure, signal });
      let failure: Error | undefined;
      socket.on('error', (error) => {
        failure = error;
      });
      socket.once('close', () => this.#fail(failure ?? new Error('the server hung up in the handshake')));
      // Both may happen before anybody is told.
      if (socket.destroyed) throw failure ?? new Error('the server hung up in the handshake');
      return {
        socket,
        server: formatTarget(target),
        credentials,
        settled: (outcome) => this.#settled(outcome),
      };
    } catch (error) {
      this.#outer.throwIfAborted();
      this.#fail(error);
      return undefined;
    }
  }

  #settled(outcome: 'accepted' | 'refused'): void {
    if (this.#isOver) return;
    this.#release();
    this.#onSettled(outcome);
  }

  #fail(error: unknown): void {
    if (this.#isOver) return;
    this.#end(error);
    this.#onFailure(error);
  }

  #end(reason: unknown): void {
    this.#release();
    this.#abort.abort(reason);
  }

  #release(): void {
    this.#isOver = true;
    clearTimeout(this.#watchdog);
    this.#outer.removeEventListener('abort', this.#onAbort);
  }
}

interface Reports {
  failed(target: Target, error: unknown): void;
  reached(target: Target): void;
  failures(): Readonly<Record<string, string>>;
}

/** What TLS refuses has to be mended by somebody: it is told of, each reason once per server until it works there. */
function createReports(log: Log, isSecure: boolean): Reports {
  const latest = new Map<string, string>();
  const told = new Map<string, Set<string>>();
  return {
    failed(target, error) {
      const server = formatTarget(target);
      const reason = reasonOf(error);
      latest.set(server, reason);
      const said = told.get(server) ?? new Set();
      const isNews = isSecure && !isUnreachable(error) && !said.has(reason);
      if (!isNews) {
        log.debug({ server, reason }, 'cannot reach a ZooKeeper server');
        return;
      }
      told.set(server, said.add(reason));
      const remedy = REMEDIES[systemErrorCode(error) ?? ''];
      log.warn(
        { server, reason, ...(remedy === undefined ? {} : { remedy }) },
        'no TLS connection to a ZooKeeper server',
      );
    },
    reached(target) {
      latest.delete(formatTarget(target));
      told.delete(formatTarget(target));
    },
    failures: () => Object.fromEntries(latest),
  };
}

/** Nobody is there, which is what the session itself tells of. */
const UNREACHABLE = new Set(['EADDRNOTAVAIL', 'ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'ETIMEDOUT']);
const OTHER_AUTHORITY = 'Set registry.zookeeper.tls.ca_file to the authority that has signed it';
const REMEDIES: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: 'Renew the certificate of the server',
  CERT_NOT_YET_VALID: 'Set the clocks right',
  DEPTH_ZERO_SELF_SIGNED_CERT: OTHER_AUTHORITY,
  ECONNRESET: 'Name the port where the server speaks TLS (secureClientPort)',
  ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED: 'Set registry.zookeeper.tls.cert_file and key_file',
  ERR_TLS_CERT_ALTNAME_INVALID: 'Set registry.zookeeper.tls.server_name to a name in the certificate',
  SELF_SIGNED_CERT_IN_CHAIN: OTHER_AUTHORITY,
  UNABLE_TO_GET_ISSUER_CERT: OTHER_AUTHORITY,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: OTHER_AUTHORITY,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: OTHER_AUTHORITY,
};

function isUnreachable(error: unknown): boolean {
  return UNREACHABLE.has(systemErrorCode(error) ?? '');
}

/** OpenSSL's own message holds the number of a thread and a line of its source. */
function reasonOf(error: unknown): string {
  const code = systemErrorCode(error);
  const isShort = error instanceof Error && 'reason' in error && typeof error.reason === 'string';
  const reason = isShort ? String(error.reason) : messageOf(error);
  return code === undefined || reason.includes(code) ? reason : `${code}: ${reason}`;
}
