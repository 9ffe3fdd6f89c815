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
import {
  type Conversation,
  createDialogueCheck,
  hear,
  hearUntil,
  type Part,
  say,
  secure,
} from './dialogue.ts';
import { peerWords } from './peer-words.ts';
import { checkPassword, passwordKeys } from './secret.ts';
import { TlsKey } from './tls.ts';

/** How Redis calls what is configured as a role. */
const ROLES = { master: 'master', replica: 'slave' } as const;

/** `redis`: passes when a Redis server answers PING, and has the role that is asked for. */
export const RedisSection = z
  .strictObject({
    ...addressKeys,
    tls: TlsKey,
    user: z
      .string()
      .min(1)
      .max(256)
      .optional()
      .describe('the user of the password (Redis 6 and later); default: the default user'),
    ...passwordKeys,
    role: z.enum(['master', 'replica']).optional().describe('what the server must be; default: either'),
    ...scheduleKeys,
  })
  .superRefine(checkPassword)
  .refine(
    ({ user, password, password_file: file }) =>
      user === undefined || password !== undefined || file !== undefined,
    'must have password or password_file beside user',
  )
  .transform(({ host, port, tls, user, password, password_file: passwordFile, role, ...schedule }) => ({
    host,
    port,
    tls,
    user,
    password,
    passwordFile,
    role,
    schedule: toSchedule(schedule),
  }));

export type RedisConfig = z.output<typeof RedisSection>;

export function createRedisCheck(config: RedisConfig, context: CheckContext): Check {
  return createDialogueCheck('redis', config, context, (password) => ping(config, password));
}

function* ping({ tls, user, role }: RedisConfig, password: string | undefined): Conversation {
  if (tls !== undefined) yield* secure();
  if (password !== undefined) {
    yield* say(command('AUTH', ...(user === undefined ? [] : [user]), password));
    const answer = yield* hearReply('an answer to AUTH');
    if (answer.kind !== 'simple') return unexpected('AUTH', answer, password);
  }
  yield* say(command('PING'));
  const pong = yield* hearReply('an answer to PING');
  if (pong.kind !== 'simple' || pong.text !== 'PONG') return unexpected('PING', pong, password);
  if (role === undefined) return PASS;
  yield* say(command('ROLE'));
  const roles = yield* hearReply('an answer to ROLE');
  if (roles.kind !== 'list') return unexpected('ROLE', roles, password);
  if (roles.first === ROLES[role]) return PASS;
  return failure(`its role is ${nameOf(roles.first)}, not ${role}`);
}

function nameOf(role: string): string {
  return role === ROLES.replica ? 'replica' : peerWords(role);
}

function command(...words: readonly string[]): string {
  const parts = words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`);
  return `*${words.length}\r\n${parts.join('')}`;
}

/** What the server has answered, as far as anybody here cares. */
type Reply =
  | { readonly kind: 'simple' | 'error' | 'other'; readonly text: string }
  /** Whose first entry is text; the others are left unread. */
  | { readonly kind: 'list'; readonly first: string };

function* hearReply(what: string): Part<Reply> {
  const line = (yield* hearUntil('\r\n', what)).toString('utf8').slice(0, -2);
  const text = line.slice(1);
  if (line.startsWith('+')) return { kind: 'simple', text };
  if (line.startsWith('-')) return { kind: 'error', text };
  if (!/^\*[1-9]\d*$/.test(line)) return { kind: 'other', text: line };
  const head = (yield* hearUntil('\r\n', what)).toString('utf8');
  const length = /^\$(\d{1,6})\r\n$/.exec(head)?.[1];
  if (length === undefined) return { kind: 'other', text: head };
  return { kind: 'list', first: (yield* hear(Number(length), what)).toString('utf8') };
}

function unexpected(asked: string, reply: Reply, password: string | undefined): ProbeResult {
  if (reply.kind === 'list') return failure(`answers ${asked} with a list`);
  const words = peerWords(reply.text, password);
  if (reply.kind !== 'error') return failure(`does not speak the protocol of Redis: "${words}"`);
  const code = /^[A-Z]+/.exec(reply.text)?.[0] ?? '';
  const known = KNOWN_ERRORS[code];
  return failure(known === undefined ? `answers ${asked} with an error: ${words}` : `${known} (${words})`);
}

const KNOWN_ERRORS: Readonly<Record<string, string>> = {
  LOADING: 'is still loading its data',
  MASTERDOWN: 'is a replica whose master is away',
  NOAUTH: 'asks for a password: set password_file',
  WRONGPASS: 'refuses the password or the user',
  NOPERM: 'forbids this to the user: give it +ping, and +role where a role is asked for',
  BUSY: 'is busy with a script',
  MISCONF: 'cannot write its data to the disk',
  DENIED: 'is in protected mode: give it a password, or let it listen on this address only',
};
