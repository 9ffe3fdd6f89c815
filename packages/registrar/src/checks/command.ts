import { stat } from 'node:fs/promises';
import type { Readable } from 'node:stream';

import {
  cleanEnvironment,
  type Ending,
  exitOf,
  killGroup,
  messageOf,
  systemErrorCode,
  withDeadline,
} from '@tandem/core';
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
import { createRefreshed, type Made } from './files.ts';

/** How much of the end of the output is shown as the reason. */
const MAX_OUTPUT_BYTES = 4096;
/** What a program has written before its end is read by then. Longer, only those write who have got away from it. */
const LAST_OUTPUT_MS = 200;
const USERS_FILE = '/etc/passwd';

const Argument = z.string().refine((text) => !text.includes('\0'), 'must not hold a zero byte');

/** `command`: passes when a program exits with 0, or with 1 as a warning. No shell is involved. */
export const CommandSection = z
  .strictObject({
    command: z
      .array(Argument)
      .min(1)
      .refine(([program]) => program !== '', 'must begin with the name of a program')
      .describe('the program and its arguments, one by one; no shell reads them'),
    env: z
      .record(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/, 'is not the name of a variable'), Argument)
      .refine(
        (env) => !('NOTIFY_SOCKET' in env),
        'must not have NOTIFY_SOCKET: systemd would take the program for the registrar',
      )
      .default({})
      .describe(
        'its environment, beside PATH, LANG, TANDEM_SERVICE and TANDEM_PORT; nothing else of the registrar is in it',
      ),
    directory: Argument.regex(/^\//, 'must be an absolute path').default('/').describe('where it is started'),
    user: z
      .union([
        z.string().regex(/^[A-Za-z0-9_][A-Za-z0-9_.-]*\$?$/, 'must be the name of a user'),
        z
          .int()
          .min(0)
          .max(2 ** 32 - 2),
      ])
      .optional()
      .describe(
        `whose rights it has: a name in ${USERS_FILE} or a number, with its first group alone; default: the user of ` +
          'the registrar, which must be root to have another one here',
      ),
    ...scheduleKeys,
  })
  .transform(({ command, env, directory, user, ...schedule }) => ({
    command,
    env,
    directory,
    user,
    schedule: toSchedule(schedule),
  }));

export type CommandConfig = z.output<typeof CommandSection>;

export function createCommandCheck(config: CommandConfig, { service, port }: CheckContext): Check {
  const findUser = config.user === undefined ? undefined : createUser(config.user);
  const env = { ...cleanEnvironment(), TANDEM_SERVICE: service, TANDEM_PORT: String(port), ...config.env };
  return {
    kind: 'command',
    prepare: async () => {
      await import('execa');
    },
    async probe(signal) {
      const user = await findUser?.(signal);
      if (signal.aborted) return CALLED_OFF;
      if (user?.ok === false) return user;
      return run(config, { env, user: user?.value }, signal);
    },
  };
}

interface User {
  readonly uid: number;
  readonly gid: number;
}

interface Surroundings {
  readonly env: Readonly<Record<string, string>>;
  readonly user: User | undefined;
}

/**
 * The program leads a process group of its own, which is killed as a whole when the program ends or the signal does:
 * nothing that a probe starts outlives it. Only a process that leaves the group can get away.
 */
