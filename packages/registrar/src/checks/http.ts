import http from 'node:http';

import { messageOf, systemErrorCode } from '@tandem/core';
import * as z from 'zod';

import {
  CALLED_OFF,
  type Check,
  type CheckContext,
  failure,
  type ProbeResult,
  scheduleKeys,
  toSchedule,
} from '../check.ts';
import { addressKeys, authorityOf } from './address.ts';
import { createDial, isSelfConnected, type Line, lineReason } from './dial.ts';
import { exchangeHttp2, HTTP2_PROTOCOLS } from './http2.ts';
import { type Answer, createExpectation, type Expectation, expectKeys } from './http-expect.ts';
import { TlsKey } from './tls.ts';

const METHODS = ['GET', 'HEAD', 'OPTIONS', 'POST', 'PUT', 'PATCH', 'DELETE'] as const;
/** Those that say by themselves how long a message is, or how a connection goes on. */
const FRAMING = new Set([
  'content-length',
  'transfer-encoding',
  'upgrade',
  'expect',
  'te',
  'trailer',
  'keep-alive',
  'proxy-connection',
  'http2-settings',
]);

/** `http`: passes when the answer to a request is as expected. Redirects are not followed. */
export const HttpSection = z
  .strictObject({
    path: z
      .string()
      .regex(/^\/[\x21-\x7e]*$/, 'must begin with "/" and hold no spaces')
      .describe('what is requested, such as /health'),
    ...addressKeys,
    method: z.enum(METHODS).default('GET').describe('how it is requested'),
    headers: z
      .record(z.string().refine(isHeaderName, 'is not the name of a header'), z.string())
      .refine(hasOnlyHeaderValues, 'must not hold line breaks or other control characters')
      .superRefine(checkHeaderNames)
      .default({})
      .describe(
        'sent with the request, Host among them; default for that: the host and port that are probed',
      ),
    body: z
      .string()
      .max(64 << 10)
      .optional()
      .describe('sent with the request'),
    http_version: z
      .literal([1.1, 2])
      .default(1.1)
      .describe('2: within TLS by agreement (ALPN), without it from the first byte (h2c)'),
    tls: TlsKey,
    ...expectKeys,
    ...scheduleKeys,
  })
  .superRefine(checkBodies)
  .transform(
    ({
      http_version: version,
      expect_status: status,
      expect_body: expectedBody,
      max_body: maxBodyBytes,
      path,
      host,
      port,
      method,
      headers,
      body,
      tls,
      ...schedule
    }) => ({
      path,
      host,
      port,
      method,
      headers,
      body,
      version,
      tls,
      expect: { status, body: expectedBody, maxBodyBytes },
      schedule: toSchedule(schedule),
    }),
  );

export type HttpConfig = z.output<typeof HttpSection>;

export function createHttpCheck(config: HttpConfig, context: CheckContext): Check {
  const isHttp2 = config.version === 2;
  const dial = createDial(config, context, isHttp2 ? HTTP2_PROTOCOLS : undefined);
  const expectation = createExpectation(config.expect);
  const exchange = (isHttp2 ? http2Exchange : http1Exchange)(config, context.port, expectation);

  async function probe(signal: AbortSignal): Promise<ProbeResult> {
    if (signal.aborted) return CALLED_OFF;
    const line = await dial(signal);
    if (!line.ok) return line;
    const answer = await exchange(line, signal);
    if (!answer.ok) return answer;
    if (!expectation.isStatus(answer.status)) return failure(`status ${answer.status}`);
    const result = await expectation.judge(answer, signal);
    return result.ok && line.warning !== undefined ? { ok: true, warning: line.warning } : result;
  }
  return {
    kind: 'http',
    async probe(signal) {
      try {
        return await probe(signal);
      } catch (error) {
        if (signal.aborted) return CALLED_OFF;
        throw error;
      }
    },
  };
}

type OpenLine = Extract<Line, { ok: true }>;
type Failure = Extract<ProbeResult, { ok: false }>;
type Exchanged = ({ readonly ok: true } & Answer) | Failure;

/** One request on a connection of its own, which is gone in the end. Of a status that fails, no body is read. */
type Exchange = (line: OpenLine, signal: AbortSignal) => Promise<Exchanged>;

function http1Exchange(config: HttpConfig, servicePort: number, expectation: Expectation): Exchange {
  const { path, method, tls } = config;
  const body = bodyOf(config);
  const headers = {
    host: hostHeader(config, servicePort),
    'user-agent': 'tandem-registrar',
    ...config.headers,
    // Node does not think of a DELETE as something with a body, and would send it as a request of its own.
    ...(body === undefined ? {} : { 'content-length': body.length }),
    connection: 'close',
  };
  return (line, signal) => {
    if (signal.aborted) return Promise.resolve(CALLED_OFF);
    return new Promise((resolve) => {
      const socket = line.connect();
      // By a reset: an orderly end would keep the port from the service for a minute. Within TLS it makes no sense of itself.
      if (tls === undefined)
        socket.once('connect', () => {
          if (isSelfConnected(socket)) socket.resetAndDestroy();
        });
      // Without an agent there is no pool: a kept connection would go on passing when no new one is accepted any more.
      const outgoing = http.request({ path, method, headers, createConnection: () => socket });
      const finish = (result: Exchanged) => {
        signal.removeEventListener('abort', onAbort);
        outgoing.destroy();
        resolve(result);
      };
      const onAbort = () => finish(CALLED_OFF);
      signal.addEventListener('abort', onAbort, { once: true });
      outgoing.on('response', (response) => readAnswer(response, expectation, finish));
      outgoing.on('error', (error) => finish(failure(reasonOf(error))));
      // After an error or a response nobody is listening any more; an upgrade that nobody asked for ends here.
      outgoing.on('close', () => finish(failure('connection closed without an answer')));
      outgoing.end(body);
    });
  };
}

