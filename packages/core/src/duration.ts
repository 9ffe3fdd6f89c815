import * as z from 'zod';

const UNIT_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 } as const;
const PATTERN = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/;

/** Milliseconds of `500ms`, `2s`, `1.5m` or `1h`; undefined for anything else. */
export function parseDuration(text: string): number | undefined {
  const match = PATTERN.exec(text);
  if (match === null) return undefined;
  const unit = match[2] as keyof typeof UNIT_MS;
  return Math.round(Number(match[1]) * UNIT_MS[unit]);
}

/** The shortest exact way to write a duration: 1500 -> `1500ms`, 2000 -> `2s`. */
export function formatDuration(ms: number): string {
  for (const unit of ['h', 'm', 's'] as const) {
    if (ms !== 0 && ms % UNIT_MS[unit] === 0) return `${ms / UNIT_MS[unit]}${unit}`;
  }
  return `${ms}ms`;
}

/** Schema of a duration: text in the file, milliseconds inside. Limits are inclusive. */
export function duration(limits: { minMs?: number; maxMs?: number } = {}) {
  const { minMs = 1, maxMs = 24 * UNIT_MS.h } = limits;
  return z
    .string({ error: (issue) => (issue.input === undefined ? undefined : DURATION_HINT) })
    .transform((text, context) => {
      const ms = parseDuration(text);
      if (ms === undefined) {
        context.addIssue({ code: 'custom', message: DURATION_HINT });
        return z.NEVER;
      }
      if (ms < minMs || ms > maxMs) {
        const range = `between ${formatDuration(minMs)} and ${formatDuration(maxMs)}`;
        context.addIssue({ code: 'custom', message: `must be ${range}` });
        return z.NEVER;
      }
      return ms;
    });
}

const DURATION_HINT = 'must be a duration such as 500ms, 2s or 1m';
