import type { ChildProcess } from 'node:child_process';
import type { Readable } from 'node:stream';

import { withDeadline } from './deadline.ts';
import { isTandemError, messageOf } from './errors.ts';

/** What became of a program. */
export type CommandResult =
  | { readonly kind: 'exited'; readonly code: number; readonly output: string }
  | { readonly kind: 'killed'; readonly signal: string; readonly output: string }
  | { readonly kind: 'timed-out'; readonly output: string }
  | { readonly kind: 'not-started'; readonly cause: unknown; readonly output: string };

const MAX_OUTPUT_BYTES = 256 * 1024;
/** What a program has written before its end is read by then. Longer, only those whom it left behind write. */
const LAST_OUTPUT_MS = 200;

/**
 * Runs a program without a shell, with nothing of this process' environment but PATH beside what it is given, and waits
 * for its end, not for that of what it leaves running: a reload command may start a daemon. Its stdout and stderr come
 * back as one text, cut at 256 KB. However it ends is a value; rejects only with the reason of the signal. At its time
 * limit, and with the signal, it is killed with everything that it has started, unless that has left its process group.
 */
export async function runCommand(
  argv: readonly string[],
  options: {
    signal: AbortSignal;
    timeoutMs: number;
    env?: Readonly<Record<string, string>>;
  },
): Promise<CommandResult> {
  const { execa } = await import('execa');
  const { signal, timeoutMs, env } = options;
  signal.throwIfAborted();
  const [program = '', ...args] = argv;
  const child = execa(program, args, {
    detached: true,
    reject: false,
    // The output has no limit, what we keep of it does: execa's own limit would kill a talkative program.
    buffer: false,
    stdin: 'ignore',
    env: { ...cleanEnvironment(), ...env },
    extendEnv: false,
  });
  const pipes = [child.stdout, child.stderr];
  const output = keepHead(pipes);
  try {
    // Execa itself waits for pipes to close that somebody else may hold; it knows alone why a program did not start.
    const ending = await withDeadline(signal, timeoutMs, () => Promise.race([exitOf(child), child]));
    if (ending.exitCode === undefined && ending.signal === undefined)
      return { kind: 'not-started', cause: ending.cause ?? new Error(messageOf(ending)), output: output() };
    await withDeadline(signal, LAST_OUTPUT_MS, () => child).catch(ignoreDeadline);
    return ending.signal === undefined
      ? { kind: 'exited', code: ending.exitCode ?? 0, output: output() }
      : { kind: 'killed', signal: ending.signal, output: output() };
  } catch (error) {
    if (!hasEnded(child)) killGroup(child.pid);
    signal.throwIfAborted();
    ignoreDeadline(error);
    return { kind: 'timed-out', output: output() };
  } finally {
    for (const pipe of pipes) pipe.destroy();
  }
}

/** How a child has ended; without a code and a signal it was never there. */
export interface Ending {
  readonly exitCode?: number | undefined;
  readonly signal?: string | undefined;
  readonly cause?: unknown;
}

/** Resolves with its end, whoever still holds its pipes. */
export function exitOf(child: ChildProcess): Promise<Ending> {
  return new Promise((resolve) => {
    child.once('exit', (code, signal) =>
      resolve({ exitCode: code ?? undefined, signal: signal ?? undefined }),
    );
  });
}

function ignoreDeadline(error: unknown): void {
  if (!isTandemError(error, 'DEADLINE_EXCEEDED')) throw error;
}

function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null;
}

function keepHead(pipes: readonly Readable[]): () => string {
  const chunks: Buffer[] = [];
  let room = MAX_OUTPUT_BYTES;
  for (const pipe of pipes) {
    pipe.on('data', (chunk: Buffer) => {
      if (room === 0) return;
      const kept = chunk.subarray(0, room);
      room -= kept.length;
      chunks.push(kept);
    });
  }
  return () => Buffer.concat(chunks).toString('utf8');
}

/** As long as its leader has not been waited for, nobody else can have the number of a group. */
export function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // Nobody is left in the group.
  }
}

/** HAProxy would take systemd's notify socket for its own, and expands variables in its file. */
export function cleanEnvironment(): Record<string, string> {
  // Debian keeps daemons where ordinary users do not look.
  return { PATH: `${process.env['PATH'] ?? '/usr/bin:/bin'}:/usr/sbin:/sbin`, LANG: 'C' };
}
