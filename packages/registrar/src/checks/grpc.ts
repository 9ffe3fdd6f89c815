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
import { addressKeys, authorityOf } from './address.ts';
import { createDial } from './dial.ts';
import { exchangeHttp2, HTTP2_PROTOCOLS, type Http2Answer } from './http2.ts';
import { peerWords } from './peer-words.ts';
import { TlsKey } from './tls.ts';

/** An answer has a few bytes; whoever sends more speaks of something else. */
const MAX_BODY_BYTES = 1_024;

/** `grpc`: passes when the server says SERVING by the standard protocol of health, `grpc.health.v1.Health/Check`. */
export const GrpcSection = z
  .strictObject({
    service: z
      .string()
      .max(256)
      .default('')
      .describe(
        'which service of the server is asked about, such as shop.Cart; default: the server as a whole',
      ),
    ...addressKeys,
    tls: TlsKey,
    ...scheduleKeys,
  })
  .transform(({ service, host, port, tls, ...schedule }) => ({
    service,
    host,
    port,
    tls,
    schedule: toSchedule(schedule),
  }));

export type GrpcConfig = z.output<typeof GrpcSection>;

export function createGrpcCheck(config: GrpcConfig, context: CheckContext): Check {
  const dial = createDial(config, context, HTTP2_PROTOCOLS);
  const request = {
    headers: {
      ':method': 'POST',
      ':path': '/grpc.health.v1.Health/Check',
      ':scheme': config.tls === undefined ? 'http' : 'https',
      ':authority': authorityOf(config.host, config.port ?? context.port),
      'content-type': 'application/grpc',
      te: 'trailers',
      'user-agent': 'tandem-registrar',
      'grpc-timeout': `${config.schedule.timeoutMs}m`,
    },
    body: encodeRequest(config.service),
    maxBodyBytes: MAX_BODY_BYTES,
    wantsBody: (status: number) => status === 200,
  };
  return {
    kind: 'grpc',
    async probe(signal) {
      if (signal.aborted) return CALLED_OFF;
      const line = await dial(signal);
      if (!line.ok) return line;
      const answer = await exchangeHttp2(line, request, signal);
      if (!answer.ok) return answer;
      const result = judge(answer, config.service);
      return result.ok && line.warning !== undefined ? { ok: true, warning: line.warning } : result;
    },
  };
}

/** A frame that is not compressed, with a message whose first field is the name. */
function encodeRequest(service: string): Buffer {
  const name = Buffer.from(service);
  const message =
    name.length === 0 ? name : Buffer.concat([Buffer.from([0x0a, ...encodeVarint(name.length)]), name]);
  const frame = Buffer.alloc(5);
  frame.writeUInt32BE(message.length, 1);
  return Buffer.concat([frame, message]);
}

function encodeVarint(value: number): number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...encodeVarint(value >>> 7)];
}

function judge({ status, head, body, trailers, isWhole }: Http2Answer, service: string): ProbeResult {
  if (status !== 200)
    return failure(`HTTP status ${status}: this is not a gRPC server, or something before it`);
  if (!isWhole) return failure('the answer is too long for one about health');
  // Where there is nothing but a status, it stands in the head.
  const code = trailers?.['grpc-status'] ?? head['grpc-status'];
  if (code === undefined) return failure('no grpc-status in the answer: this is not a gRPC server');
  if (code !== '0') return failure(statusReason(String(code), messageIn(trailers ?? head), service));
  const message = decodeFrame(body);
  return message.ok ? judgeHealth(message.bytes) : message;
}

function messageIn({ 'grpc-message': message }: Readonly<Record<string, unknown>>): string {
  if (typeof message !== 'string' || message === '') return '';
  try {
    return `: ${peerWords(decodeURIComponent(message))}`;
  } catch {
    return `: ${peerWords(message)}`;
  }
}

const UNIMPLEMENTED = '12';
const NOT_FOUND = '5';

