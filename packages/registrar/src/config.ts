import {
  AnnouncedAddress,
  checkFormat,
  duration,
  formatKeys,
  HostName,
  Labels,
  Port,
  recordFormat,
} from '@tandem/core';
import { type AnnounceOptions, NODE_TYPES, type NodeType } from '@tandem/registry';
import * as z from 'zod';

import { type CheckConfig, CheckSection } from './checks/kinds.ts';
import type { Health } from './health.ts';
import { type FlapDamping, FlapDampingSection } from './flap.ts';
import { type RateLimit, RateLimitSection } from './rate-limit.ts';

const MAX_SERVER_OPTIONS = 1_000;

/**
 * Old Synapses paste this text into haproxy.cfg as it stands: a line end would begin a directive of its own there, and
 * quotes, `#`, `$` and backslashes change how the rest of the line is read.
 */
const ServerOptions = z
  .string()
  .min(1)
  .max(MAX_SERVER_OPTIONS)
  .refine((text) => !/[\p{Cc}\p{Zl}\p{Zp}]/u.test(text), 'must be one line, without control characters')
  .refine((text) => !/["'#$\\]/.test(text), 'must not contain quotes, "#", "$" or "\\"');

/** The `register:` block of a service file. */
export const RegisterSection = z
  .strictObject({
    port: Port.describe('where clients reach the service on this host'),
    address: AnnouncedAddress.optional().describe(
      'where clients reach it, an address or the name of a host; default: host.address',
    ),
    instance_id: HostName.optional().describe('what its instance is called; default: host.name'),
    weight: z
      .number()
      .int()
      .min(0)
      .max(256)
      .optional()
      .describe('share of traffic relative to the other instances; 0 gets none'),
    labels: Labels.default({}).describe('added to those of the host; the same key wins over the host'),
    haproxy_server_options: ServerOptions.optional().describe(
      "announced as it stands, for the server's line in haproxy.cfg of those who discover it",
    ),
    slow_start: duration({ minMs: 1_000 })
      .optional()
      .describe('after it came up, its weight grows to the whole over this time'),
    drain_file: z.string().min(1).optional().describe('while this file exists, the service is not announced'),
    rate_limit: RateLimitSection.optional().describe('of its announcements; default: none'),
    flap_damping: FlapDampingSection.optional().describe(
      'holds it down when it goes down again and again; default: registrar.flap_damping',
    ),
    checks: z
      .array(CheckSection)
      .default([])
      .describe('all must pass for the service to be announced; none: always announced'),
    ...formatKeys,
    node_type: z
      .enum(NODE_TYPES)
      .default('ephemeral_sequential')
      .describe(
        'ephemeral: goes with the session of the registrar; persistent: stays until it is withdrawn; ' +
          'sequential: with a number, so that several may be called alike',
      ),
    path_encoding: z
      .boolean()
      .optional()
      .describe("the record stands in the node's name too; default: registry.zookeeper.path_encoding"),
    ttl: duration({ minMs: 1_000 })
      .optional()
      .describe('how often a persistent node is written again, for whoever clears away what is old'),
  })
  .superRefine(checkFormat)
  .superRefine(checkNodes)
  .superRefine(checkRecord)
  .transform((keys): RegisterConfig => ({
    ...given({
      address: keys.address,
      instanceId: keys.instance_id,
      weight: keys.weight,
      haproxyServerOptions: keys.haproxy_server_options,
      slowStartMs: keys.slow_start,
      drainFile: keys.drain_file,
      rateLimit: keys.rate_limit,
      flapDamping: keys.flap_damping,
    }),
    port: keys.port,
    labels: keys.labels,
    checks: keys.checks,
    announce: {
      format: recordFormat(keys),
      nodeType: keys.node_type,
      ...given({ pathEncoding: keys.path_encoding, ttlMs: keys.ttl }),
    },
  }));

/** Without what nobody said. */
function given<T extends object>(keys: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  const entries = Object.entries(keys).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as { [K in keyof T]?: Exclude<T[K], undefined> };
}

interface NodeKeys {
  readonly format: string;
  readonly node_type: NodeType;
  readonly path_encoding?: boolean | undefined;
  readonly ttl?: number | undefined;
}

/** What each key allows, they may forbid each other. */
function checkNodes({ format, node_type, path_encoding, ttl }: NodeKeys, context: z.RefinementCtx): void {
  const refuse = (path: string, message: string) =>
    context.addIssue({ code: 'custom', path: [path], message });
  if (ttl !== undefined && node_type.startsWith('ephemeral'))
    refuse('ttl', `is for persistent nodes: remove it, or set node_type: ${ttlType(node_type)}`);
  if (format !== 'serverset') return;
  // All members have one name but for their number.
  if (!node_type.endsWith('_sequential'))
    refuse('node_type', `must be sequential in a serverset: set node_type: ${node_type}_sequential`);
  if (path_encoding === true) refuse('path_encoding', 'is of format nerve: remove it, or set format: nerve');
}

interface RecordKeys {
  readonly format: string;
  readonly weight?: number | undefined;
  readonly slow_start?: number | undefined;
  readonly haproxy_server_options?: string | undefined;
}

/** What cannot be said, or not in this format. */
function checkRecord(keys: RecordKeys, context: z.RefinementCtx): void {
  const { format, weight, slow_start, haproxy_server_options } = keys;
  const refuse = (path: string, message: string) =>
    context.addIssue({ code: 'custom', path: [path], message });
  if (format === 'serverset') {
    const foreign = Object.entries({ slow_start, haproxy_server_options });
    for (const [key, value] of foreign)
      if (value !== undefined) refuse(key, 'cannot be said in a serverset: remove it, or set format: nerve');
  } else if (slow_start !== undefined && (weight ?? 1) < 2)
    refuse('slow_start', 'needs a weight of at least 2 to grow to: set weight, such as weight: 100');
}

function ttlType(nodeType: NodeType): string {
  return nodeType.replace('ephemeral', 'persistent');
}

/** What a service file says about its registration, with everything filled in. */
export interface RegisterConfig {
  readonly port: number;
  /** An address or the name of a host, in place of the host's. */
  readonly address?: string;
  /** In place of the name of the host. */
  readonly instanceId?: string;
  readonly weight?: number;
  readonly labels: Readonly<Record<string, string>>;
  readonly haproxyServerOptions?: string;
  readonly slowStartMs?: number;
  /** Absolute, or relative to the directory of the host file. */
  readonly drainFile?: string;
  readonly rateLimit?: RateLimit;
  /** False: never, also where the host has it for all. */
  readonly flapDamping?: FlapDamping | false;
  readonly checks: readonly CheckConfig[];
  /** How its instance is written. */
  readonly announce: AnnounceOptions;
}

/** One service that this host shall announce while it is healthy. */
export interface ServiceRegistration {
  readonly service: string;
  /** Where in the registry, such as `/services/web`. */
  readonly path: string;
  readonly config: RegisterConfig;
  /**
   * What it was found in if not in a service file, such as `container web-1 (4c91be4b51c3)`. Registrations of one name
   * and different origins stand side by side; only within one origin does a new place take over from an old one.
   */
  readonly origin?: string;
  readonly finding?: Finding;
}

/** What whoever found a service says of its health: counts as one more check. */
export interface Finding {
  readonly check: string;
  readonly health: Health;
  readonly reason?: string;
}

/** The place in the registry that a service of this host has: one service alone can have it. */
export function placeKey({ path, config }: ServiceRegistration): string {
  const { instanceId = '', address = '', port } = config;
  return `${path} ${instanceId} ${address} ${port}`;
}
