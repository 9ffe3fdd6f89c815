import type { Membership, ReportedServer, Server } from './membership.ts';
import type { Structure } from './structure.ts';

/** One change of a running HAProxy. */
export type Step =
  | {
      readonly kind: 'add';
      readonly backend: string;
      readonly server: Server;
      readonly serverOptions: string;
    }
  | { readonly kind: 'ready'; readonly backend: string; readonly server: string }
  | { readonly kind: 'weight'; readonly backend: string; readonly server: string; readonly weight: number }
  | { readonly kind: 'drain'; readonly backend: string; readonly server: string };

/** Why HAProxy has to start a new worker. Never for membership alone. */
export type ReloadReason =
  | { readonly kind: 'structure-changed'; readonly running: string; readonly wanted: string }
  | { readonly kind: 'server-moved'; readonly backend: string; readonly server: string }
  | { readonly kind: 'too-many-tombstones'; readonly backend: string; readonly count: number }
  | { readonly kind: 'update-refused'; readonly replies: readonly string[] };

export type Plan =
  | { readonly kind: 'update'; readonly steps: readonly Step[] }
  | { readonly kind: 'reload'; readonly reason: ReloadReason };

/** A drained server costs about 5.5 KB until the next reload. */
const MAX_TOMBSTONES = 200;

/**
 * What brings a running HAProxy to the desired state. Equal states need no step. Adds, revivals and weights come
 * before every drain, so that a backend never passes through empty; backends that are not in `membership`, and those
 * that are not in the structure, are left alone.
 */
export function planChanges(
  running: { mark: string; backends: ReadonlyMap<string, ReadonlyMap<string, ReportedServer>> },
  desired: { mark: string; structure: Structure; membership: Membership },
): Plan {
  if (running.mark !== desired.mark) {
    return {
      kind: 'reload',
      reason: { kind: 'structure-changed', running: running.mark, wanted: desired.mark },
    };
  }
  const gains: Step[] = [];
  const drains: Step[] = [];
  for (const proxy of desired.structure.proxies) {
    const wanted = desired.membership.get(proxy.name);
    if (wanted === undefined) continue;
    const present = running.backends.get(proxy.name) ?? new Map<string, ReportedServer>();
    for (const server of wanted) {
      const found = present.get(server.name);
      if (found === undefined)
        gains.push({ kind: 'add', backend: proxy.name, server, serverOptions: proxy.serverOptions });
      else if (found.address !== server.address || found.port !== server.port) {
        return { kind: 'reload', reason: { kind: 'server-moved', backend: proxy.name, server: server.name } };
      } else gains.push(...planServer(proxy.name, found, server));
    }
    const names = new Set<string>(wanted.map((server) => server.name));
    const unwanted = [...present.values()].filter((server) => !names.has(server.name));
    for (const server of unwanted) {
      if (server.inRotation) drains.push({ kind: 'drain', backend: proxy.name, server: server.name });
    }
    if (unwanted.length > MAX_TOMBSTONES) {
      return {
        kind: 'reload',
        reason: { kind: 'too-many-tombstones', backend: proxy.name, count: unwanted.length },
      };
    }
  }
  return { kind: 'update', steps: [...gains, ...drains] };
}

function planServer(backend: string, found: ReportedServer, wanted: Server): Step[] {
  const steps: Step[] = [];
  if (found.weight !== wanted.weight)
    steps.push({ kind: 'weight', backend, server: wanted.name, weight: wanted.weight });
  if (!found.inRotation) steps.push({ kind: 'ready', backend, server: wanted.name });
  return steps;
}
