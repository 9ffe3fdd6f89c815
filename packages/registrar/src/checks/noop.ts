import * as z from 'zod';

import { CALLED_OFF, type Check, PASS, scheduleKeys, toSchedule } from '../check.ts';

/** `noop`: always passes. For services that somebody else looks after. */
export const NoopSection = z
  .strictObject({ ...scheduleKeys })
  .transform((schedule) => ({ schedule: toSchedule(schedule) }));

export function createNoopCheck(): Check {
  return { kind: 'noop', probe: (signal) => Promise.resolve(signal.aborted ? CALLED_OFF : PASS) };
}
