import { isTandemError, sleepOrAborted } from '@tandem/core';

const REFRESH_MS = 1_000;
const CLEAR_SCREEN = '\u001b[H\u001b[2J';

/** Prints what a daemon says: once, or with `watch` again every second until somebody has seen enough. */
export async function printState(
  show: (signal: AbortSignal) => Promise<string>,
  { json, watch }: { readonly json: boolean; readonly watch: boolean },
): Promise<void> {
  if (watch) await refresh(show, json);
  else process.stdout.write(await show(new AbortController().signal));
}

/** Goes on while the daemon is away: that is when somebody looks. */
async function refresh(show: (signal: AbortSignal) => Promise<string>, json: boolean): Promise<void> {
  const controller = new AbortController();
  const end = () => controller.abort(new Error('the operator has seen enough'));
  const { signal } = controller;
  process.once('SIGINT', end);
  process.once('SIGTERM', end);
  // Whoever reads has gone, such as head.
  process.stdout.once('error', end);
  try {
    do {
      const text = await show(signal).catch((error: unknown) => {
        if (signal.aborted) return '';
        if (!isTandemError(error)) throw error;
        return json ? '' : `${error.message}\n`;
      });
      process.stdout.write(process.stdout.isTTY && !json ? `${CLEAR_SCREEN}${text}` : text);
    } while (!(await sleepOrAborted(REFRESH_MS, signal)));
  } finally {
    process.off('SIGINT', end);
    process.off('SIGTERM', end);
  }
}
