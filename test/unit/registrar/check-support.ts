import { formatProblem, parseYaml } from '@tandem/core';
import { type Check, type ProbeResult, RegisterSection } from '@tandem/registrar';

import type { CheckSubject } from '../../conformance/check.ts';

export { checkOf } from '../../support/probes.ts';

/** The signal of a probe that has all the time in the world. */
export const NEVER = new AbortController().signal;

export function subject(check: Check, leftovers = () => 0): CheckSubject {
  return { check, leftovers, close: () => Promise.resolve() };
}

export function reasonOf(result: ProbeResult): string {
  return result.ok ? 'passed' : result.reason;
}

/** What a person is told about one entry of `checks`. */
export function problemsOf(entry: string): string {
  const parsed = parseYaml(`port: 80\nchecks:\n- ${entry}`, 'web.yaml', RegisterSection);
  return parsed.ok ? '' : parsed.problems.map(formatProblem).join('\n');
}
