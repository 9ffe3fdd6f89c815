import * as z from 'zod';

import {
  type Check,
  type CheckContext,
  failure,
  PASS,
  type ProbeResult,
  scheduleKeys,
  toSchedule,
} from '../check.ts';
import { addressKeys } from './address.ts';
import { createCursor } from './cursor.ts';
import { type Conversation, createDialogueCheck, hear, type Part, say, secure } from './dialogue.ts';
import { peerWords } from './peer-words.ts';
import { checkPassword, passwordKeys } from './secret.ts';
import { TlsKey } from './tls.ts';

/** What fits into a short string of the protocol. */
const ShortText = z
  .string()
  .regex(/^\P{Cc}+$/u, 'must be text without control characters')
  .refine((text) => Buffer.byteLength(text) <= 255, 'must be at most 255 bytes');

/** `rabbitmq`: passes when a RabbitMQ server (AMQP 0-9-1) opens a virtual host for a user, and closes it properly. */
export const RabbitmqSection = z
  .strictObject({
    ...addressKeys,
    tls: TlsKey,
    vhost: ShortText.default('/').describe('the virtual host that is opened'),
    user: ShortText.default('guest').describe(
      'who it says it is; guest is known only to callers on the same host',
    ),
    ...passwordKeys,
    ...scheduleKeys,
  })
  .superRefine(checkPassword)
  .transform(({ host, port, tls, vhost, user, password, password_file: passwordFile, ...schedule }) => ({
    host,
    port,
    tls,
    vhost,
    user,
    password,
    passwordFile,
    schedule: toSchedule(schedule),
  }));

export type RabbitmqConfig = z.output<typeof RabbitmqSection>;

/** As a new server has it, for its user guest. */
const DEFAULT_PASSWORD = 'guest';

/** The connection is closed as the protocol has it: a server that is just left writes a warning into its log. */
export function createRabbitmqCheck(config: RabbitmqConfig, context: CheckContext): Check {
  return createDialogueCheck('rabbitmq', config, context, (password) =>
    open(config, password ?? DEFAULT_PASSWORD),
  );
}

const GREETING = Buffer.from('AMQP\x00\x00\x09\x01', 'latin1');
const MAX_FRAME = 1 << 15;
const FRAME_END = 0xce;
const METHOD_FRAME = 1;
const HEARTBEAT_FRAME = 8;

/** Class 10, connection: the methods of its beginning and its end. */
const METHOD = {
  start: 10,
  startOk: 11,
  tune: 30,
  tuneOk: 31,
  open: 40,
  openOk: 41,
  close: 50,
  closeOk: 51,
} as const;

function* open(config: RabbitmqConfig, password: string): Conversation {
  if (config.tls !== undefined) yield* secure();
  yield* say(GREETING);
  const start = yield* hearMethod('its greeting');
  if (start.method !== METHOD.start) return unexpected(start, 'its greeting', password);
  const response = longText(`\0${config.user}\0${password}`);
  yield* say(method(METHOD.startOk, CLIENT_PROPERTIES, shortText('PLAIN'), response, shortText('en_US')));
  const tune = yield* hearMethod(`an answer to the login of "${config.user}"`);
  if (tune.method !== METHOD.tune) return yield* leave(tune, `the login of "${config.user}"`, password);
  // As the server wants it, but without heartbeats: the connection does not last that long.
  yield* say(method(METHOD.tuneOk, tune.rest.subarray(0, 6), uint(0, 2)));
  yield* say(method(METHOD.open, shortText(config.vhost), shortText(''), uint(0, 1)));
  const opened = yield* hearMethod(`the virtual host "${config.vhost}"`);
  if (opened.method !== METHOD.openOk)
    return yield* leave(opened, `the virtual host "${config.vhost}"`, password);
  yield* say(method(METHOD.close, uint(200, 2), shortText('probe'), uint(0, 4)));
  yield* hearUntilClosed();
  return PASS;
}

