import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import http from 'node:http';
import type { ServerHttp2Stream } from 'node:http2';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';

import { Metadata, Server, ServerCredentials, status, type handleUnaryCall } from '@grpc/grpc-js';

import { checkConformance } from '../../conformance/check.ts';
import { createAuthority } from '../../support/certificates.ts';
import {
  answerBytes,
  answerHealth,
  answerStatus,
  frame,
  type HealthQuestion,
  startGrpcServer,
} from '../../support/grpc-health.ts';
import { checkOf, NEVER, reasonOf, subject } from './check-support.ts';
import { eventually, freePort, startServer } from './support.ts';

/** The reason of one probe against a server that answers like this. */
async function probeGrpc(
  answer: (stream: ServerHttp2Stream, question: HealthQuestion) => void,
  options: Record<string, unknown> = {},
): Promise<string> {
  const server = await startGrpcServer(answer);
  try {
    return reasonOf(await checkOf({ grpc: options }, server.port).probe(NEVER));
  } finally {
    await server.close();
  }
}

describe('grpc check', () => {
  checkConformance('grpc', {
    async healthy() {
      const server = await startGrpcServer((stream) => answerHealth(stream, 1));
      return { check: checkOf({ grpc: {} }, server.port), leftovers: server.open, close: server.close };
    },
    async absent() {
      return subject(checkOf({ grpc: { port: await freePort() } }));
    },
    async hanging() {
      const server = await startGrpcServer(() => {});
      return {
        check: checkOf({ grpc: {} }, server.port),
        leftovers: server.open,
        close: server.close,
        begun: () => eventually(() => server.open() > 0, 'a connection'),
      };
    },
    wire: {
      serve: () => startGrpcServer((stream) => answerHealth(stream, 1)),
      checkAt: (port) => checkOf({ grpc: { port } }),
    },
  });

  test('asks about the service by its name, or about the server as a whole', async () => {
    const seen: HealthQuestion[] = [];
    const answer = (stream: ServerHttp2Stream, question: HealthQuestion) => {
      seen.push(question);
      answerHealth(stream, 1);
    };
    const long = 'x'.repeat(200);
    for (const service of [undefined, 'shop.Cart', long])
      assert.equal(
        await probeGrpc(answer, service === undefined ? {} : { service, timeout: '2s' }),
        'passed',
      );
    assert.deepEqual(
      seen.map(({ message }) => message.toString('latin1')),
      ['', '\n\tshop.Cart', `\n\u00c8\u0001${long}`],
    );
    const [, { path, headers } = seen[0]!] = seen;
    assert.equal(path, '/grpc.health.v1.Health/Check');
    assert.deepEqual(
      [headers['content-type'], headers['te'], headers['grpc-timeout']],
      ['application/grpc', 'trailers', '2000m'],
    );
  });

  test('passes on SERVING alone, and names everything else', async () => {
    const probe = (health: number) => probeGrpc((stream) => answerHealth(stream, health));
    assert.equal(await probe(1), 'passed');
    assert.equal(await probe(0), 'UNKNOWN');
    assert.equal(await probe(2), 'NOT_SERVING');
    assert.equal(await probe(3), 'SERVICE_UNKNOWN');
    assert.equal(await probe(9), 'the answer is not one about health: a status of 9');
  });

  test('passes over what newer protocols add to the answer', async () => {
    const message = Buffer.from([
      0x12, 2, 0x61, 0x62, 0x08, 1, 0x19, 1, 2, 3, 4, 5, 6, 7, 8, 0x25, 1, 2, 3, 4,
    ]);
    assert.equal(await probeGrpc((stream) => answerBytes(stream, frame(message))), 'passed');
  });

  test('has a reason of its own for each status of gRPC, in the head or after the body', async () => {
    const reasons = new Map<number, string>();
    for (let code = 1; code <= 17; code += 1) {
      const reason = await probeGrpc((stream) => answerStatus(stream, code, 'why ü'));
      const trailers = { 'grpc-status': String(code), 'grpc-message': encodeURIComponent('why ü') };
      assert.equal(await probeGrpc((stream) => answerBytes(stream, Buffer.alloc(0), trailers)), reason);
      assert.match(reason, /: why ü$/);
      reasons.set(code, reason);
    }
    assert.equal(new Set(reasons.values()).size, 17);
    assert.match(reasons.get(5) ?? '', /^the server knows no health of itself/);
    assert.match(reasons.get(12) ?? '', /^the server does not implement grpc.health.v1.Health/);
    assert.match(reasons.get(14) ?? '', /^UNAVAILABLE/);
  });

  test('fails on answers that are compressed, garbage or too long', async () => {
    const good = Buffer.from([0x08, 1]);
    for (const [body, reason] of [
      [frame(good, true), /compressed/],
      [Buffer.alloc(0), /no message/],
      [frame(good).subarray(0, 6), /not one about health/],
      [Buffer.concat([frame(good), frame(good)]), /not one about health/],
      [frame(Buffer.from([0x08])), /not one about health/],
      [
        frame(Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
        /not one about health/,
      ],
      [frame(Buffer.from([0x12, 0x7f, 1])), /not one about health/],
      [frame(Buffer.alloc(5_000)), /too long/],
    ] as const)
      assert.match(await probeGrpc((stream) => answerBytes(stream, body)), reason);
    assert.match(
      await probeGrpc((stream) => answerBytes(stream, frame(good), {})),
      /no grpc-status in the answer/,
    );
  });

  test('fails on what answers by HTTP, but not as gRPC', async () => {
    assert.match(
      await probeGrpc((stream) => stream.respond({ ':status': 502 }, { endStream: true })),
      /HTTP status 502/,
    );
    assert.match(
      await probeGrpc((stream) => stream.respond({ ':status': 200 }, { endStream: true })),
      /no grpc-status/,
    );
    const server = await startServer(http.createServer((_, response) => response.end()));
    assert.match(
      reasonOf(await checkOf({ grpc: {} }, server.port).probe(NEVER)),
      /the answer is not HTTP\/2/,
    );
    await server.close();
  });

  test('speaks TLS where it is told to', async () => {
    const directory = mkdtempSync(path.join(tmpdir(), 'tandem-grpc-'));
    const authority = await createAuthority(directory, 'grpc');
    const { certFile, keyFile } = await authority.issue('server', ['DNS:grpc.test']);
    const server = await startGrpcServer((stream) => answerHealth(stream, 1), {
      cert: readFileSync(certFile),
      key: readFileSync(keyFile),
    });
    const probe = async (tls: unknown) =>
      reasonOf(await checkOf({ grpc: { tls } }, server.port).probe(NEVER));
    assert.equal(await probe({ ca_file: authority.caFile, server_name: 'grpc.test' }), 'passed');
    assert.equal(await probe({ verify: false }), 'passed');
    assert.match(await probe({ ca_file: authority.caFile }), /^TLS: .*server_name/);
    assert.match(await probe(true), /^TLS: .*ca_file/);
    await server.close();
    rmSync(directory, { recursive: true });
  });
});

describe('grpc check of the reference implementation', () => {
  const bytes = { serialize: (value: Buffer) => value, deserialize: (value: Buffer) => value };

  async function startReference(check?: handleUnaryCall<Buffer, Buffer>) {
    const server = new Server();
    const method = { path: '/grpc.health.v1.Health/Check', requestStream: false, responseStream: false };
    if (check !== undefined)
      server.addService(
        {
          Check: {
            ...method,
            requestSerialize: bytes.serialize,
            requestDeserialize: bytes.deserialize,
            responseSerialize: bytes.serialize,
            responseDeserialize: bytes.deserialize,
          },
        },
        { Check: check },
      );
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) =>
        error === null ? resolve(port) : reject(error),
      );
    });
    return { port, close: () => server.forceShutdown() };
  }

  async function probe(check: handleUnaryCall<Buffer, Buffer> | undefined, service = ''): Promise<string> {
    const server = await startReference(check);
    const result = reasonOf(await checkOf({ grpc: { service } }, server.port).probe(NEVER));
    server.close();
    return result;
  }

  test('passes when it serves, and tells why it does not', async () => {
    assert.equal(await probe((_, callback) => callback(null, Buffer.from([0x08, 1]))), 'passed');
    assert.equal(await probe((_, callback) => callback(null, Buffer.from([0x08, 2]))), 'NOT_SERVING');
    const unknown = { code: status.NOT_FOUND, details: 'unknown service' };
    assert.equal(
      await probe((_, callback) => callback({ ...unknown, metadata: new Metadata() }), 'shop.Cart'),
      'the server knows no health of "shop.Cart": unknown service',
    );
    assert.match(await probe(undefined), /^the server does not implement grpc.health.v1.Health/);
  });

  test('is understood by it', async () => {
    let asked: Buffer | undefined;
    await probe((call, callback) => {
      asked = call.request;
      callback(null, Buffer.from([0x08, 1]));
    }, 'shop.Cart');
    assert.equal(asked?.toString('latin1'), '\n\tshop.Cart');
  });
});
