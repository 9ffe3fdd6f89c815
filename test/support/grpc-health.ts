// A gRPC server of health on loopback, written with node:http2, which answers whatever a test wants.
import http2, { type ServerHttp2Stream } from 'node:http2';

import { startServer, type TestServer } from '../unit/registrar/support.ts';

/** What a client asked. */
export interface HealthQuestion {
  readonly path: string;
  /** The message as it came, without its frame. */
  readonly message: Buffer;
  readonly headers: http2.IncomingHttpHeaders;
}

export function startGrpcServer(
  answer: (stream: ServerHttp2Stream, question: HealthQuestion) => void,
  tls?: http2.SecureServerOptions,
): Promise<TestServer> {
  const server = tls === undefined ? http2.createServer() : http2.createSecureServer(tls);
  server.on('session', (session) => session.on('error', () => {}));
  server.on('stream', (stream: ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => {
    const chunks: Buffer[] = [];
    stream.on('error', () => {});
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('end', () => {
      const message = Buffer.concat(chunks).subarray(5);
      answer(stream, { path: headers[':path'] ?? '', message, headers });
    });
  });
  return startServer(server);
}

/** A whole answer: these bytes as its body, and what stands after them. */
export function answerBytes(
  stream: ServerHttp2Stream,
  body: Buffer,
  trailers: http2.OutgoingHttpHeaders = { 'grpc-status': '0' },
): void {
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers(trailers));
  stream.end(body);
}

/** One of `ServingStatus`: 1 is SERVING. */
export function answerHealth(stream: ServerHttp2Stream, health: number): void {
  answerBytes(stream, frame(health === 0 ? Buffer.alloc(0) : Buffer.from([0x08, health])));
}

/** Nothing but a status, all of it in the head. */
export function answerStatus(stream: ServerHttp2Stream, status: number, message = ''): void {
  stream.respond(
    {
      ':status': 200,
      'content-type': 'application/grpc',
      'grpc-status': String(status),
      'grpc-message': encodeURIComponent(message),
    },
    { endStream: true },
  );
}

export function frame(message: Buffer, isCompressed = false): Buffer {
  const head = Buffer.alloc(5);
  head[0] = isCompressed ? 1 : 0;
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}
