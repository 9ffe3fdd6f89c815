import { readFile } from 'node:fs/promises';

import type { Instance } from '@tandem/core';

import type { DiscoveredService } from '../config/discover.ts';
import type { HaproxyConfig } from '../config/haproxy.ts';
import { type ReportedServer, serversInFile } from './membership.ts';
import { readSpares } from './routing.ts';
import { createWorkers } from './workers.ts';

/** By service: the instances that a running HAProxy has in rotation. Nothing for a service that has none. */
export type Serving = ReadonlyMap<string, readonly Instance[]>;

/** What the HAProxy that runs serves already; undefined when none answers. */
export async function readServing(
  config: HaproxyConfig,
  services: readonly DiscoveredService[],
  signal: AbortSignal,
): Promise<Serving | undefined> {
  const running = await createWorkers(config.runtimeSocket).look(signal);
  if (running === undefined) return undefined;
  const [{ assigned }, file] = await Promise.all([
    readSpares(config),
    readFile(config.configFile, 'utf8').catch(() => ''),
  ]);
  const { options } = serversInFile(file);
  const serving = new Map<string, readonly Instance[]>();
  for (const { service, config: discover } of services) {
    const spare = assigned.get(service);
    const shared = spare === undefined ? '' : discover.serverOptions;
    const instances = (running.backends.get(spare ?? service) ?? []).flatMap((server) => {
      if (server.state !== 'ready') return [];
      const text = options.get(server.name) ?? '';
      return instanceOf(server, text.startsWith(shared) ? text.slice(shared.length).trim() : '') ?? [];
    });
    if (instances.length > 0) serving.set(service, instances);
  }
  return serving;
}

/**
 * The instance that a server was made of, as far as its name tells: `<name>_<address>:<port>`, and a mark of its own
 * options if it has any. Undefined when the name is of another making.
 */
export function instanceOf(
  { name, address, port, weight }: ReportedServer,
  options: string,
): Instance | undefined {
  const endpoint = `${address}:${port}`;
  const whole = name.endsWith(endpoint) ? name : name.replace(/:[0-9a-f]{8}$/, '');
  const rest = whole.slice(0, Math.max(0, whole.length - endpoint.length));
  if (!whole.endsWith(endpoint) || !(rest === '' || rest.endsWith('_'))) return undefined;
  return {
    name: rest.slice(0, -1),
    host: address,
    port,
    weight,
    ...(options === '' ? {} : { haproxyServerOptions: options }),
  };
}
