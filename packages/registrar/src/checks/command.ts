import type { Readable } from 'node:stream';

import { systemErrorCode } from '@tandem/core';
import * as z from 'zod';

import {
  CALLED_OFF,
  type Check,
  failure,
  PASS,
  type ProbeResult,
  scheduleKeys,
  toSchedule,
} from '../check.ts';

/** How much of the end of the output is shown as the reason. */
const MAX_OUTPUT_BYTES = 4096;

/** `command`: passes when a program exits with 0. No shell is involved. */
export const CommandSection = z
  .strictObject({
    command: z
      .array(z.string().refine((text) => !text.includes('\0'), 'must not hold a zero byte'))
      .min(1)
      .refine(([program]) => program !== '', 'must begin with the name of a program')
      .describe('the program and its arguments, one by one; no shell reads them'),
    ...scheduleKeys,
  })
  .transform(({ command, ...schedule }) => ({ command, schedule: toSchedule(schedule) }));

export type CommandConfig = z.output<typeof CommandSection>;

export function createCommandCheck(config: CommandConfig): Check {
  return {
    kind: 'command',
    prepare: async () => {
      await import('execa');
    },
    probe: (signal) => run(config.command, signal),
  };
}

/**
 * The program leads a process group of its own, which is killed as a whole when the program ends or the signal does:
 * nothing that a probe starts outlives it. Only a process that leaves the group can get away.
 */
async function run(command: readonly string[], signal: AbortSignal): Promise<ProbeResult> {
  const [program = '', ...rest] = command;
  const { execa } = await import('execa');
  if (signal.aborted) return CALLED_OFF;
  const subprocess = execa(program, rest, {
    detached: true,
    reject: false,
    // The output has no limit, what we keep of it does: execa's own limit would kill a talkative program.
    buffer: false,
    stdin: 'ignore',
    // systemd would take a message of the program for one of ours.
    env: { NOTIFY_SOCKET: undefined },
  });
  const output = keepTail([subprocess.stdout, subprocess.stderr]);
  const killGroup = () => signalGroup(subprocess.pid);
  subprocess.once('exit', killGroup);

  let onAbort: (() => void) | undefined;
  const aborted = new Promise<ProbeResult>((resolve) => {
    onAbort = () => {
      killGroup();
      // A process that got away may hold them open.
      subprocess.stdout.destroy();
      subprocess.stderr.destroy();
      resolve(CALLED_OFF);
    };
    signal.addEventListener('abort', onAbort, { once: true });
  });
  try {
    return await Promise.race([aborted, subprocess.then((result) => judge(program, result, output()))]);
  } finally {
    if (onAbort !== undefined) signal.removeEventListener('abort', onAbort);
  }
}

interface Ending {
  readonly exitCode?: number;
  readonly signal?: string;
  readonly cause?: unknown;
}

function judge(program: string, ending: Ending, output: string): ProbeResult {
  const shown = output === '' ? '' : `: ${output}`;
  if (ending.exitCode === 0) return PASS;
  if (ending.exitCode !== undefined) return failure(`exit status ${ending.exitCode}${shown}`);
  if (ending.signal !== undefined) return failure(`killed by ${ending.signal}${shown}`);
  return failure(`cannot start ${program}: ${startReason(ending.cause)}`);
}

function startReason(cause: unknown): string {
  switch (systemErrorCode(cause)) {
    case 'ENOENT':
      return 'no such program';
    case 'EACCES':
      return 'permission denied';
    default:
      return cause instanceof Error ? cause.message : 'unknown reason';
  }
}

function keepTail(streams: readonly Readable[]): () => string {
  let tail = Buffer.alloc(0);
  for (const stream of streams) {
    stream.on('data', (chunk: Buffer) => {
      tail = Buffer.concat([tail, chunk]).subarray(-MAX_OUTPUT_BYTES);
    });
  }
  return () => tail.toString('utf8').trim();
}

function signalGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // Nobody is left in the group.
  }
}
