import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';

export const root = path.join(import.meta.dirname, '..', '..', '..');

export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end, or kills it after `limitMs`: then `code` is null. */
export async function run(
  command: string,
  args: readonly string[],
  options: { limitMs?: number; cwd?: string; env?: NodeJS.ProcessEnv } = {},
): Promise<Finished> {
  const { limitMs = 30_000, ...rest } = options;
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...rest });
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      output[name] += text;
    });
  }
  const timer = setTimeout(() => child.kill('SIGKILL'), limitMs);
  const [code] = (await once(child, 'close')) as [number | null];
  clearTimeout(timer);
  return { code, ...output };
}

/** Runs the `tandem` command of the plain build. */
export function tandem(
  args: readonly string[],
  options: { limitMs?: number; cwd?: string } = {},
): Promise<Finished> {
  const main = path.join(root, 'packages', 'cli', 'dist', 'main.js');
  return run(process.execPath, ['--enable-source-maps', main, ...args], options);
}
