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
import { answerChallenge } from './mysql-login.ts';
import { peerWords } from './peer-words.ts';
import { checkPassword, passwordKeys } from './secret.ts';
import { TlsKey } from './tls.ts';

/** `mysql`: passes when a MySQL or MariaDB server goes through the whole handshake, and takes the password if there is one. */
export const MysqlSection = z
  .strictObject({
    ...addressKeys,
    tls: TlsKey,
    user: z
      .string()
      .regex(/^\P{Cc}{1,80}$/u, 'must be the name of a user')
      .default('tandem')
      .describe('who it says it is; without a password the server need not know that user'),
    ...passwordKeys,
    ...scheduleKeys,
  })
  .superRefine(checkPassword)
  .transform(({ host, port, tls, user, password, password_file: passwordFile, ...schedule }) => ({
    host,
    port,
    tls,
    user,
    password,
    passwordFile,
    schedule: toSchedule(schedule),
  }));

export type MysqlConfig = z.output<typeof MysqlSection>;

/**
 * The handshake is gone through to its end, whatever the server says in it: a server that is left in the middle takes
 * that for a mistake of this host, and blocks it after some of them (max_connect_errors).
 */
export function createMysqlCheck(config: MysqlConfig, context: CheckContext): Check {
  return createDialogueCheck('mysql', config, context, (password) => login(config, password));
}

const CLIENT = {
  longPassword: 0x1,
  protocol41: 0x200,
  tls: 0x800,
  secureConnection: 0x8000,
  pluginAuth: 0x80000,
} as const;
const FLAGS = CLIENT.longPassword | CLIENT.protocol41 | CLIENT.secureConnection | CLIENT.pluginAuth;
const MAX_PACKET = 1 << 15;
const UTF8MB4 = 45;
const QUIT = Buffer.from([1, 0, 0, 0, 1]);

/** The first byte of an answer. */
const ANSWER = { ok: 0x00, more: 0x01, change: 0xfe, error: 0xff } as const;

function* login(config: MysqlConfig, password: string | undefined): Conversation {
  const first = yield* hearPacket('its greeting');
  if (first.payload[0] === ANSWER.error) return refusal(first.payload, config, password);
  const greeting = readGreeting(first.payload);
  if (greeting === undefined) return notMysql(first.payload, password);
  const isTlsMissing = config.tls !== undefined && (greeting.flags & CLIENT.tls) === 0;
  const isSafe = config.tls !== undefined && !isTlsMissing;
  const state: State = {
    config,
    isSafe,
    // What was meant to be said only over TLS is not said.
    password: isTlsMissing ? undefined : password,
    sequence: first.sequence,
  };
  if (isSafe) {
    yield* sayPacket(state, hello(FLAGS | CLIENT.tls));
    yield* secure();
  }
  const response = answerChallenge(greeting.plugin, state.password, greeting.challenge);
  yield* sayPacket(state, [
    hello(isSafe ? FLAGS | CLIENT.tls : FLAGS),
    Buffer.from(`${config.user}\0`),
    Buffer.from([response?.length ?? 0]),
    response ?? NOTHING,
    // Whoever asks for something that is not known here may know us by something else.
    Buffer.from(`${response === undefined ? 'mysql_native_password' : greeting.plugin}\0`),
  ]);
  const result = yield* hearVerdict(state);
  if (isTlsMissing) return failure('the server does not offer TLS: give it a certificate, or remove tls');
  return result;
}

interface State {
  readonly config: MysqlConfig;
  readonly isSafe: boolean;
  readonly password: string | undefined;
  /** The number of the last packet. */
  sequence: number;
}

function hello(flags: number): Buffer {
  const head = Buffer.alloc(32);
  head.writeUInt32LE(flags, 0);
  head.writeUInt32LE(MAX_PACKET, 4);
  head[8] = UTF8MB4;
  return head;
}

/** Answers whatever the server asks for until it says yes or no. */
function* hearVerdict(state: State): Part<ProbeResult> {
  const { config, password } = state;
  let obstacle: string | undefined;
  for (let round = 0; round < MAX_ROUNDS; round += 1) {
    const { payload, sequence } = yield* hearPacket('an answer to the login');
    state.sequence = sequence;
    switch (payload[0]) {
      case ANSWER.ok:
        yield* say(QUIT);
        return PASS;
      case ANSWER.error:
        return obstacle === undefined ? refusal(payload, config, password) : failure(obstacle);
      case ANSWER.change: {
        const { plugin, challenge } = readChange(payload);
        const response = answerChallenge(plugin, password, challenge);
        if (response === undefined)
          obstacle = `the server wants ${peerWords(plugin)} of "${config.user}": ${PLUGINS}`;
        yield* sayPacket(state, response ?? NOTHING);
        break;
      }
      case ANSWER.more:
        // It has the digest in its cache, and says yes next.
        if (payload[1] === CACHED) break;
        if (!state.isSafe) obstacle = UNSAFE;
        yield* sayPacket(state, Buffer.from(state.isSafe ? `${password ?? ''}\0` : '\0'));
        break;
      case undefined:
      default:
        return notMysql(payload, password);
    }
  }
  return failure('the server does not come to an end with the login');
}

