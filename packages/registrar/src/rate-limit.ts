import { duration, type TokenRate } from '@tandem/core';
import * as z from 'zod';

/** How often something may be announced. Withdrawals are never held back. */
export interface RateLimit extends TokenRate {
  /** Only counts and says what it would hold back. */
  readonly isShadow: boolean;
}

/** `rate_limit`, of the host file for all services together and of a service file for its own. */
export const RateLimitSection = z
  .strictObject({
    per: duration().describe('one announcement in this time, on average'),
    burst: z.number().int().min(1).max(10_000).default(3).describe('as many at once after a quiet time'),
    shadow: z.boolean().default(false).describe('true: only counts and logs what it would hold back'),
  })
  .transform(({ per: perMs, burst, shadow: isShadow }): RateLimit => ({ perMs, burst, isShadow }));