/** Only with this capability the server says why it refuses a login, before it closes. */
const CLIENT_PROPERTIES = table({
  product: 'tandem',
  information: 'health check',
  capabilities: { authentication_failure_close: true },
});

interface Heard {
  /** Undefined for what is not a method of a connection. */
  readonly method: number | undefined;
  /** Its arguments, or whatever came instead of a method. */
  readonly rest: Buffer;
}

function* hearMethod(what: string): Part<Heard> {
  for (;;) {
    const head = yield* hear(7, what);
    // A server that does not want this version of the protocol answers with its own, and closes.
    if (head.toString('latin1', 0, 4) === 'AMQP') return { method: undefined, rest: head };
    const length = head.readUInt32BE(3);
    // Nothing that is said to a login is that long, so these are the words of somebody else.
    if (length > MAX_FRAME) return { method: undefined, rest: head };
    const payload = yield* hear(length + 1, what);
    if (payload.at(-1) !== FRAME_END) return { method: undefined, rest: Buffer.concat([head, payload]) };
    if (head[0] === HEARTBEAT_FRAME) continue;
    const cursor = createCursor(payload.subarray(0, -1));
    const [classId, method] = [cursor.uint(2), cursor.uint(2)];
    const isConnection = head[0] === METHOD_FRAME && classId === 10 && cursor.isSound;
    return { method: isConnection ? method : undefined, rest: cursor.bytes(cursor.left) };
  }
}

/** Whatever is said meanwhile, the server has to have heard our close before it answers to that. */
function* hearUntilClosed(): Part<void> {
  for (;;) {
    const { method } = yield* hearMethod('the end of the connection');
    if (method === METHOD.closeOk || method === undefined) return;
  }
}

/** The server closes and says why; that is confirmed. */
function* leave(heard: Heard, asked: string, password: string): Part<ProbeResult> {
  if (heard.method === METHOD.close) yield* say(method(METHOD.closeOk));
  return unexpected(heard, asked, password);
}

function unexpected({ method, rest }: Heard, asked: string, password: string): ProbeResult {
  if (method === METHOD.close) {
    const cursor = createCursor(rest);
    const code = cursor.uint(2);
    const text = cursor.bytes(cursor.uint(1)).toString('utf8');
    return failure(`the server refuses ${asked} (${code}: ${peerWords(text, password)})`);
  }
  const version =
    rest.toString('latin1', 0, 4) === 'AMQP' ? 'the server does not speak AMQP 0-9-1' : undefined;
  return failure(version ?? `does not speak AMQP: "${peerWords(rest, password)}"`);
}

function method(id: number, ...parts: readonly Buffer[]): Buffer {
  const payload = Buffer.concat([uint(10, 2), uint(id, 2), ...parts]);
  return Buffer.concat([
    uint(METHOD_FRAME, 1),
    uint(0, 2),
    uint(payload.length, 4),
    payload,
    uint(FRAME_END, 1),
  ]);
}

function uint(value: number, bytes: 1 | 2 | 4): Buffer {
  const buffer = Buffer.alloc(bytes);
  buffer.writeUIntBE(value, 0, bytes);
  return buffer;
}

function shortText(text: string): Buffer {
  return Buffer.concat([uint(Buffer.byteLength(text), 1), Buffer.from(text)]);
}

function longText(text: string): Buffer {
  return Buffer.concat([uint(Buffer.byteLength(text), 4), Buffer.from(text)]);
}

interface Table {
  readonly [key: string]: string | boolean | Table;
}

function table(entries: Table): Buffer {
  const body = Buffer.concat(
    Object.entries(entries).flatMap(([key, value]) => [shortText(key), ...tableValue(value)]),
  );
  return Buffer.concat([uint(body.length, 4), body]);
}

function tableValue(value: string | boolean | Table): readonly Buffer[] {
  if (typeof value === 'string') return [Buffer.from('S'), longText(value)];
  if (typeof value === 'boolean') return [Buffer.from('t'), uint(value ? 1 : 0, 1)];
  return [Buffer.from('F'), table(value)];
}