/** A service that sends a good status and then hangs is not well, so the body counts, up to a limit. */
function readAnswer(
  response: http.IncomingMessage,
  { isStatus, isBodyJudged, maxBodyBytes }: Expectation,
  finish: (result: Exchanged) => void,
): void {
  const { statusCode: status = 0 } = response;
  const encoding = response.headers['content-encoding'] ?? 'identity';
  const chunks: Buffer[] = [];
  let size = 0;
  const answer = (isWhole: boolean) =>
    finish({ ok: true, status, encoding, body: Buffer.concat(chunks), isWhole });
  if (!isStatus(status)) {
    answer(false);
    return;
  }
  response.on('data', (chunk: Buffer) => {
    if (isBodyJudged) chunks.push(chunk.subarray(0, maxBodyBytes - size));
    size += chunk.length;
    if (size > maxBodyBytes) answer(false);
  });
  response.on('end', () => answer(true));
  response.on('error', () => finish(failure('connection closed within the body')));
}

function http2Exchange(config: HttpConfig, servicePort: number, expectation: Expectation): Exchange {
  const { path, method, tls } = config;
  const lowered = Object.entries(config.headers).map(([name, value]) => [name.toLowerCase(), value] as const);
  const { host = hostHeader(config, servicePort), connection: _, ...others } = Object.fromEntries(lowered);
  const headers = {
    ':method': method,
    ':path': path,
    ':scheme': tls === undefined ? 'http' : 'https',
    ':authority': host,
    'user-agent': 'tandem-registrar',
    ...others,
  };
  const request = {
    headers,
    body: bodyOf(config),
    maxBodyBytes: expectation.maxBodyBytes,
    wantsBody: (status: number) => expectation.isStatus(status),
  };
  return async (line, signal) => {
    const answer = await exchangeHttp2(line, request, signal);
    if (!answer.ok) return answer;
    const { head, body, isWhole } = answer;
    const encoding = head['content-encoding'] ?? 'identity';
    return { ok: true, status: answer.status, encoding, body, isWhole };
  };
}

function bodyOf({ body }: HttpConfig): Buffer | undefined {
  return body === undefined ? undefined : Buffer.from(body);
}

function hostHeader({ host, port, tls }: HttpConfig, servicePort: number): string {
  const asked = port ?? servicePort;
  const authority = authorityOf(host, asked);
  return asked === (tls === undefined ? 80 : 443) ? authority.replace(/:\d+$/, '') : authority;
}

function reasonOf(error: Error): string {
  const code = systemErrorCode(error) ?? '';
  if (code.startsWith('HPE_')) return `the answer is not HTTP: ${messageOf(error)}`;
  return lineReason(error);
}

interface MessageKeys {
  readonly method: (typeof METHODS)[number];
  readonly body?: string | undefined;
  readonly expect_body?: unknown;
}

function checkBodies({ method, body, expect_body: expected }: MessageKeys, context: z.RefinementCtx): void {
  const refuse = (path: string, message: string) =>
    context.addIssue({ code: 'custom', path: [path], message });
  if (body !== undefined && (method === 'GET' || method === 'HEAD'))
    refuse('body', `is not for a ${method}: remove it, or set method: POST`);
  if (expected !== undefined && method === 'HEAD')
    refuse('expect_body', 'has nothing to look at: there is no body in the answer to a HEAD');
}

function checkHeaderNames(headers: Readonly<Record<string, string>>, context: z.RefinementCtx): void {
  const seen = new Set<string>();
  for (const name of Object.keys(headers)) {
    const lower = name.toLowerCase();
    const path = [name];
    if (FRAMING.has(lower))
      context.addIssue({ code: 'custom', path, message: 'cannot be chosen: remove it' });
    else if (seen.has(lower))
      context.addIssue({ code: 'custom', path, message: 'stands here twice: names of headers have no case' });
    seen.add(lower);
  }
}

function isHeaderName(name: string): boolean {
  return succeeds(() => http.validateHeaderName(name));
}

function hasOnlyHeaderValues(headers: Readonly<Record<string, string>>): boolean {
  return Object.entries(headers).every(([name, value]) =>
    succeeds(() => http.validateHeaderValue(name, value)),
  );
}

function succeeds(validate: () => void): boolean {
  try {
    validate();
    return true;
  } catch {
    return false;
  }
}