const STATUS_NAMES: Readonly<Record<string, string>> = {
  1: 'CANCELLED',
  2: 'UNKNOWN',
  3: 'INVALID_ARGUMENT',
  4: 'DEADLINE_EXCEEDED',
  [NOT_FOUND]: 'NOT_FOUND',
  6: 'ALREADY_EXISTS',
  7: 'PERMISSION_DENIED',
  8: 'RESOURCE_EXHAUSTED',
  9: 'FAILED_PRECONDITION',
  10: 'ABORTED',
  11: 'OUT_OF_RANGE',
  [UNIMPLEMENTED]: 'UNIMPLEMENTED',
  13: 'INTERNAL',
  14: 'UNAVAILABLE',
  15: 'DATA_LOSS',
  16: 'UNAUTHENTICATED',
};

function statusReason(code: string, message: string, service: string): string {
  if (code === NOT_FOUND)
    return `the server knows no health of ${service === '' ? 'itself' : JSON.stringify(service)}${message}`;
  if (code === UNIMPLEMENTED) return `the server does not implement grpc.health.v1.Health${message}`;
  return `${STATUS_NAMES[code] ?? `status ${peerWords(code)}`}${message}`;
}

type Decoded =
  { readonly ok: true; readonly bytes: Buffer } | { readonly ok: false; readonly reason: string };

function decodeFrame(body: Buffer): Decoded {
  if (body.length < 5) return failure('no message in the answer');
  if (body[0] === 1) return failure('the answer is compressed, which was not asked for');
  if (body[0] !== 0 || body.readUInt32BE(1) !== body.length - 5) return failure(GARBAGE);
  return { ok: true, bytes: body.subarray(5) };
}

const GARBAGE = 'the answer is not one about health';

/** The names of `ServingStatus`. */
const HEALTH_NAMES: readonly string[] = ['UNKNOWN', 'SERVING', 'NOT_SERVING', 'SERVICE_UNKNOWN'];

/** The first field of the message is its only one; what newer protocols add to it is passed over. */
function judgeHealth(message: Buffer): ProbeResult {
  let health = 0;
  let rest: Buffer | undefined = message;
  while (rest.length > 0) {
    const field = readField(rest);
    if (field === undefined) return failure(GARBAGE);
    if (field.key === 0x08) health = field.value;
    rest = rest.subarray(field.length);
  }
  return HEALTH_NAMES[health] === 'SERVING'
    ? PASS
    : failure(HEALTH_NAMES[health] ?? `${GARBAGE}: a status of ${health}`);
}

interface Field {
  /** Its number and its type, as they stand in the message. */
  readonly key: number;
  /** Of a number; else its length. */
  readonly value: number;
  readonly length: number;
}

function readField(bytes: Buffer): Field | undefined {
  const key = readVarint(bytes, 0);
  if (key === undefined) return undefined;
  const type = key.value % 8;
  // Numbers of a fixed size.
  const fixed = type === 1 ? 8 : type === 5 ? 4 : undefined;
  if (fixed !== undefined) return within(bytes, { key: key.value, value: fixed, length: key.end + fixed });
  const value = type === 0 || type === 2 ? readVarint(bytes, key.end) : undefined;
  if (value === undefined) return undefined;
  const length = type === 0 ? value.end : value.end + value.value;
  return within(bytes, { key: key.value, value: value.value, length });
}

function within(bytes: Buffer, field: Field): Field | undefined {
  return field.length <= bytes.length ? field : undefined;
}

function readVarint(bytes: Buffer, start: number): { value: number; end: number } | undefined {
  let value = 0;
  for (let at = start; at < Math.min(bytes.length, start + 10); at += 1) {
    const byte = bytes[at] ?? 0;
    value += (byte & 0x7f) * 2 ** (7 * (at - start));
    if (byte < 0x80) return { value, end: at + 1 };
  }
  return undefined;
}
