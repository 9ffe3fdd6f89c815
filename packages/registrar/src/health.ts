/** `unknown` until the results agree. */
export type Health = 'up' | 'down' | 'unknown';

/** The health of one check and what it takes to change it. Immutable. */
export interface HealthState {
  readonly health: Health;
  /** Results in a row that were like the last one. */
  readonly streak: { readonly ok: boolean; readonly length: number };
  readonly rise: number;
  readonly fall: number;
}

/** A check that has not been tried. `rise` passes in a row make it up, `fall` failures in a row make it down. */
export function createHealth(limits: { rise: number; fall: number }): HealthState {
  return { health: 'unknown', streak: { ok: false, length: 0 }, rise: limits.rise, fall: limits.fall };
}

/**
 * The state after one more result. It is up exactly where Nerve's ring buffer has it up: a pass counts at once when it is
 * the very first result; after that only `rise` or `fall` equal results in a row change anything. Unlike there, a first
 * failure does not make it down: what an earlier life has found well may fail as often as any other.
 */
export function nextHealth(state: HealthState, ok: boolean): HealthState {
  const length = state.streak.length > 0 && state.streak.ok === ok ? state.streak.length + 1 : 1;
  const isFirstPass = ok && state.streak.length === 0;
  const isEnough = isFirstPass || length >= (ok ? state.rise : state.fall);
  return { ...state, health: isEnough ? (ok ? 'up' : 'down') : state.health, streak: { ok, length } };
}

/** A service is as well as its worst check; one without checks is well. */
export function combineHealth(healths: readonly Health[]): Health {
  if (healths.includes('down')) return 'down';
  return healths.includes('unknown') ? 'unknown' : 'up';
}
