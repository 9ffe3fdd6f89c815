import * as z from 'zod';

import type { Check, CheckContext, Schedule } from '../check.ts';
import { type CommandConfig, CommandSection, createCommandCheck } from './command.ts';
import { createHttpCheck, type HttpConfig, HttpSection } from './http.ts';
import { createTcpCheck, type TcpConfig, TcpSection } from './tcp.ts';

/** Every kind of check: a key in the configuration, its schema here, its factory below. */
const KINDS = {
  http: HttpSection.optional().describe('a request whose status says how the service is'),
  tcp: TcpSection.optional().describe('a connection to the port of the service'),
  command: CommandSection.optional().describe('a program whose exit status says how the service is'),
};

/** One check as it was configured: plain data, equal when its meaning is equal. */
export type CheckConfig =
  | { readonly kind: 'http'; readonly options: HttpConfig }
  | { readonly kind: 'tcp'; readonly options: TcpConfig }
  | { readonly kind: 'command'; readonly options: CommandConfig };

/** One entry of `checks`: a map with a single key, the kind. */
export const CheckSection = z.strictObject(KINDS).transform((entry, context): CheckConfig => {
  const given = configsOf(entry);
  const [only] = given;
  // A mistyped kind has been named already.
  if (context.issues.length > 0) return z.NEVER;
  if (only !== undefined && given.length === 1) return only;
  const known = Object.keys(KINDS).join(', ');
  context.addIssue({ code: 'custom', message: `must have exactly one kind of check (known: ${known})` });
  return z.NEVER;
});

function configsOf(entry: z.output<z.ZodObject<typeof KINDS>>): CheckConfig[] {
  const { http, tcp, command } = entry;
  return [
    ...(http === undefined ? [] : [{ kind: 'http', options: http } as const]),
    ...(tcp === undefined ? [] : [{ kind: 'tcp', options: tcp } as const]),
    ...(command === undefined ? [] : [{ kind: 'command', options: command } as const]),
  ];
}

/** Makes a configured check ready to probe. */
export function createCheck(config: CheckConfig, context: CheckContext): Check {
  switch (config.kind) {
    case 'http':
      return createHttpCheck(config.options, context);
    case 'tcp':
      return createTcpCheck(config.options, context);
    case 'command':
      return createCommandCheck(config.options);
  }
}

export function scheduleOf(config: CheckConfig): Schedule {
  return config.options.schedule;
}
