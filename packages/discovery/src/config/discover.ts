import { checkFormat, duration, formatKeys, recordFormat, SafeName } from '@tandem/core';
import * as z from 'zod';

import { SourceSection } from '../sources/kinds.ts';
import { BackendLine, ConfigLine, Listen, OptionWords, ServerOptions } from './lines.ts';
import {
  ConfiguredInstance,
  FilterSection,
  GuardSection,
  LocalitySection,
  SubsetSection,
} from './selection.ts';

/**
 * The algorithms that take servers at run time (HAProxy reference 1.2); those that hash do so consistently, because
 * HAProxy adds no server to the others.
 */
const Balance = z
  .string()
  .regex(
    /^(roundrobin|leastconn|random|first|source|uri|url_param [A-Za-z0-9_.-]+|hdr\([A-Za-z0-9-]+\)|rdp-cookie(\([A-Za-z0-9_.-]+\))?)$/,
    'must be roundrobin, leastconn, random, first, source, uri, url_param NAME, hdr(NAME) or rdp-cookie: HAProxy adds servers at run time to no other',
  );

/** What stands in the Host header of a request, without its port. */
const RequestHost = z
  .string()
  .max(253)
  .regex(
    /^([A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\])$/,
    'must be a host name, such as api.example.com, or an address, such as 10.0.0.5 or [::1]',
  )
  .transform((host) => host.toLowerCase());

/** What an instance may say of its own server line. */
export const INSTANCE_OPTIONS = ['weight', 'backup', 'maxconn', 'slowstart', 'send-proxy', 'check'] as const;

/** `discover` of a service file. */
export const DiscoverSection = z
  .strictObject({
    listen: Listen.optional().describe('where applications of this host reach the service'),
    bind_options: OptionWords.default('').describe(
      'of that listener, such as: ssl crt PATH, or accept-proxy',
    ),
    shared_frontend: SafeName.optional().describe('one of haproxy.shared_frontends'),
    hosts: z
      .array(RequestHost)
      .default([])
      .describe('the hosts whose requests go to the service on that frontend'),
    mode: z.enum(['http', 'tcp']).default('http'),
    balance: Balance.optional().describe('default: roundrobin, or that of haproxy.port_range'),
    source: SourceSection.prefault({ registry: {} }).describe('where its instances come from'),
    filter: FilterSection.default({}).describe('only instances with these labels'),
    fallback: z.array(ConfiguredInstance).default([]).describe('used while there is no other instance'),
    leader: z.boolean().default(false).describe('one instance at a time, the same on every host'),
    guard: GuardSection.optional().describe('default: discovery.guard of the host file'),
    locality: LocalitySection.optional(),
    subset: SubsetSection.optional(),
    allow_empty: z.boolean().default(false).describe('follow the source even when the last instance goes'),
    server_options: ServerOptions.default('').describe(
      "HAProxy's options of every server, such as: check inter 2s",
    ),
    instance_options: z
      .array(z.enum(INSTANCE_OPTIONS))
      .default([...INSTANCE_OPTIONS])
      .describe('what an announcement may set for its own server'),
    gate: z
      .strictObject({ first_check: duration({ minMs: 100, maxMs: 600_000 }) })
      .optional()
      .describe("a server that joins waits for HAProxy's own first check, at most this long"),
    frontend: z.array(ConfigLine).default([]).describe('lines added to its frontend'),
    backend: z.array(BackendLine).default([]).describe('lines added to its backend'),
    ...formatKeys,
  })
  .superRefine(checkFormat)
  .superRefine(checkRouting)
  .transform((section) => ({
    listen: section.listen,
    bindOptions: section.bind_options,
    sharedFrontend: section.shared_frontend,
    hosts: section.hosts,
    mode: section.mode,
    balance: section.balance,
    source: section.source,
    filter: section.filter,
    fallback: section.fallback,
    leader: section.leader,
    guard: section.guard,
    locality: section.locality,
    subset: section.subset,
    allowEmpty: section.allow_empty,
    serverOptions: section.server_options,
    instanceOptions: section.instance_options,
    firstCheckMs: section.gate?.first_check,
    frontend: section.frontend,
    backend: section.backend,
    format: recordFormat(section),
  }));

interface RoutingKeys {
  readonly listen?: string | undefined;
  readonly shared_frontend?: string | undefined;
  readonly hosts: readonly string[];
  readonly mode: 'http' | 'tcp';
  readonly gate?: unknown;
  readonly server_options: string;
  readonly bind_options: string;
  readonly frontend: readonly string[];
}

/** What is wrong with these keys together. A service without listen and hosts is for file outputs only. */
function checkRouting(
  section: RoutingKeys,
  context: { addIssue(issue: { code: 'custom'; path: string[]; message: string }): void },
): void {
  const complain = (key: string, message: string) =>
    context.addIssue({ code: 'custom', path: [key], message });
  const { shared_frontend: shared, hosts } = section;
  if (shared !== undefined && hosts.length === 0) complain('shared_frontend', 'needs hosts beside it');
  if (shared === undefined && hosts.length > 0) complain('hosts', 'needs shared_frontend beside it');
  if (shared !== undefined && section.mode !== 'http')
    complain('mode', 'must be http on a shared frontend: only http requests name a host');
  // Access rules stand in such lines: where they have no effect, somebody has to know.
  const needsListen =
    'needs listen beside it: without, the service has no frontend of its own. For a shared frontend it belongs to haproxy.shared_frontends';
  if (section.listen === undefined && section.frontend.length > 0) complain('frontend', needsListen);
  if (section.listen === undefined && section.bind_options !== '') complain('bind_options', needsListen);
  if (section.gate !== undefined && !section.server_options.split(' ').includes('check'))
    complain('gate', 'needs check in server_options: without checks there is no first one');
}

export type DiscoverConfig = z.output<typeof DiscoverSection>;
export type InstanceOption = (typeof INSTANCE_OPTIONS)[number];

/** A service that this host follows. */
export interface DiscoveredService {
  readonly service: string;
  readonly path: string;
  readonly config: DiscoverConfig;
}
