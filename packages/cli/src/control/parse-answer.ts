import { TandemError } from '@tandem/core';
import type * as z from 'zod';

import { type DaemonName, DAEMONS } from './ask.ts';

/** After an upgrade, daemon and command may be of different versions for a while. */
export function parseAnswer<T>(daemon: DaemonName, schema: z.ZodType<T>, answer: unknown): T {
  const parsed = schema.safeParse(answer);
  if (parsed.success) return parsed.data;
  throw new TandemError(
    'CONTROL_UNREACHABLE',
    `the ${DAEMONS[daemon]} is of another version than this command: restart it`,
    { cause: parsed.error },
  );
}
