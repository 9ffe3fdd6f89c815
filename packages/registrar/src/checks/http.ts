import http from 'node:http';

import { messageOf, systemErrorCode } from '@tandem/core';
import * as z from 'zod';

import {
  CALLED_OFF,
  type Check,
  type CheckContext,
  failure,
  PASS,
  type ProbeResult,
  scheduleKeys,
  toSchedule,
} from '../check.ts';
import { addressKeys, connectionReason } from './address.ts';

/** A longer body is not worth reading: the status has said what there is to say. */
const MAX_BODY_BYTES = 64 * 1024;

const Status = z.number().int().min(200).max(599);

/** `http`: passes when the status of a request is as expected. Redirects are not followed. */
export const HttpSection = z
  .strictObject({
    path: z
      .string()
      .regex(/^\/[\x21-\x7e]*$/, 'must begin with "/" and hold no spaces')
      .describe('what is requested, such as /health'),
    ...addressKeys,
    method: z.enum(['GET', 'HEAD', 'OPTIONS', 'POST']).default('GET').describe('how it is requested'),
    headers: z
      .record(z.string().refine(isHeaderName, 'is not the name of a header'), z.string())
      .refine(hasOnlyHeaderValues, 'must not hold line breaks or other control characters')
      .default({})
      .describe('sent with the request'),
    expect_status: z
      .union([Status, z.array(Status).min(1)])
      .optional()
      .describe('the status that passes, or a list of them; default: 200 to 399'),
    ...scheduleKeys,
  })
  .transform(({ path, host, port, method, headers, expect_status: expected, ...schedule }) => ({
    path,
    host,
    port,
    method,
    headers,
    expectStatus: typeof expected === 'number' ? [expected] : expected,
    schedule: toSchedule(schedule),
  }));

export type HttpConfig = z.output<typeof HttpSection>;

export function createHttpCheck(config: HttpConfig, context: CheckContext): Check {
  return { kind: 'http', probe: (signal) => request(config, context.port, signal) };
}

function request(config: HttpConfig, servicePort: number, signal: AbortSignal): Promise<ProbeResult> {
  if (signal.aborted) return Promise.resolve(CALLED_OFF);
  return new Promise((resolve) => {
    const outgoing = http.request({
      host: config.host,
      port: config.port ?? servicePort,
      path: config.path,
      method: config.method,
      headers: { 'user-agent': 'tandem-registrar', ...config.headers, connection: 'close' },
      // A pooled connection would go on passing after the service has stopped accepting new ones.
      agent: false,
    });
    const finish = (result: ProbeResult) => {
      signal.removeEventListener('abort', onAbort);
      outgoing.destroy();
      resolve(result);
    };
    const onAbort = () => finish(CALLED_OFF);
    signal.addEventListener('abort', onAbort, { once: true });
    outgoing.on('response', (response) => {
      const status = response.statusCode ?? 0;
      if (isExpected(status, config.expectStatus)) drain(response, finish);
      else finish(failure(`status ${status}`));
    });
    outgoing.on('error', (error) => finish(failure(reasonOf(error))));
    // After an error or a response nobody is listening any more; an upgrade that nobody asked for ends here.
    outgoing.on('close', () => finish(failure('connection closed without an answer')));
    outgoing.end();
  });
}

function isExpected(status: number, expected: readonly number[] | undefined): boolean {
  return expected === undefined ? status >= 200 && status <= 399 : expected.includes(status);
}

/** A service that sends a good status and then hangs is not well, so the body counts, up to a limit. */
function drain(response: http.IncomingMessage, finish: (result: ProbeResult) => void): void {
  let bytes = 0;
  response.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes > MAX_BODY_BYTES) finish(PASS);
  });
  response.on('end', () => finish(PASS));
  response.on('error', () => finish(failure('connection closed within the body')));
}

function reasonOf(error: Error): string {
  const code = systemErrorCode(error) ?? '';
  if (code.startsWith('HPE_')) return `the answer is not HTTP: ${messageOf(error)}`;
  return connectionReason(error);
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