async function run(
  config: CommandConfig,
  { env, user }: Surroundings,
  signal: AbortSignal,
): Promise<ProbeResult> {
  const [program = '', ...rest] = config.command;
  const { execa } = await import('execa');
  if (signal.aborted) return CALLED_OFF;
  const child = execa(program, rest, {
    detached: true,
    reject: false,
    // The output has no limit, what we keep of it does: execa's own limit would kill a talkative program.
    buffer: false,
    stdin: 'ignore',
    env,
    extendEnv: false,
    cwd: config.directory,
    ...user,
  });
  const pipes = [child.stdout, child.stderr];
  const output = keepTail(pipes);
  const killAll = () => killGroup(child.pid);
  child.once('exit', killAll);

  let onAbort: (() => void) | undefined;
  const aborted = new Promise<undefined>((resolve) => {
    onAbort = () => {
      killAll();
      resolve(undefined);
    };
    signal.addEventListener('abort', onAbort, { once: true });
  });
  try {
    // Execa itself waits for pipes to close that somebody else may hold; it knows alone why a program did not start.
    const ending = await Promise.race([aborted, exitOf(child), child]);
    if (ending === undefined) return CALLED_OFF;
    if (ending.exitCode === undefined && ending.signal === undefined)
      return failure(`cannot start ${program}: ${await startReason(ending.cause, config)}`);
    // Only the time or the signal can end without the child.
    await withDeadline(signal, LAST_OUTPUT_MS, () => child).catch(() => {});
    return judge(ending, output());
  } finally {
    if (onAbort !== undefined) signal.removeEventListener('abort', onAbort);
    for (const pipe of pipes) pipe.destroy();
  }
}

function judge({ exitCode, signal }: Ending, output: string): ProbeResult {
  const shown = output === '' ? '' : `: ${output}`;
  if (signal !== undefined) return failure(`killed by ${signal}${shown}`);
  switch (exitCode) {
    case 0:
      return PASS;
    case 1:
      return { ok: true, warning: `exit status 1${shown}` };
    default:
      return failure(`exit status ${exitCode}${shown}`);
  }
}

async function startReason(cause: unknown, { directory, user }: CommandConfig): Promise<string> {
  switch (systemErrorCode(cause)) {
    case 'ENOENT':
    case 'ENOTDIR':
      // The system has one word for both.
      return (await isDirectory(directory)) ? 'no such program' : `there is no directory ${directory}`;
    case 'EACCES':
      return 'permission denied';
    case 'EPERM':
      return `the registrar may not start programs as user ${user}: run it as root, or remove user`;
    case 'E2BIG':
      return 'its arguments and environment are too long';
    case 'EAGAIN':
      return 'too many processes';
    case 'EMFILE':
    case 'ENFILE':
      return 'too many open files';
    default:
      return cause === undefined ? 'unknown reason' : messageOf(cause);
  }
}

async function isDirectory(file: string): Promise<boolean> {
  try {
    return (await stat(file)).isDirectory();
  } catch {
    return false;
  }
}

/** Whose rights that means now: users come and go while the daemon runs. Undefined where it has them already. */
function createUser(user: string | number): (signal: AbortSignal) => Promise<Made<User | undefined>> {
  const users = createRefreshed<ReadonlyMap<string, User>>([USERS_FILE], ([read]) => ({
    ok: true,
    value: parseUsers(read?.text ?? ''),
  }));
  return async (signal) => {
    const read = await users.read(signal);
    if (!read.ok) return read;
    const found =
      read.value.get(String(user)) ?? (typeof user === 'number' ? { uid: user, gid: user } : undefined);
    if (found === undefined)
      return failure(`there is no user ${user} in ${USERS_FILE}: create it, or name another one`);
    return { ok: true, value: found.uid === process.getuid?.() ? undefined : found };
  };
}

/** By name and by number; the first of equals wins, as it does for everybody else. */
function parseUsers(text: string): ReadonlyMap<string, User> {
  const users = new Map<string, User>();
  for (const line of text.split('\n')) {
    const [name = '', , uid = '', gid = ''] = line.split(':');
    if (name === '' || !/^\d+$/.test(uid) || !/^\d+$/.test(gid)) continue;
    const user = { uid: Number(uid), gid: Number(gid) };
    for (const key of [name, String(user.uid)]) if (!users.has(key)) users.set(key, user);
  }
  return users;
}

function keepTail(streams: readonly Readable[]): () => string {
  let tail = Buffer.alloc(0);
  for (const stream of streams) {
    stream.on('data', (chunk: Buffer) => {
      tail = Buffer.concat([tail, chunk]).subarray(-MAX_OUTPUT_BYTES);
    });
  }
  // Lines stay lines; what could move the cursor of a terminal does not.
  return () =>
    tail
      .toString('utf8')
      .replace(/[^\P{C}\n\t]+/gu, ' ')
      .trim();
}