const MAX_ROUNDS = 8;
const CACHED = 3;
const NOTHING = Buffer.alloc(0);
const PLUGINS = 'let that user log in by mysql_native_password or caching_sha2_password';
const UNSAFE =
  'the server wants the password itself, which is told over TLS only: set tls, or let the user log in by mysql_native_password';

interface Packet {
  readonly payload: Buffer;
  readonly sequence: number;
}

function* hearPacket(what: string): Part<Packet> {
  const head = yield* hear(4, what);
  const length = head.readUIntLE(0, 3);
  // Nothing that is said to a login is that long, so these are the words of somebody else.
  if (length > MAX_PACKET) return { payload: head, sequence: 0 };
  const payload = yield* hear(length, what);
  return { payload, sequence: head[3] ?? 0 };
}

function* sayPacket(state: State, parts: Buffer | readonly Buffer[]): Part<void> {
  const payload = Buffer.isBuffer(parts) ? parts : Buffer.concat(parts);
  state.sequence = (state.sequence + 1) & 0xff;
  const head = Buffer.alloc(4);
  head.writeUIntLE(payload.length, 0, 3);
  head[3] = state.sequence;
  yield* say(Buffer.concat([head, payload]));
}

interface Greeting {
  readonly flags: number;
  readonly plugin: string;
  readonly challenge: Buffer;
}

function readGreeting(payload: Buffer): Greeting | undefined {
  const cursor = createCursor(payload);
  const version = cursor.uint(1);
  cursor.text();
  cursor.bytes(4);
  const start = cursor.bytes(8);
  cursor.bytes(1);
  const low = cursor.uint(2, 'little');
  cursor.bytes(3);
  const high = cursor.uint(2, 'little');
  const length = cursor.uint(1);
  cursor.bytes(10);
  // A zero byte ends it.
  const rest = cursor.bytes(Math.max(13, length - 8)).subarray(0, -1);
  const plugin = cursor.bytes(cursor.left).toString('latin1').replace(/\0.*$/s, '');
  const flags = low + high * 0x10000;
  if (!cursor.isSound || version !== 10 || (flags & CLIENT.protocol41) === 0) return undefined;
  return {
    flags,
    plugin: plugin === '' ? 'mysql_native_password' : plugin,
    challenge: Buffer.concat([start, rest]),
  };
}

function readChange(payload: Buffer): { plugin: string; challenge: Buffer } {
  const cursor = createCursor(payload.subarray(1));
  // Without a name it is what MySQL had before 4.1.
  const plugin = cursor.left === 0 ? 'mysql_old_password' : cursor.text();
  const challenge = cursor.bytes(cursor.left);
  return { plugin, challenge: challenge.at(-1) === 0 ? challenge.subarray(0, -1) : challenge };
}

/** What a server says about who we are, and not about itself. */
const LOGIN_REFUSED = new Set([1045, 1130, 1251, 1698]);

function refusal(payload: Buffer, { user }: MysqlConfig, password: string | undefined): ProbeResult {
  const cursor = createCursor(payload.subarray(1));
  const code = cursor.uint(2, 'little');
  const text = cursor
    .bytes(cursor.left)
    .toString('utf8')
    .replace(/^#.{5}/s, '');
  const words = `error ${code}: ${peerWords(text, password)}`;
  if (LOGIN_REFUSED.has(code)) {
    if (password !== undefined) return failure(`the server refuses the login of "${user}" (${words})`);
    const warning = `the server works, but does not know "${user}": create that user, without any rights (${words})`;
    return { ok: true, warning };
  }
  if (code === 1040) return failure(`the server has no connection left (${words})`);
  if (code === 1129)
    return failure(`the server has blocked this host: run mariadb-admin flush-hosts (${words})`);
  return failure(`the server answers with ${words}`);
}

function notMysql(heard: Buffer, password: string | undefined): ProbeResult {
  return failure(`does not speak the protocol of MySQL: "${peerWords(heard, password)}"`);
}
