import http from 'node:http';

import { withDeadline } from '../deadline.ts';
import { isTandemError, messageOf } from '../errors.ts';
import type { Log } from '../log.ts';
import { openControlSocket } from './socket.ts';

/** What somebody has asked for, with the parts of the path that a route leaves open. */
export interface ControlRequest {
  readonly params: Readonly<Record<string, string>>;
  /** What came as JSON; undefined when nothing came. Not yet known to be anything. */
  readonly body: unknown;
  /** Aborted when nobody waits for the answer any more. */
  readonly signal: AbortSignal;
}

/** Refusals are answers, too; the code is for programs, the message for people. */
export type ControlAnswer =
  | { readonly ok: true; readonly body: unknown }
  | {
      readonly ok: false;
      readonly status: 400 | 404 | 409 | 503;
      readonly code: string;
      readonly message: string;
    };

export interface ControlRoute {
  readonly method: 'GET' | 'PUT' | 'POST' | 'DELETE';
  /** Such as `/v1/services/:service`: a part with a colon stands for any text. */
  readonly path: string;
  /** How long an answer may take. Default: ten seconds. */
  readonly limitMs?: number;
  answer(request: ControlRequest): ControlAnswer | Promise<ControlAnswer>;
}

/** A daemon's ear for its operators. */
export interface ControlServer {
  /** Answers what is under way, takes nothing new, and removes the socket. Never rejects. */
  close(): Promise<void>;
}

export interface ControlOptions {
  /** The absolute path of the socket. */
  readonly file: string;
  /** Who may use it beside the owner: a name or number; default: the group of this process. */
  readonly group?: string | undefined;
  readonly routes: readonly ControlRoute[];
  readonly log: Log;
}

const MAX_BODY_BYTES = 64 * 1024;
const MAX_CONNECTIONS = 256;
const ANSWER_LIMIT_MS = 10_000;
const CLOSE_GRACE_MS = 2_000;

/** What a daemon says to a request that it does not know: whoever asked is newer or older than it. */
export const UNKNOWN_REQUEST = 'UNKNOWN_REQUEST';

/**
 * Answers JSON over HTTP on a unix socket, to its owner and group alone. A route that throws costs its own request.
 * Throws `ALREADY_RUNNING` if another process answers there, `FILE_WRITE_FAILED` if the socket cannot be made.
 */
export async function openControl(options: ControlOptions): Promise<ControlServer> {
  const ending = new AbortController();
  const server = http.createServer(
    {
      headersTimeout: 5_000,
      requestTimeout: 10_000,
      keepAliveTimeout: 1_000,
      connectionsCheckingInterval: 1_000,
    },
    (request, response) => void respond(request, response, options, ending.signal),
  );
  server.maxConnections = MAX_CONNECTIONS;
  const removeSocket = await openControlSocket(server, options.file, options.group);
  server.on('error', (error) => options.log.warn({ err: error.message }, 'the control socket has failed'));
  return {
    async close() {
      await removeSocket().catch(() => {});
      const closed = new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
      server.closeIdleConnections();
      const timer = setTimeout(() => {
        ending.abort(new Error('the daemon ends'));
        server.closeAllConnections();
      }, CLOSE_GRACE_MS);
      await closed;
      clearTimeout(timer);
    },
  };
}

interface Refusal {
  readonly status: number;
  readonly code: string;
  readonly message: string;
  readonly allow?: string;
}

