import { isIP } from 'node:net';

import { Port, SocketPath } from '@tandem/core';
import * as z from 'zod';

/** One line of haproxy.cfg, as its owner wrote it: trusted, but it has to be one line. */
export const ConfigLine = z.string().regex(/^[^\p{Cc}]*$/u, 'must be a single line');

/** The keyword of a line, as HAProxy reads it: quotes and backslashes are not part of it. */
function keywordOf(line: string): string | undefined {
  return line
    .replace(/["'\\]/g, '')
    .trim()
    .split(/\s+/)[0];
}

/**
 * A line of a backend. Servers of another owner in it would be in the file and nobody's in HAProxy, and servers that
 * are added at run time would have nothing of a `default-server` (HAProxy reference 1.2).
 */
export const BackendLine = ConfigLine.refine(
  (line) => !['server', 'server-template'].includes(keywordOf(line) ?? ''),
  'must not be a server: name it in source: { static: [...] } or in fallback',
).refine(
  (line) => keywordOf(line) !== 'default-server',
  'must not be default-server, which servers added at run time know nothing of: use server_options',
);

/** A line of the defaults section, for the same reasons. */
export const DefaultsLine = ConfigLine.refine(
  (line) => keywordOf(line) !== 'default-server',
  'must not be default-server, which servers added at run time know nothing of: use server_options of the services',
);

/** A port, `ADDRESS:PORT`, `[IPV6]:PORT`, `*:PORT`, or the absolute path of a unix socket. */
export const Listen = z.union([z.string(), z.number()]).transform((value, context): string => {
  const text = String(value);
  const listen = text.startsWith('/') ? SocketPath().safeParse(text).data : parseAddress(text);
  if (listen !== undefined) return listen;
  context.addIssue({
    code: 'custom',
    message:
      'must be ADDRESS:PORT, such as 127.0.0.1:3210, [::1]:3210 or *:3210, or the path of a unix socket',
  });
  return z.NEVER;
});

function parseAddress(text: string): string | undefined {
  const match = /^(?:(\*|[0-9.]+|\[[0-9a-fA-F:.]+\]|localhost):)?(\d{1,5})$/.exec(text);
  if (match === null || !Port.safeParse(Number(match[2])).success) return undefined;
  const host = match[1] === undefined || match[1] === 'localhost' ? '127.0.0.1' : match[1];
  const bare = host.replace(/^\[|\]$/g, '');
  if (host !== '*' && isIP(bare) === 0) return undefined;
  return `${host}:${Number(match[2])}`;
}

/**
 * Words that go to haproxy.cfg and to HAProxy's command line: options of its owner, trusted, but they must stay the
 * words of one line.
 */
export const OptionWords = z
  .string()
  .regex(/^[A-Za-z0-9 _.:/,%+=@-]*$/, 'may hold only words of letters, digits and _.:/,%+=@-')
  .transform((text) => text.trim().replace(/\s+/g, ' '));

/** Options of every server of a backend, such as `check inter 2s`. */
export const ServerOptions = OptionWords.refine(
  (text) => !text.split(' ').some((word) => ['id', 'weight', 'disabled', 'enabled'].includes(word)),
  'must not set id, weight, enabled or disabled: Tandem does',
);
