import { isIP } from 'node:net';

/** Identity of an instance within its service: unique per running copy, the same in every snapshot that has it. */
export type InstanceId = string & { readonly brand: 'InstanceId' };

/** One running copy of a service, as announced. Immutable: a change is another record. */
export interface Instance {
  /** The host's name for it, such as `i-1234`; what Nerve calls `name`. May be empty for foreign writers. */
  readonly name: string;
  /** A canonical IPv4 or IPv6 literal, or a host name as somebody announced it. */
  readonly host: string;
  /** 1 to 65535 */
  readonly port: number;
  /** Share of traffic relative to the others; 0 gets none. */
  readonly weight?: number;
  readonly labels?: Readonly<Record<string, string>>;
  /** Nerve's `haproxy_server_options`, kept as it came. Text from the registry: never paste it anywhere. */
  readonly haproxyServerOptions?: string;
}

/** Why one entry of a source was set aside. Costs nothing but itself. */
export interface Rejection {
  /** Where it stands, such as the name of the znode. */
  readonly place: string;
  readonly reason: string;
}

/** All instances that a source knows of one service, in a stable order. Always whole, never a part. */
export interface Snapshot {
  readonly instances: readonly Instance[];
  readonly rejected: readonly Rejection[];
}

export function instanceId(instance: Pick<Instance, 'name' | 'host' | 'port'>): InstanceId {
  return `${instance.name}_${formatEndpoint(instance)}` as InstanceId;
}

/** `10.0.0.5:80`, `[2001:db8::1]:80` */
export function formatEndpoint(endpoint: { host: string; port: number }): string {
  return isIP(endpoint.host) === 6
    ? `[${endpoint.host}]:${endpoint.port}`
    : `${endpoint.host}:${endpoint.port}`;
}

/** The order of every snapshot; zero for two records of one instance. */
export function compareInstances(
  a: Pick<Instance, 'name' | 'host' | 'port'>,
  b: Pick<Instance, 'name' | 'host' | 'port'>,
): number {
  if (a.name !== b.name) return a.name < b.name ? -1 : 1;
  if (a.host !== b.host) return a.host < b.host ? -1 : 1;
  return a.port - b.port;
}

/** In order, and each identity once: the first of equals wins. */
export function uniqueInstances(instances: Iterable<Instance>): Instance[] {
  const unique: Instance[] = [];
  // The order of equals stays as it was.
  for (const instance of [...instances].toSorted(compareInstances)) {
    const last = unique.at(-1);
    if (last === undefined || compareInstances(last, instance) !== 0) unique.push(instance);
  }
  return unique;
}
