import * as z from 'zod';

import { type Check, type CheckContext, PASS, scheduleKeys, toSchedule } from '../check.ts';
import { addressKeys } from './address.ts';
import { type Conversation, createDialogueCheck, hearUntil, say, secure } from './dialogue.ts';
import { TlsKey } from './tls.ts';

const MAX_BYTES = 4_096;

/** What is sent or expected: text, or bytes as hexadecimal digits. */
const Bytes = z
  .union([
    z.string().transform((text, context) => {
      const bytes = unescapeText(text);
      if (bytes !== undefined) return bytes;
      context.addIssue({
        code: 'custom',
        message: 'must have only the escapes \\r, \\n, \\t, \\0, \\\\ and \\x00 to \\xff',
      });
      return z.NEVER;
    }),
    z
      .strictObject({
        hex: z
          .string()
          .regex(/^\s*([0-9a-f]{2}\s*)*$/i, 'must be pairs of hexadecimal digits')
          .describe('bytes as pairs of hexadecimal digits; spaces between them mean nothing'),
      })
      .transform(({ hex }) => Buffer.from(hex.replaceAll(/\s/g, ''), 'hex')),
  ])
  .refine((bytes) => bytes.length > 0, 'must not be empty')
  .refine((bytes) => bytes.length <= MAX_BYTES, `must be at most ${MAX_BYTES} bytes`);

/** `tcp`: passes when the port accepts a connection, and says what is expected. */
export const TcpSection = z
  .strictObject({
    ...addressKeys,
    tls: TlsKey,
    send: Bytes.optional().describe(
      'what is said first: text with the escapes \\r, \\n, \\t, \\0, \\\\ and \\x00 to \\xff, or { hex: ... }',
    ),
    expect: Bytes.optional().describe('what the answer must contain, written like send'),
    ...scheduleKeys,
  })
  .transform(({ host, port, tls, send, expect, ...schedule }) => ({
    host,
    port,
    tls,
    send,
    expect,
    schedule: toSchedule(schedule),
  }));

export type TcpConfig = z.output<typeof TcpSection>;

export function createTcpCheck(config: TcpConfig, context: CheckContext): Check {
  return createDialogueCheck('tcp', config, context, () => exchange(config));
}

function* exchange({ tls, send, expect }: TcpConfig): Conversation {
  if (tls !== undefined) yield* secure();
  if (send !== undefined) yield* say(send);
  if (expect !== undefined) yield* hearUntil(expect, 'the expected answer');
  return PASS;
}

/** YAML knows escapes only within double quotes; these are known everywhere. Undefined if there are others. */
function unescapeText(text: string): Buffer | undefined {
  const parts = text.match(/\\x[0-9a-f]{2}|\\[rnt0\\]|[^\\]+/gi) ?? [];
  if (parts.join('') !== text) return undefined;
  return Buffer.concat(
    parts.map((part) => {
      if (!part.startsWith('\\')) return Buffer.from(part);
      return part.length > 2 ? Buffer.from(part.slice(2), 'hex') : Buffer.from(ESCAPES[part[1] ?? ''] ?? '');
    }),
  );
}

const ESCAPES: Readonly<Record<string, string>> = { r: '\r', n: '\n', t: '\t', 0: '\0', '\\': '\\' };
