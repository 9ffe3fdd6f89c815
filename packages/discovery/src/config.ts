import { isIP } from 'node:net';

import { checkFormat, duration, formatKeys, Port, recordFormat } from '@tandem/core';
import * as z from 'zod';

/** A port, `ADDRESS:PORT`, `[IPV6]:PORT` or `*:PORT`. */
const Listen = z.union([z.string(), z.number()]).transform((value, context): string => {
  const listen = parseListen(String(value));
  if (listen !== undefined) return listen;
  context.addIssue({
    code: 'custom',
    message: 'must be ADDRESS:PORT, such as 127.0.0.1:3210, [::1]:3210 or *:3210',
  });
  return z.NEVER;
});

function parseListen(text: string): string | undefined {
  const match = /^(?:(\*|[0-9.]+|\[[0-9a-fA-F:.]+\]|localhost):)?(\d{1,5})$/.exec(text);
  if (match === null || !Port.safeParse(Number(match[2])).success) return undefined;
  const host = match[1] === undefined || match[1] === 'localhost' ? '127.0.0.1' : match[1];
  const bare = host.replace(/^\[|\]$/g, '');
  if (host !== '*' && isIP(bare) === 0) return undefined;
  return `${host}:${Number(match[2])}`;
}

/** One line of haproxy.cfg, as its owner wrote it: trusted, but it has to be one line. */
const ConfigLine = z.string().regex(/^[^\p{Cc}]*$/u, 'must be a single line');

/** Lines of the global section that would take from under Tandem what it stands on. */
const RESERVED = /^\s*(?:no\s+)?(description|daemon|master-worker|nbproc)\b/;
const GlobalLine = ConfigLine.refine(
  (line) => !RESERVED.test(line),
  'must not set description, daemon, master-worker or nbproc: Tandem does',
);

/** Options of every server of a backend, such as `check inter 2s`. They go to the file and to HAProxy's command line. */
const ServerOptions = z
  .string()
  .regex(/^[A-Za-z0-9 _.:/,%+=@-]*$/, 'may hold only words of letters, digits and _.:/,%+=@-')
  .refine(
    (text) => !text.split(' ').some((word) => ['id', 'weight', 'disabled', 'enabled'].includes(word)),
    'must not set id, weight, enabled or disabled: Tandem does',
  )
  .transform((text) => text.trim().replace(/\s+/g, ' '));

/** `discover` of a service file. */
export const DiscoverSection = z
  .strictObject({
    listen: Listen.describe('where applications of this host reach the service'),
    mode: z.enum(['http', 'tcp']).default('http'),
    // The algorithms that take servers at run time (HAProxy reference 1.2).
    balance: z.enum(['roundrobin', 'leastconn', 'random', 'first']).default('roundrobin'),
    server_options: ServerOptions.default('').describe(
      "HAProxy's options of every server, such as: check inter 2s",
    ),
    allow_empty: z.boolean().default(false).describe('follow the registry even when the last instance goes'),
    ...formatKeys,
  })
  .superRefine(checkFormat)
  .transform((section) => ({
    listen: section.listen,
    mode: section.mode,
    balance: section.balance,
    serverOptions: section.server_options,
    allowEmpty: section.allow_empty,
    format: recordFormat(section),
  }));

export type DiscoverConfig = z.output<typeof DiscoverSection>;

/** A service that this host routes to. */
export interface DiscoveredService {
  readonly service: string;
  readonly path: string;
  readonly config: DiscoverConfig;
}

/**
 * A unix socket's path. HAProxy adds up to 12 characters while it binds one, and 107 are the most that the kernel
 * takes; other characters would mean something in its file or on its command line.
 */
function SocketPath(maxLength: number) {
  return z
    .string()
    .min(1)
    .max(maxLength)
    .regex(/^[A-Za-z0-9_./~%=-]*$/, 'may hold only letters, digits and _./~%=-');
}
const MAX_SOCKET_PATH = 95;
const MASTER_SUFFIX = '-master';

/** `haproxy` of the host file. Relative paths are relative to that file. */
export const HaproxySection = z
  .strictObject({
    mode: z.enum(['managed']).default('managed').describe('managed: Tandem runs HAProxy as its child'),
    binary: z.string().min(1).default('haproxy'),
    config_file: z.string().min(1).default('/run/tandem/haproxy.cfg'),
    runtime_socket: SocketPath(MAX_SOCKET_PATH - MASTER_SUFFIX.length).default('/run/tandem/haproxy.sock'),
    master_socket: SocketPath(MAX_SOCKET_PATH)
      .optional()
      .describe('default: the runtime socket with -master before its ending'),
    on_exit: z
      .enum(['keep', 'stop'])
      .default('keep')
      .describe(
        'what becomes of HAProxy when the daemon ends: keep it for the next one, or stop it gracefully',
      ),
    reload_deadline: duration({ minMs: 1_000, maxMs: 600_000 }).prefault('10s'),
    global: z.array(GlobalLine).default([]).describe('lines added to the global section'),
    defaults: z.array(ConfigLine).default([]).describe('lines added to the defaults section'),
    extra_sections: z
      .record(ConfigLine, z.array(ConfigLine))
      .default({})
      .describe('sections of your own, by their title line; never touched by Tandem'),
  })
  .transform((section) => ({
    mode: section.mode,
    binary: section.binary,
    configFile: section.config_file,
    runtimeSocket: section.runtime_socket,
    masterSocket:
      section.master_socket ?? section.runtime_socket.replace(/(\.[^./]*)?$/, `${MASTER_SUFFIX}$1`),
    onExit: section.on_exit,
    reloadDeadlineMs: section.reload_deadline,
    global: section.global,
    defaults: section.defaults,
    extraSections: section.extra_sections,
  }));

export type HaproxyConfig = z.output<typeof HaproxySection>;
