import { messageOf } from '@tandem/core';

/** What became of a program. */
export type CommandResult =
  | { readonly kind: 'exited'; readonly code: number; readonly output: string }
  | { readonly kind: 'killed'; readonly signal: string; readonly output: string }
  | { readonly kind: 'timed-out'; readonly output: string }
  | { readonly kind: 'not-started'; readonly cause: unknown; readonly output: string };

const MAX_OUTPUT_BYTES = 256 * 1024;

/**
 * Runs a program without a shell, with nothing of this process' environment but PATH, and waits for its end. Its
 * stdout and stderr come back as one text, cut at 256 KB. However it ends is a value; rejects only with the reason of
 * the signal, and the program is ended then, as it is at its time limit.
 */
export async function runCommand(
  argv: readonly string[],
  options: { signal: AbortSignal; timeoutMs: number },
): Promise<CommandResult> {
  const { execa } = await import('execa');
  const { signal, timeoutMs } = options;
  const [program = '', ...args] = argv;
  const result = await execa(program, args, {
    reject: false,
    all: true,
    stdin: 'ignore',
    timeout: timeoutMs,
    cancelSignal: signal,
    env: cleanEnvironment(),
    extendEnv: false,
    maxBuffer: MAX_OUTPUT_BYTES,
  });
  signal.throwIfAborted();
  const output = result.all;
  if (result.timedOut) return { kind: 'timed-out', output };
  if (result.signal !== undefined) return { kind: 'killed', signal: result.signal, output };
  if (result.exitCode === undefined)
    return { kind: 'not-started', cause: result.cause ?? new Error(messageOf(result)), output };
  return { kind: 'exited', code: result.exitCode, output };
}

/** HAProxy would take systemd's notify socket for its own, and expands variables in its file. */
export function cleanEnvironment(): Record<string, string> {
  // Debian keeps daemons where ordinary users do not look.
  return { PATH: `${process.env['PATH'] ?? '/usr/bin:/bin'}:/usr/sbin:/sbin`, LANG: 'C' };
}
