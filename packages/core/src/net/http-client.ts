import http from 'node:http';
import https from 'node:https';
import type { Socket } from 'node:net';

import { formatDuration } from '../duration.ts';
import { messageOf, systemErrorCode } from '../errors.ts';

/** A GET; nothing else is ever asked of a backend. */
export interface HttpRequest {
  readonly url: URL;
  /** The unix socket to go through; host and port of the url mean nothing then. */
  readonly socketPath?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Told to these origins and to no other, wherever a redirect leads. */
  readonly credentials?: { readonly authorization: string; readonly origins: readonly string[] };
  /** Texts in PEM. */
  readonly tls?: {
    readonly ca?: string | undefined;
    readonly cert?: string | undefined;
    readonly key?: string | undefined;
  };
  /** How many redirects are followed, within the scheme of the url. Default: none. */
  readonly maxRedirects?: number;
}

export interface HttpLimits {
  readonly connectMs: number;
  /** From the connection to the head of the answer. */
  readonly firstByteMs: number;
  /** From the head to the end of the body. */
  readonly wholeMs: number;
  /** How long a stream may say nothing: its other end may have gone without a word. */
  readonly silenceMs: number;
  readonly maxBodyBytes: number;
  /** What a line of a stream has beyond that is dropped. */
  readonly maxLineBytes: number;
}

const DEFAULT_LIMITS: HttpLimits = {
  connectMs: 5_000,
  firstByteMs: 10_000,
  wholeMs: 30_000,
  silenceMs: 300_000,
  maxBodyBytes: 32 << 20,
  maxLineBytes: 64 << 10,
};

/** The first probe after this much silence; the kernel gives a connection up ten unanswered ones later. */
const KEEP_ALIVE_MS = 30_000;
const CALLED_OFF = 'called off';

interface Unanswered {
  readonly ok: false;
  readonly reason: string;
}

export type HttpAnswer = { readonly ok: true; readonly status: number; readonly body: Buffer } | Unanswered;

/**
 * The whole answer, whatever its status. A backend that is away, slow or talks nonsense is a reason, not an exception;
 * so is the end of the signal. Its connection is gone by then.
 */
export async function fetchBody(
  request: HttpRequest,
  signal: AbortSignal,
  limits: Partial<HttpLimits> = {},
): Promise<HttpAnswer> {
  const all = { ...DEFAULT_LIMITS, ...limits };
  const opened = await openFollowing(request, signal, all);
  if (!opened.ok) return opened;
  const { response } = opened;
  try {
    return await readBody(opened, all);
  } catch (error) {
    return { ok: false, reason: opened.explain(error) };
  } finally {
    response.destroy();
    opened.end();
  }
}

/**
 * Follows an answer that does not end, line by line, until it is cut or the signal ends, and resolves with the reason.
 * `onOpen` comes with its head; an answer with another status than 200 is a reason.
 */
export async function followLines(
  request: HttpRequest,
  deps: { onOpen: () => void; onLine: (line: string) => void; signal: AbortSignal },
  limits: Partial<HttpLimits> = {},
): Promise<string> {
  const all = { ...DEFAULT_LIMITS, ...limits };
  const opened = await openFollowing(request, deps.signal, all);
  if (!opened.ok) return opened.reason;
  const { response, limit } = opened;
  const splitter = createLineSplitter(all.maxLineBytes, deps.onLine);
  try {
    const { statusCode: status } = response;
    if (status !== 200) return `status ${status}`;
    deps.onOpen();
    const watchSilence = () => limit.set(all.silenceMs, `nothing came for ${formatDuration(all.silenceMs)}`);
    watchSilence();
    for await (const chunk of response) {
      watchSilence();
      splitter.push(chunk as Buffer);
    }
    return 'the stream has ended';
  } catch (error) {
    return opened.explain(error);
  } finally {
    response.destroy();
    opened.end();
  }
}

/** Calls back for every line, without its end; holds no more than one line, and no more of that than allowed. */
export function createLineSplitter(
  maxLineBytes: number,
  onLine: (line: string) => void,
): { push(chunk: Buffer): void } {
  let parts: Buffer[] = [];
  let held = 0;
  function hold(bytes: Buffer): void {
    const kept = bytes.subarray(0, maxLineBytes - held);
    if (kept.length === 0) return;
    parts.push(kept);
    held += kept.length;
  }
  return {
    push(chunk) {
      let start = 0;
      for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, start)) {
        hold(chunk.subarray(start, end));
        const line = Buffer.concat(parts).toString('utf8').replace(/\r$/, '');
        parts = [];
        held = 0;
        start = end + 1;
        onLine(line);
      }
      // A copy: the rest must not keep the whole chunk in memory.
      hold(Buffer.from(chunk.subarray(start, start + maxLineBytes)));
    },
  };
}

/** An answer whose head is there. Whoever has it calls `end`. */
interface Opened {
  readonly ok: true;
  readonly response: http.IncomingMessage;
  /** Only one limit holds at a time. */
  readonly limit: Limit;
  /** Why reading it has failed. */
  explain(error: unknown): string;
  end(): void;
}