async function respond(
  request: http.IncomingMessage,
  response: http.ServerResponse,
  { routes, log }: ControlOptions,
  ending: AbortSignal,
): Promise<void> {
  const refuse = ({ status, code, message, allow }: Refusal) =>
    send(response, status, { error: { code, message } }, allow);
  // A client that leaves in the middle is nobody's failure.
  request.on('error', () => {});
  response.on('error', () => {});
  const asking = new AbortController();
  const leave = () => asking.abort(ending.aborted ? ending.reason : new Error('whoever asked has gone'));
  response.once('close', leave);
  ending.addEventListener('abort', leave, { once: true });
  try {
    const found = findRoute(routes, request.method ?? '', request.url ?? '');
    if ('status' in found) {
      refuse(found);
      return;
    }
    const body = await readBody(request);
    if (!body.ok) {
      refuse(body);
      return;
    }
    const answer = await withDeadline(asking.signal, found.route.limitMs ?? ANSWER_LIMIT_MS, async (signal) =>
      found.route.answer({ params: found.params, body: body.value, signal }),
    );
    if (answer.ok) send(response, 200, answer.body);
    else refuse(answer);
  } catch (error) {
    if (asking.signal.aborted && error === asking.signal.reason) return;
    if (isTandemError(error, 'DEADLINE_EXCEEDED')) {
      refuse({ status: 504, code: error.code, message: 'the daemon did not get it done in time' });
      return;
    }
    log.error({ method: request.method, err: messageOf(error) }, 'could not answer on the control socket');
    refuse({ status: 500, code: 'INTERNAL', message: 'a fault in the daemon; its log says more' });
  } finally {
    ending.removeEventListener('abort', leave);
  }
}

function findRoute(
  routes: readonly ControlRoute[],
  method: string,
  url: string,
): { readonly route: ControlRoute; readonly params: Readonly<Record<string, string>> } | Refusal {
  let parts: string[];
  try {
    parts = url.replace(/\?.*$/s, '').split('/').map(decodeURIComponent);
  } catch {
    return { status: 400, code: 'BAD_REQUEST', message: 'the path is not well encoded' };
  }
  const matches = routes.flatMap((route) => {
    const params = matchPath(route.path.split('/'), parts);
    return params === undefined ? [] : [{ route, params }];
  });
  const match = matches.find(({ route }) => route.method === method);
  if (match !== undefined) return match;
  if (matches.length === 0)
    return { status: 404, code: UNKNOWN_REQUEST, message: 'this daemon does not know that request' };
  const allow = matches.map(({ route }) => route.method).join(', ');
  return { status: 405, code: UNKNOWN_REQUEST, message: `that takes only ${allow}`, allow };
}

function matchPath(
  pattern: readonly string[],
  parts: readonly string[],
): Readonly<Record<string, string>> | undefined {
  if (pattern.length !== parts.length) return undefined;
  const params = new Map<string, string>();
  for (const [index, expected] of pattern.entries()) {
    const part = parts[index] ?? '';
    if (!expected.startsWith(':')) {
      if (expected !== part) return undefined;
    } else if (part === '') return undefined;
    else params.set(expected.slice(1), part);
  }
  return Object.fromEntries(params);
}

async function readBody(
  request: http.IncomingMessage,
): Promise<{ readonly ok: true; readonly value: unknown } | ({ readonly ok: false } & Refusal)> {
  const chunks: Buffer[] = [];
  let size = 0;
  // Leaving the loop early must not cut the connection: the refusal goes over it.
  const incoming = request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>;
  for await (const chunk of incoming) {
    size += chunk.length;
    if (size > MAX_BODY_BYTES) {
      const message = `more than ${MAX_BODY_BYTES} bytes came`;
      return { ok: false, status: 413, code: 'TOO_LARGE', message };
    }
    chunks.push(chunk);
  }
  if (size === 0) return { ok: true, value: undefined };
  try {
    return { ok: true, value: JSON.parse(Buffer.concat(chunks).toString('utf8')) };
  } catch {
    return { ok: false, status: 400, code: 'BAD_REQUEST', message: 'what came is not JSON' };
  }
}

function send(response: http.ServerResponse, status: number, body: unknown, allow?: string): void {
  if (response.headersSent || response.destroyed) return;
  const text = `${JSON.stringify(body)}\n`;
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
    'cache-control': 'no-store',
    // What a refused request still has to say is not waited for.
    ...(status === 200 ? {} : { connection: 'close' }),
    ...(allow === undefined ? {} : { allow }),
  });
  response.end(text);
}
