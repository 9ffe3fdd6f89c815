/** One token every `perMs`, and at most `burst` of them at a time. */
export interface TokenRate {
  readonly perMs: number;
  readonly burst: number;
}

/** What is in a bucket at a moment of a clock that only grows. Immutable. */
export interface TokenBucket {
  readonly tokens: number;
  readonly at: number;
}

/** Sums of fractions come out a little short of the whole. */
const ROUNDING = 1e-6;

/** Full, so that what was quiet may begin with a burst. */
export function createTokenBucket(rate: TokenRate, now: number): TokenBucket {
  return { tokens: rate.burst, at: now };
}

/** The bucket without one token, or undefined when there is none yet. */
export function takeToken(bucket: TokenBucket, rate: TokenRate, now: number): TokenBucket | undefined {
  const tokens = tokensAt(bucket, rate, now);
  return tokens >= 1 - ROUNDING
    ? { tokens: Math.max(0, tokens - 1), at: Math.max(now, bucket.at) }
    : undefined;
}

/** Milliseconds until there is a token; 0 when there is one. */
export function tokenWaitMs(bucket: TokenBucket, rate: TokenRate, now: number): number {
  const missing = 1 - tokensAt(bucket, rate, now);
  return missing <= ROUNDING ? 0 : Math.ceil(missing * rate.perMs);
}

/** A rate that has changed counts from the beginning: what is in the bucket stays, up to the new burst. */
function tokensAt({ tokens, at }: TokenBucket, { perMs, burst }: TokenRate, now: number): number {
  return Math.min(burst, tokens + Math.max(0, now - at) / perMs);
}
