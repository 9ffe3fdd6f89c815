/** `unknown` until the first result is there. */
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
 * The state after one more result, exactly as Nerve's ring buffer has it: the very first result counts at once,
 * as if it had been there for ever; after that only `rise` or `fall` equal results in a row change anything.
 */
export function nextHealth(state: HealthState, ok: boolean): HealthState {
  const length = state.streak.length > 0 && state.streak.ok === ok ? state.streak.length + 1 : 1;
  const enough = length >= (ok ? state.rise : state.fall);
  const health = enough || state.health === 'unknown' ? (ok ? 'up' : 'down') : state.health;
  return { ...state, health, streak: { ok, length } };
}

/** A service is as well as its worst check; one without checks is well. */
export function combineHealth(healths: readonly Health[]): Health {
  if (healths.includes('down')) return 'down';
  return healths.includes('unknown') ? 'unknown' : 'up';
}
