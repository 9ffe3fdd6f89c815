import { messageOf, sleep, TandemError, withDeadline } from '@tandem/core';

import type { ReloadAnswer } from './process.ts';
import { askMaster, exchange } from './runtime.ts';

/**
 * While the master re-executes itself for a reload, its socket refuses for 10 to 60 ms, and for 2 s after a failed
 * bind (HAProxy reference 2).
 */
const PATIENCE_MS = 5_000;
const POLL_MS = 20;

/**
 * Asks a master for a new worker, and waits for what it says to that. HAProxy 2.7 and later answers with the outcome;
 * before, the answer is empty, and the master's own count of reloads tells. Waits at most `deadlineMs` for either.
 * Rejects with `HAPROXY_UNREACHABLE` when the master does not take the request.
 */
export async function reloadByMaster(
  socket: string,
  options: { signal: AbortSignal; deadlineMs: number; isAlive: () => boolean },
): Promise<ReloadAnswer> {
  const { signal, deadlineMs, isAlive } = options;
  try {
    return await withDeadline(signal, deadlineMs + PATIENCE_MS, async (inner) => {
      const before = await retrying(() => readCount(socket, inner), isAlive, inner);
      const answer = await retrying(
        () => withDeadline(inner, deadlineMs, (limited) => exchange(socket, 'reload\nquit\n', limited)),
        isAlive,
        inner,
      );
      return parseReloadAnswer(answer) ?? (await watchCount(socket, before, { signal: inner, isAlive }));
    });
  } catch (error) {
    signal.throwIfAborted();
    throw new TandemError(
      'HAPROXY_UNREACHABLE',
      `the master socket ${socket} takes no request for a reload: ${messageOf(error)}`,
      { cause: error },
    );
  }
}

/** HAProxy 2.7 and later: `Success=1` or `Success=0`, a line `--`, and what was said at the start. */
export function parseReloadAnswer(answer: string): ReloadAnswer | undefined {
  const match = /^Success=([01])\b[^\n]*\n?(?:--\n)?([^]*)/m.exec(answer);
  if (match === null) return undefined;
  return match[1] === '1' ? { kind: 'taken' } : { kind: 'refused', output: match[2] ?? '' };
}

interface ReloadCount {
  readonly reloads: number;
  /** Since the last one that worked. */
  readonly failed: number;
}

/** `<pid> master <reloads> [failed: <count>] …`; nobody says so before 2.5. */
export function parseReloadCount(answer: string): ReloadCount | undefined {
  const match = /^\d+\s+master\s+(\d+)(?:\s+\[failed: (\d+)\])?/m.exec(answer);
  return match === null ? undefined : { reloads: Number(match[1]), failed: Number(match[2] ?? 0) };
}

async function readCount(socket: string, signal: AbortSignal): Promise<ReloadCount> {
  const count = parseReloadCount(await askMaster(socket, 'show proc', signal));
  if (count !== undefined) return count;
  throw new TandemError('HAPROXY_UNREACHABLE', `no HAProxy master answers on ${socket}`);
}

/** The master is back when it counts one more. One that stays silent may still be loading: its worker will tell. */
async function watchCount(
  socket: string,
  before: ReloadCount,
  { signal, isAlive }: { signal: AbortSignal; isAlive: () => boolean },
): Promise<ReloadAnswer> {
  const giveUpAt = performance.now() + PATIENCE_MS;
  while (isAlive() && performance.now() < giveUpAt) {
    await sleep(POLL_MS, signal);
    try {
      const { reloads, failed } = await readCount(socket, signal);
      if (reloads > before.reloads) return failed > 0 ? { kind: 'refused', output: '' } : { kind: 'taken' };
    } catch {
      signal.throwIfAborted();
    }
  }
  return { kind: 'taken' };
}

/** The socket of a master that re-executes itself refuses; a signal sent in this moment would be lost. */
async function retrying<T>(
  attempt: () => Promise<T>,
  isAlive: () => boolean,
  signal: AbortSignal,
): Promise<T> {
  const giveUpAt = performance.now() + PATIENCE_MS;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (signal.aborted || !isAlive() || performance.now() > giveUpAt) throw error;
      await sleep(POLL_MS, signal);
    }
  }
}