async function openFollowing(
  request: HttpRequest,
  signal: AbortSignal,
  limits: HttpLimits,
): Promise<Opened | Unanswered> {
  let { url } = request;
  for (let redirects = 0; ; redirects += 1) {
    const opened = await open({ ...request, url }, signal, limits);
    if (!opened.ok || request.maxRedirects === undefined) return opened;
    const { statusCode = 0, headers } = opened.response;
    if (![301, 302, 303, 307, 308].includes(statusCode) || headers.location === undefined) return opened;
    opened.response.destroy();
    opened.end();
    if (redirects === request.maxRedirects) return { ok: false, reason: `more than ${redirects} redirects` };
    const next = URL.canParse(headers.location, url.href) ? new URL(headers.location, url) : undefined;
    if (next?.protocol !== url.protocol)
      return { ok: false, reason: 'a redirect that leads to another scheme' };
    url = next;
  }
}

function open(request: HttpRequest, signal: AbortSignal, limits: HttpLimits): Promise<Opened | Unanswered> {
  if (signal.aborted) return Promise.resolve({ ok: false, reason: CALLED_OFF });
  return new Promise((resolve) => {
    let response: http.IncomingMessage | undefined;
    let stopped: string | undefined;
    const outgoing = send(request);
    const stop = (reason: string) => {
      stopped ??= reason;
      response?.destroy(new Error(reason));
      outgoing.destroy();
    };
    const limit = createLimit(stop);
    const onAbort = () => stop(CALLED_OFF);
    const end = () => {
      limit.clear();
      signal.removeEventListener('abort', onAbort);
      outgoing.destroy();
    };
    const explain = (error: unknown) => stopped ?? reasonOf(error);
    const fail = (reason: string) => {
      if (response !== undefined) return;
      end();
      resolve({ ok: false, reason: stopped ?? reason });
    };
    signal.addEventListener('abort', onAbort, { once: true });
    limit.set(limits.connectMs, `no connection within ${formatDuration(limits.connectMs)}`);
    outgoing.on('socket', (socket: Socket) => {
      socket.setKeepAlive(true, KEEP_ALIVE_MS);
      socket.once(request.url.protocol === 'https:' ? 'secureConnect' : 'connect', () =>
        limit.set(limits.firstByteMs, `no answer within ${formatDuration(limits.firstByteMs)}`),
      );
    });
    outgoing.on('response', (incoming) => {
      response = incoming;
      // Its reader hears of it; between two readings nobody would.
      response.on('error', () => {});
      limit.clear();
      resolve({ ok: true, response, limit, explain, end });
    });
    outgoing.on('error', (error) => fail(reasonOf(error)));
    outgoing.on('close', () => fail('closed without an answer'));
    outgoing.end();
  });
}

function send({ url, socketPath, headers, credentials, tls }: HttpRequest): http.ClientRequest {
  const isKnown = credentials?.origins.includes(url.origin) === true;
  const options = {
    // A literal of IPv6 is in brackets in a url, and only there.
    hostname: url.hostname.replace(/^\[|\]$/g, ''),
    port: url.port,
    path: `${url.pathname}${url.search}`,
    ...(socketPath === undefined ? {} : { socketPath }),
    headers: {
      'user-agent': 'tandem',
      ...headers,
      ...(isKnown ? { authorization: credentials.authorization } : {}),
    },
    // A pooled connection may have been cut without a word, and is open when everything is meant to be closed.
    agent: false as const,
  };
  if (url.protocol !== 'https:') return http.request(options);
  const { ca, cert, key } = tls ?? {};
  return https.request({
    ...options,
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
  });
}

async function readBody({ response, limit }: Opened, limits: HttpLimits): Promise<HttpAnswer> {
  const { maxBodyBytes, wholeMs } = limits;
  const { statusCode: status = 0, headers } = response;
  const tooLarge = { ok: false, reason: `an answer of more than ${maxBodyBytes} bytes` } as const;
  if (Number(headers['content-length'] ?? 0) > maxBodyBytes) return tooLarge;
  if ((headers['content-encoding'] ?? 'identity') !== 'identity')
    return { ok: false, reason: 'an encoded answer, which was not asked for' };
  limit.set(wholeMs, `no whole answer within ${formatDuration(wholeMs)}`);
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response) {
    size += (chunk as Buffer).length;
    if (size > maxBodyBytes) return tooLarge;
    chunks.push(chunk as Buffer);
  }
  return { ok: true, status, body: Buffer.concat(chunks, size) };
}

interface Limit {
  /** Stops with this reason after that time, in place of the limit before. */
  set(ms: number, reason: string): void;
  clear(): void;
}

function createLimit(stop: (reason: string) => void): Limit {
  let timer: NodeJS.Timeout | undefined;
  let last: NodeJS.Immediate | undefined;
  const clear = () => {
    clearTimeout(timer);
    clearImmediate(last);
  };
  return {
    set(ms, reason) {
      clear();
      // After a stall of this process timers run before sockets are read: what has arrived in time is looked at first.
      timer = setTimeout(() => {
        last = setImmediate(() => stop(reason));
      }, ms);
    },
    clear,
  };
}

function reasonOf(error: unknown): string {
  const code = systemErrorCode(error) ?? '';
  if (code.startsWith('HPE_')) return 'the answer is not HTTP';
  switch (code) {
    case 'ECONNREFUSED':
      return 'connection refused';
    case 'ECONNRESET':
    case 'EPIPE':
    case 'ERR_STREAM_PREMATURE_CLOSE':
      return 'the connection was cut';
    case 'ENOENT':
      return 'there is no such socket';
    case 'EACCES':
      return 'the socket may not be used by this user';
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return 'its name does not resolve';
    default:
      return messageOf(error).slice(0, 200);
  }
}
