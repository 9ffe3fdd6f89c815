import { checkFormat, duration, formatKeys, Labels, Port, recordFormat } from '@tandem/core';
import { type AnnounceOptions, NODE_TYPES, type NodeType } from '@tandem/registry';
import * as z from 'zod';

import { type CheckConfig, CheckSection } from './checks/kinds.ts';
import type { Health } from './health.ts';

/** The `register:` block of a service file. */
export const RegisterSection = z
  .strictObject({
    port: Port.describe('where clients reach the service on this host'),
    weight: z
      .number()
      .int()
      .min(0)
      .max(256)
      .optional()
      .describe('share of traffic relative to the other instances; 0 gets none'),
    labels: Labels.default({}).describe('added to those of the host; the same key wins over the host'),
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
  .transform(({ port, weight, labels, checks, ...written }): RegisterConfig => ({
    port,
    ...(weight === undefined ? {} : { weight }),
    labels,
    checks,
    announce: {
      format: recordFormat(written),
      nodeType: written.node_type,
      ...(written.path_encoding === undefined ? {} : { pathEncoding: written.path_encoding }),
      ...(written.ttl === undefined ? {} : { ttlMs: written.ttl }),
    },
  }));

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

function ttlType(nodeType: NodeType): string {
  return nodeType.replace('ephemeral', 'persistent');
}

/** What a service file says about its registration, with everything filled in. */
export interface RegisterConfig {
  readonly port: number;
  readonly weight?: number;
  readonly labels: Readonly<Record<string, string>>;
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
  return `${path} ${config.port}`;
}
