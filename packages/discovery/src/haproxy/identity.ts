import { readFileSync } from 'node:fs';

import { systemErrorCode } from '@tandem/core';

/** A process, and what tells it from a later one with the same pid, where /proc can be read. */
export interface ProcessIdentity {
  readonly pid: number;
  readonly bornAt: string | undefined;
}

export function identify(pid: number): ProcessIdentity {
  return { pid, bornAt: birthOf(pid) };
}

export function isAlive({ pid, bornAt }: ProcessIdentity): boolean {
  if (bornAt !== undefined) return birthOf(pid) === bornAt;
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return systemErrorCode(error) === 'EPERM';
  }
}

/** Does nothing when the process has gone, also when another one has its pid by now. */
export function sendSignal(identity: ProcessIdentity, name: NodeJS.Signals): void {
  try {
    if (isAlive(identity)) process.kill(identity.pid, name);
  } catch (error) {
    // It has gone by itself in between.
    if (systemErrorCode(error) !== 'ESRCH') throw error;
  }
}

/** The kernel's start time of a process. A zombie that nobody has reaped yet is dead, though it still takes signals. */
function birthOf(pid: number): string | undefined {
  try {
    // proc(5): the state is the first field after the command in its last parenthesis, the start time the 20th.
    const status = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = status.slice(status.lastIndexOf(')') + 2).split(' ');
    return /^[ZX]/.test(fields[0] ?? '') ? undefined : fields[19];
  } catch {
    return undefined;
  }
}
