/** `unknown` until there is a result. */
export type Health = 'up' | 'down' | 'unknown';

/** Health, and whether it may be acted on. */
export interface Verdict {
  readonly health: Health;
  /**
   * False while it is down for the want of passes and not for enough failures: nothing that an earlier life has found well
   * goes because of that.
   */
  readonly isFirm: boolean;
}

/** The health of one check and what it takes to change it. Immutable. */
export interface HealthState extends Verdict {
  /** Results in a row that were like the last one. */
  readonly streak: { readonly ok: boolean; readonly length: number };
  readonly rise: number;
  readonly fall: number;
}

/** What a check that has not been tried is taken for: what its first result says, or down until it has passed `rise` times. */
export const INITIAL_HEALTHS = ['first_result', 'down'] as const;

export interface HealthLimits {
  readonly rise: number;
  readonly fall: number;
  readonly initial: (typeof INITIAL_HEALTHS)[number];
}

/** A check that has not been tried. `rise` passes in a row make it up, `fall` failures in a row make it down. */
export function createHealth({ rise, fall, initial }: HealthLimits): HealthState {
  const health = initial === 'down' ? 'down' : 'unknown';
  return { health, isFirm: false, streak: { ok: false, length: 0 }, rise, fall };
}

/**
 * The state after one more result, exactly as Nerve's ring buffer has it: the very first result counts at once, whatever
 * it is, unless the check is down to begin with; after that only `rise` or `fall` equal results in a row change anything.
 * A first failure is not firm, though: what an earlier life has found well may fail as often as any other.
 */
export function nextHealth(state: HealthState, ok: boolean): HealthState {
  const { rise, fall } = state;
  const length = state.streak.length > 0 && state.streak.ok === ok ? state.streak.length + 1 : 1;
  const streak = { ok, length };
  if (length >= (ok ? rise : fall)) return { ...state, health: ok ? 'up' : 'down', isFirm: true, streak };
  if (state.health !== 'unknown') return { ...state, streak };
  return { ...state, health: ok ? 'up' : 'down', isFirm: ok, streak };
}

/** A service is as well as its worst check, and that as firmly as the firmest of these; one without checks is well. */
export function combineHealth(checks: readonly Verdict[]): Verdict {
  const down = checks.filter(({ health }) => health === 'down');
  if (down.length > 0) return { health: 'down', isFirm: down.some(({ isFirm }) => isFirm) };
  const isUnknown = checks.some(({ health }) => health === 'unknown');
  return isUnknown ? { health: 'unknown', isFirm: false } : { health: 'up', isFirm: true };
}
