import { createHash } from 'node:crypto';

import type { DiscoveredService } from '../config/discover.ts';
import type { HaproxyConfig } from '../config/haproxy.ts';

/** One service as HAProxy sees it, without its servers: what only a reload can change. */
export interface Proxy {
  /** The name of the service, its frontend and its backend. */
  readonly name: string;
  /** `ADDRESS:PORT` or the path of a unix socket; undefined when only a shared frontend leads to it. */
  readonly bind: string | undefined;
  readonly bindOptions: string;
  readonly mode: 'http' | 'tcp';
  readonly balance: string;
  /** Options of every server, beside its own. */
  readonly serverOptions: string;
  /** How long a server that joins waits for HAProxy's own first check; undefined when it does not wait. */
  readonly firstCheckMs?: number;
  readonly frontendLines: readonly string[];
  readonly backendLines: readonly string[];
}

/** Everything that only a reload can change. */
export interface Structure {
  readonly runtimeSocket: string;
  readonly global: readonly string[];
  readonly defaults: readonly string[];
  readonly extraSections: Readonly<Record<string, readonly string[]>>;
  readonly proxies: readonly Proxy[];
}

export function buildStructure(config: HaproxyConfig, services: readonly DiscoveredService[]): Structure {
  const proxies = services
    .map(({ service, config: discover }) => ({
      name: service,
      bind: discover.listen,
      bindOptions: discover.bindOptions,
      mode: discover.mode,
      balance: discover.balance,
      serverOptions: discover.serverOptions,
      ...(discover.firstCheckMs === undefined ? {} : { firstCheckMs: discover.firstCheckMs }),
      frontendLines: discover.frontend,
      backendLines: discover.backend,
    }))
    .toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const { runtimeSocket, global, defaults, extraSections } = config;
  return { runtimeSocket, global, defaults, extraSections, proxies };
}

/** Which structure a running HAProxy has loaded: this text stands in its `description`. */
export function structureMark(renderedSample: string): string {
  return `tandem ${createHash('sha256').update(renderedSample).digest('hex').slice(0, 16)}`;
}
