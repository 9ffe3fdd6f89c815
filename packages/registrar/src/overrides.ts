/** What operators want of services, whatever the configuration says. Immutable. */
export interface Overrides {
  /** Every service is drained but for the exempt, also those that come later. */
  readonly drainAll: boolean;
  readonly exempt: ReadonlySet<string>;
  readonly drained: ReadonlySet<string>;
  readonly weights: ReadonlyMap<string, number>;
}

const NOBODY: ReadonlySet<string> = new Set();

export const NO_OVERRIDES: Overrides = {
  drainAll: false,
  exempt: NOBODY,
  drained: NOBODY,
  weights: new Map(),
};

export function isDrained({ drainAll, exempt, drained }: Overrides, service: string): boolean {
  return drained.has(service) || (drainAll && !exempt.has(service));
}

/** Whether anything at all is said of a service by its name. */
export function hasOverride({ exempt, drained, weights }: Overrides, service: string): boolean {
  return drained.has(service) || exempt.has(service) || weights.has(service);
}

/** @param service undefined: all of them */
export function withDrain(overrides: Overrides, service: string | undefined): Overrides {
  if (service === undefined) return { ...overrides, drainAll: true, exempt: NOBODY };
  return {
    ...overrides,
    exempt: without(overrides.exempt, service),
    drained: new Set([...overrides.drained, service]),
  };
}

/** @param service undefined: all of them, however they were drained */
export function withoutDrain(overrides: Overrides, service: string | undefined): Overrides {
  if (service === undefined) return { ...overrides, drainAll: false, exempt: NOBODY, drained: NOBODY };
  const drained = without(overrides.drained, service);
  if (!overrides.drainAll) return { ...overrides, drained };
  return { ...overrides, drained, exempt: new Set([...overrides.exempt, service]) };
}

export function withWeight(overrides: Overrides, service: string, weight: number | undefined): Overrides {
  const weights = new Map(overrides.weights);
  if (weight === undefined) weights.delete(service);
  else weights.set(service, weight);
  return { ...overrides, weights };
}

function without(names: ReadonlySet<string>, name: string): ReadonlySet<string> {
  return new Set([...names].filter((other) => other !== name));
}
