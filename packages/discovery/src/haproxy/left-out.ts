import type { Log } from '@tandem/core';

import { placesIn } from './alerts.ts';
import type { Membership } from './membership.ts';
import type { RenderedParts } from './render.ts';
import type { Structure } from './structure.ts';

/**
 * Servers that HAProxy refuses in its file, though it took all that was tried beforehand: a file that it cannot load is
 * an outage of every service at the next reload or crash, and one instance less is not.
 */
export interface LeftOut {
  /** Reads which server lines of a file HAProxy complains of. Says whether there are any that were not known. */
  learn(complaint: string, file: Pick<RenderedParts, 'parts'>, structure: Structure): boolean;
  /** The membership without them. Those that nobody wants any more, or not as they were, are forgotten. */
  without(structure: Structure, membership: Membership): Membership;
}

export function createLeftOut(log: Log): LeftOut {
  /** By backend; each with the options of its backend, because others may be in order. */
  let known = new Map<string, { readonly serverOptions: string; readonly names: ReadonlySet<string> }>();

  return {
    learn(complaint, { parts }, structure) {
      const options = serverOptionsOf(structure);
      const text = Buffer.concat(parts).toString('latin1');
      let isNew = false;
      for (const { alert, section, server } of placesIn(complaint, text)) {
        const backend = section.replace(/^backend /, '');
        const serverOptions = options.get(backend);
        const names = known.get(backend)?.names ?? new Set();
        if (server === undefined || serverOptions === undefined || names.has(server)) continue;
        known.set(backend, { serverOptions, names: new Set([...names, server]) });
        isNew = true;
        log.error({ backend, server, reason: alert }, 'left an instance out that HAProxy refuses');
      }
      return isNew;
    },
    without(structure, membership) {
      if (known.size === 0) return membership;
      const options = serverOptionsOf(structure);
      const rest = new Map(membership);
      const still: typeof known = new Map();
      for (const [backend, { serverOptions, names }] of known) {
        const servers = membership.get(backend) ?? [];
        const found = servers.filter(({ name }) => names.has(name)).map(({ name }) => name);
        if (found.length === 0 || options.get(backend) !== serverOptions) continue;
        still.set(backend, { serverOptions, names: new Set(found) });
        rest.set(
          backend,
          servers.filter(({ name }) => !names.has(name)),
        );
      }
      known = still;
      return rest;
    },
  };
}

function serverOptionsOf({ proxies }: Structure): ReadonlyMap<string, string> {
  return new Map(proxies.map(({ name, serverOptions }) => [name, serverOptions]));
}
