import { isIP } from 'node:net';
import { hostname, networkInterfaces } from 'node:os';

import * as z from 'zod';

import type { RecordFormat } from '../codec/codec.ts';
import type { LogLevel } from '../log.ts';
import { queryName } from '../net/dns.ts';

/** Names that are safe as a znode, in haproxy.cfg and on HAProxy's command line. */
export const SafeName = z
  .string()
  .regex(
    /^[A-Za-z0-9][A-Za-z0-9_.-]*$/,
    'must start with a letter or digit and hold only letters, digits, "_", "." and "-"',
  )
  .max(128);

/** What instances of a host are called. `name_address:port` names a server in HAProxy, and that must not be too long. */
export const HostName = SafeName.refine((text) => text.length <= 63, 'must have at most 63 characters');

const NOWHERE = /^(0\.0\.0\.0|[0:]+|::ffff:(0\.0\.0\.0|0+:0+))$/i;

/** Where other hosts reach this one: an address that they can use as it stands, or the name of a host. */
export const AnnouncedAddress = z
  .string()
  .refine((text) => isIP(text) !== 0 || queryName(text) !== undefined, {
    error: 'must be an IPv4 or IPv6 address, or the name of a host',
    abort: true,
  })
  .refine((text) => !text.includes('%'), 'must not have a zone (%): it means nothing on other hosts')
  .refine((text) => !NOWHERE.test(text), 'must be the address of one host, not of all its interfaces');

/** An absolute path in the registry, without trailing slash. */
export const RegistryPath = z
  .string()
  .regex(/^(\/[^/\s\p{Cc}]+)+$/u, 'must be an absolute path such as /services/web')
  .refine((text) => !/\/\.{1,2}(\/|$)/.test(text), 'must not contain "." or ".." as a part');

/**
 * A unix socket's path. HAProxy adds up to 12 characters while it binds one, and 107 are the most that the kernel
 * takes; other characters would mean something in its file or on its command line.
 */
export const MAX_SOCKET_PATH = 95;

export function SocketPath(maxLength = MAX_SOCKET_PATH) {
  return z
    .string()
    .min(1)
    .max(maxLength)
    .regex(/^[A-Za-z0-9_./~%=-]*$/, 'may hold only letters, digits and _./~%=-');
}

export const Port = z.number().int().min(1).max(65_535);

export const Labels = z.record(z.string().min(1), z.string());

/** The keys of a section that say how the nodes of a service are written. */
export const formatKeys = {
  format: z
    .enum(['nerve', 'serverset'])
    .default('nerve')
    .describe("how instances are written: Nerve's JSON, or Finagle's serversets (without weight and labels)"),
  endpoint: SafeName.optional().describe(
    'the additional endpoint of a serverset; default: its service endpoint',
  ),
} as const;

/** What is wrong with these keys together, if anything: an endpoint is a serverset's. */
export function checkFormat(
  { format, endpoint }: FormatKeys,
  context: { addIssue(issue: { code: 'custom'; path: string[]; message: string }): void },
): void {
  if (endpoint === undefined || format === 'serverset') return;
  const message = 'only serversets have endpoints. Remove it, or set format: serverset';
  context.addIssue({ code: 'custom', path: ['endpoint'], message });
}

export function recordFormat({ format, endpoint }: FormatKeys): RecordFormat {
  if (format === 'nerve') return { kind: format };
  return { kind: format, ...(endpoint === undefined ? {} : { endpoint }) };
}

interface FormatKeys {
  readonly format: RecordFormat['kind'];
  readonly endpoint?: string | undefined;
}

/** `host` of the host file. */
export const HostSection = z.strictObject({
  name: HostName.optional().describe('what instances of this host are called; default: the host name'),
  address: AnnouncedAddress.optional().describe(
    'what is announced: an address, or a name whose address is; default: the first address that is not loopback',
  ),
  labels: Labels.default({}).describe('added to every instance of this host'),
});

export interface HostConfig {
  readonly name: string;
  /** Or the name of a host that stands for one. */
  readonly address: string;
  readonly labels: Readonly<Record<string, string>>;
}

/** What the host file says, and what it leaves to the machine; undefined where the machine has nothing to offer. */
export interface ResolvedHost {
  /** Not yet known to be safe: a machine may be called anything. */
  readonly name: string;
  readonly address: string | undefined;
  readonly labels: Readonly<Record<string, string>>;
}

export function resolveHost(section: z.output<typeof HostSection>): ResolvedHost {
  return {
    name: section.name ?? hostname(),
    address: section.address ?? firstAddress(),
    labels: section.labels,
  };
}

function firstAddress(): string | undefined {
  const all = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
  const usable = all.filter((entry) => !entry.internal && !entry.address.startsWith('fe80:'));
  return (usable.find((entry) => entry.family === 'IPv4') ?? usable[0])?.address;
}

/** `log` of the host file. */
export const LogSection = z.strictObject({
  level: z.enum(['debug', 'info', 'warn', 'error']).default('info') satisfies z.ZodType<LogLevel>,
  format: z.enum(['json']).default('json'),
});
