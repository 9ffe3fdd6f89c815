import { createHash, randomBytes } from 'node:crypto';

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
import { createScram, type ScramMemory } from './scram.ts';
import { checkPassword, passwordKeys } from './secret.ts';
import { TlsKey } from './tls.ts';

const Name = z.string().regex(/^\P{Cc}{1,63}$/u, 'must be a name of at most 63 characters');

/** `postgres`: passes when a PostgreSQL server takes connections, and the password if there is one. */
export const PostgresSection = z
  .strictObject({
    ...addressKeys,
    tls: TlsKey,
    user: Name.default('tandem').describe(
      'who it says it is; without a password the server need not know that user',
    ),
    database: Name.optional().describe(
      'what it connects to, which must exist then; default: called like the user',
    ),
    ...passwordKeys,
    ...scheduleKeys,
  })
  .superRefine(checkPassword)
  .transform(({ host, port, tls, user, database, password, password_file: passwordFile, ...schedule }) => ({
    host,
    port,
    tls,
    user,
    database,
    password,
    passwordFile,
    schedule: toSchedule(schedule),
  }));

export type PostgresConfig = z.output<typeof PostgresSection>;

/**
 * Without a password it does as pg_isready: a server that asks who we are takes connections. With one it logs in. What it
 * leaves is a connection closed at a point where the server writes nothing into its log about that.
 */
export function createPostgresCheck(config: PostgresConfig, context: CheckContext): Check {
  const memory: ScramMemory = {};
  return createDialogueCheck('postgres', config, context, (password) =>
    connect({ config, password, memory }),
  );
}

interface Login {
  readonly config: PostgresConfig;
  readonly password: string | undefined;
  readonly memory: ScramMemory;
}

const PROTOCOL_3 = 196_608;
const TLS_REQUEST = 80_877_103;
const MAX_MESSAGE = 1 << 15;

function* connect(login: Login): Conversation {
  const { config, password } = login;
  if (config.tls !== undefined) {
    const failed = yield* askForTls();
    if (failed !== undefined) return failed;
  }
  const settings = {
    user: config.user,
    database: config.database ?? config.user,
    application_name: 'tandem',
  };
  const words = Object.entries(settings).map(([key, value]) => `${key}\0${value}\0`);
  yield* say(message('', uint(PROTOCOL_3), `${words.join('')}\0`));
  for (;;) {
    const { kind, body } = yield* hearMessage('an answer to the login');
    switch (kind) {
      case 'R': {
        const failed = yield* authenticate(login, body);
        if (failed !== undefined) return failed;
        break;
      }
      case 'E':
        return refusal(body, login);
      case 'Z':
        yield* say(message('X'));
        return PASS;
      // Its settings, its keys, and what it has to say besides.
      case 'S':
      case 'K':
      case 'N':
      case 'v':
        break;
      default:
        return failure(`does not speak the protocol of PostgreSQL: "${peerWords(kind, password)}"`);
    }
  }
}

function* askForTls(): Part<ProbeResult | undefined> {
  yield* say(message('', uint(TLS_REQUEST)));
  const answer = (yield* hear(1, 'an answer about TLS')).toString('latin1');
  if (answer === 'N') return failure('the server does not offer TLS: set ssl = on there, or remove tls');
  if (answer !== 'S') return failure('does not speak the protocol of PostgreSQL');
  yield* secure();
  return undefined;
}

const AUTH = { ok: 0, cleartext: 3, md5: 5, sasl: 10, saslContinue: 11, saslFinal: 12 } as const;

/** Says what the server asks for. The result only where it is known by then. */
function* authenticate(login: Login, asked: Buffer): Part<ProbeResult | undefined> {
  const { config, password } = login;
  const method = asked.length < 4 ? -1 : asked.readUInt32BE(0);
  const rest = asked.subarray(4);
  if (method === AUTH.ok) return undefined;
  if (password === undefined) return PASS;
  switch (method) {
    case AUTH.cleartext:
      yield* say(message('p', `${password}\0`));
      return undefined;
    case AUTH.md5:
      yield* say(message('p', `md5${md5(md5(password + config.user), rest.subarray(0, 4))}\0`));
      return undefined;
    case AUTH.sasl:
      return yield* authenticateByScram({ ...login, password }, rest);
    default:
      return failure(
        `the server wants a login that is not known here (${method}): let the user log in by scram-sha-256`,
      );
  }
}

