const MAX_STEPS = 10;

/** How the weight of a service grows after it came up. */
export interface SlowStart {
  /** How long it takes to the whole weight. */
  readonly durationMs: number;
  /** How long it has been up. */
  readonly elapsedMs: number;
}

/** The weight now, and when it will be another one; undefined once it is whole. */
export interface SlowWeight {
  readonly weight: number;
  readonly nextStepMs: number | undefined;
}

/**
 * From about a tenth to the whole weight in at most ten even steps: every step is another record in the registry, which
 * everybody who watches the service has to read.
 */
export function slowWeight(whole: number, { durationMs, elapsedMs }: SlowStart): SlowWeight {
  const steps = Math.min(MAX_STEPS, whole);
  if (steps < 2 || elapsedMs >= durationMs) return { weight: whole, nextStepMs: undefined };
  const stepMs = durationMs / (steps - 1);
  const step = Math.floor(Math.max(0, elapsedMs) / stepMs);
  const weight = Math.max(1, Math.round((whole * (step + 1)) / steps));
  return { weight, nextStepMs: (step + 1) * stepMs - Math.max(0, elapsedMs) };
}
