import http2 from 'node:http2';
import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';

import { messageOf, systemErrorCode } from '@tandem/core';

import { CALLED_OFF, failure } from '../check.ts';
import { type Line, lineReason } from './dial.ts';

/** What is offered within TLS. */
export const HTTP2_PROTOCOLS = ['h2'];

export interface Http2Request {
  readonly headers: http2.OutgoingHttpHeaders;
  readonly body?: Buffer | undefined;
  /** How much of the body is read. */
  readonly maxBodyBytes: number;
  /** Whether what comes after a head with such a status is of interest. */
  wantsBody(status: number): boolean;
}

export interface Http2Answer {
  readonly ok: true;
  readonly status: number;
  readonly head: http2.IncomingHttpHeaders;
  readonly body: Buffer;
  /** Undefined where there are none, or the body was not read to its end. */
  readonly trailers: http2.IncomingHttpHeaders | undefined;
  readonly isWhole: boolean;
}

/** One request on a connection of its own, which is gone in the end. */
export function exchangeHttp2(
  line: Extract<Line, { ok: true }>,
  request: Http2Request,
  signal: AbortSignal,
): Promise<Http2Answer | Extract<Line, { ok: false }>> {
  if (signal.aborted) return Promise.resolve(CALLED_OFF);
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    let size = 0;
    let hasEnded = false;
    let head: (http2.IncomingHttpHeaders & http2.IncomingHttpStatusHeader) | undefined;
    let trailers: http2.IncomingHttpHeaders | undefined;
    const socket = line.connect();
    const session = http2.connect('http://service', {
      createConnection: () => socket,
      settings: { enablePush: false },
    });
    const stream = session.request(request.headers);

    const finish = (result: Http2Answer | Extract<Line, { ok: false }>) => {
      signal.removeEventListener('abort', onAbort);
      stream.destroy();
      session.destroy();
      // A session that has not begun leaves it open.
      socket.destroy();
      resolve(result);
    };
    const answer = (isWhole: boolean) => {
      if (head === undefined) finish(failure(BROKEN));
      else
        finish({
          ok: true,
          status: head[':status'] ?? 0,
          head,
          body: Buffer.concat(chunks, size),
          trailers,
          isWhole,
        });
    };
    const fail = (error: Error) => finish(failure(http2Reason(error, socket)));
    const onAbort = () => finish(CALLED_OFF);
    signal.addEventListener('abort', onAbort, { once: true });

    session.on('connect', () => {
      if (socket instanceof TLSSocket && socket.alpnProtocol !== 'h2') finish(failure(NO_HTTP2_IN_TLS));
    });
    session.on('error', fail);
    session.on('close', () => finish(failure(BROKEN)));
    stream.on('error', fail);
    stream.on('response', (received) => {
      head = received;
      if (!request.wantsBody(received[':status'] ?? 0)) answer(false);
    });
    stream.on('trailers', (received) => {
      trailers = received;
    });
    stream.on('data', (chunk: Buffer) => {
      const kept = chunk.subarray(0, request.maxBodyBytes - size);
      size += kept.length;
      chunks.push(kept);
      if (kept.length < chunk.length) answer(false);
    });
    stream.on('end', () => {
      hasEnded = true;
    });
    // What breaks within the body ends it, too. By now it is known what has happened, and the trailers are there.
    stream.on('close', () => {
      if (hasEnded && stream.rstCode === http2.constants.NGHTTP2_NO_ERROR) answer(true);
      else finish(failure(head === undefined ? BROKEN : 'connection closed within the body'));
    });
    stream.end(request.body);
  });
}

const BROKEN = 'connection closed without an answer';
const NO_HTTP2_IN_TLS = 'the service does not offer HTTP/2 within TLS';

function http2Reason(error: Error, socket: Socket): string {
  const code = systemErrorCode(error) ?? '';
  // A request that never got under way only says so; why stands beneath.
  if (code === 'ERR_HTTP2_STREAM_CANCEL' && error.cause instanceof Error)
    return http2Reason(error.cause, socket);
  if (code === 'ERR_HTTP2_ERROR') return `the answer is not HTTP/2: ${messageOf(error)}`;
  if (code.startsWith('ERR_HTTP2_')) return `the service ended the request: ${messageOf(error)}`;
  if (socket instanceof TLSSocket && code === 'ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL')
    return NO_HTTP2_IN_TLS;
  return lineReason(error);
}