function* authenticateByScram(
  login: Login & { password: string },
  offered: Buffer,
): Part<ProbeResult | undefined> {
  if (!offered.toString('latin1').split('\0').includes('SCRAM-SHA-256'))
    return failure('the server offers no SCRAM-SHA-256');
  const scram = createScram(login.password, randomBytes(18).toString('base64'), login.memory);
  yield* say(message('p', 'SCRAM-SHA-256\0', uint(scram.first.length), scram.first));
  const challenge = yield* hearSasl(login, AUTH.saslContinue);
  if (!challenge.ok) return challenge.result;
  const proof = yield* scram.proof(challenge.text);
  if (!proof.ok) return failure(proof.reason);
  yield* say(message('p', proof.text));
  const final = yield* hearSasl(login, AUTH.saslFinal);
  if (!final.ok) return final.result;
  return scram.isConfirmed(final.text) ? undefined : failure('the server does not know the password either');
}

type Sasl =
  { readonly ok: true; readonly text: string } | { readonly ok: false; readonly result: ProbeResult };

function* hearSasl(login: Login, expected: number): Part<Sasl> {
  const { kind, body } = yield* hearMessage('an answer to the password');
  if (kind === 'E') return { ok: false, result: refusal(body, login) };
  if (kind !== 'R' || body.length < 4 || body.readUInt32BE(0) !== expected)
    return { ok: false, result: failure('the server does not speak SCRAM as it should') };
  return { ok: true, text: body.subarray(4).toString('latin1') };
}

interface Message {
  readonly kind: string;
  readonly body: Buffer;
}

function* hearMessage(what: string): Part<Message> {
  const head = yield* hear(5, what);
  const kind = head.toString('latin1', 0, 1);
  const length = head.readUInt32BE(1);
  // Nothing that is said to a login is that long, so these are the words of somebody else.
  if (length < 4 || length > MAX_MESSAGE) return { kind: head.toString('latin1'), body: Buffer.alloc(0) };
  return { kind, body: yield* hear(length - 4, what) };
}

function message(kind: '' | 'p' | 'X', ...parts: readonly (Buffer | string)[]): Buffer {
  const body = Buffer.concat(parts.map((part) => (Buffer.isBuffer(part) ? part : Buffer.from(part))));
  return Buffer.concat([Buffer.from(kind), uint(body.length + 4), body]);
}

function uint(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function md5(...parts: readonly (Buffer | string)[]): string {
  return parts.reduce((hash, part) => hash.update(part), createHash('md5')).digest('hex');
}

/** What a server refuses, by SQLSTATE: who we are is another matter than how it is. */
function refusal(body: Buffer, { config, password }: Login): ProbeResult {
  const fields = readFields(body);
  const state = fields.get('C') ?? '';
  const words = `${peerWords(state)}: ${peerWords(fields.get('M') ?? '', password)}`;
  if (state === '57P03') return failure(`the server does not take connections yet, or no longer (${words})`);
  if (state === '53300') return failure(`the server has no connection left (${words})`);
  if (state.startsWith('28') && password !== undefined)
    return failure(`the server refuses the login of "${config.user}" (${words})`);
  const isMissing = state === '3D000' && config.database === undefined;
  if (state.startsWith('28') || isMissing)
    return { ok: true, warning: `the server works, but does not let "${config.user}" in (${words})` };
  return failure(`the server answers with error ${words}`);
}

function readFields(body: Buffer): ReadonlyMap<string, string> {
  const cursor = createCursor(body);
  const fields = new Map<string, string>();
  while (cursor.left > 1) {
    const key = cursor.bytes(1).toString('latin1');
    fields.set(key, cursor.text());
  }
  return fields;
}
