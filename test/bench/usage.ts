import { readFileSync } from 'node:fs';

export interface Usage {
  readonly cpuMs: number;
  /** Resident now, and at its worst, in megabytes. */
  readonly residentMb: number;
  readonly peakMb: number;
}

/** Linux counts the time of processes in hundredths of a second. */
const TICK_MS = 10;

/** What a process has used so far. */
export function usageOf(pid: number): Usage {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // proc(5): utime and stime are the 14th and 15th field; the command in its parentheses is the second.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const megabytes = (key: string) => Number(new RegExp(`^${key}:\\s+(\\d+)`, 'm').exec(status)?.[1]) / 1_024;
  return {
    cpuMs: (Number(fields[11]) + Number(fields[12])) * TICK_MS,
    residentMb: megabytes('VmRSS'),
    peakMb: megabytes('VmHWM'),
  };
}
