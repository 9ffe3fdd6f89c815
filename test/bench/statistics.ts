/** The value below which a share of the samples lies; nearest rank. */
export function quantile(samples: readonly number[], share: number): number {
  const sorted = samples.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? NaN;
}

/** One row of a table: a name, then median, p99 and worst in milliseconds. */
export function row(name: string, samples: readonly number[]): string {
  const values = [quantile(samples, 0.5), quantile(samples, 0.99), Math.max(...samples)];
  return `${name.padEnd(58)}${values.map((value) => value.toFixed(2).padStart(10)).join('')}`;
}

export const HEADER = `${'milliseconds'.padEnd(58)}${['median', 'p99', 'worst'].map((word) => word.padStart(10)).join('')}`;
