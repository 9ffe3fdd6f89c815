import type { ControlAnswer } from '@tandem/core';

const MAX_CANDIDATES = 20;

export function badRequest(message: string): ControlAnswer {
  return { ok: false, status: 400, code: 'BAD_REQUEST', message };
}

export function refuse(status: 404 | 409, code: string, message: string): ControlAnswer {
  return { ok: false, status, code, message };
}

/** What could have been meant. */
export function listCandidates(candidates: readonly string[]): string {
  if (candidates.length === 0) return 'none';
  const more = candidates.length > MAX_CANDIDATES ? ', ...' : '';
  return `${candidates.slice(0, MAX_CANDIDATES).join(', ')}${more}`;
}
