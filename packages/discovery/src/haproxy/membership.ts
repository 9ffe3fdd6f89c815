import { isIP, SocketAddress } from 'node:net';

import type { Instance, Rejection } from '@tandem/core';

import type { Offers } from '../output.ts';
import type { Structure } from './structure.ts';

/** A name that HAProxy takes in its file and on its command line as one harmless word. Made only by `serverName`. */
export type ServerName = string & { readonly brand: 'ServerName' };

/** One server line. Everything about it is spelled out: dynamic servers inherit nothing from `default-server`. */
export interface Server {
  readonly name: ServerName;
  /** Stable for a name, the same on every host, so that consistent hashes agree (HAProxy reference 1.4). */
  readonly id: number;
  /** Canonical IP literal */
  readonly address: string;
  readonly port: number;
  /** 0 to 256 */
  readonly weight: number;
}

/** The servers of every backend: what the runtime API changes. A backend that is not in it is left as it is. */
export type Membership = ReadonlyMap<string, readonly Server[]>;

/** The servers of every known service, and what had to be set aside because HAProxy must never see it. */
export function buildMembership(offers: Offers): {
  membership: Membership;
  rejected: ReadonlyMap<string, readonly Rejection[]>;
} {
  const membership = new Map<string, readonly Server[]>();
  const rejected = new Map<string, readonly Rejection[]>();
  for (const [service, { instances }] of offers) {
    if (instances === undefined) continue;
    const { servers, rejections } = toServers(instances);
    membership.set(service, servers);
    if (rejections.length > 0) rejected.set(service, rejections);
  }
  return { membership, rejected };
}

/** What HAProxy reports of a server, as far as it can be taken over. */
export interface ReportedServer {
  readonly name: string;
  readonly id: number;
  readonly address: string;
  readonly port: number;
  readonly weight: number;
  readonly inRotation: boolean;
}

/** The membership, completed from what HAProxy has for the backends that it says nothing of. */
export function adoptServers(
  desired: { structure: Structure; membership: Membership },
  reported: ReadonlyMap<string, ReadonlyMap<string, ReportedServer>>,
): Membership {
  const membership = new Map(desired.membership);
  for (const { name: backend } of desired.structure.proxies) {
    if (membership.has(backend)) continue;
    const servers = [...(reported.get(backend)?.values() ?? [])]
      .filter((server) => server.inRotation && SERVER_NAME.test(server.name) && isIP(server.address) !== 0)
      .map(({ name, id, address, port, weight }) => ({
        name: name as ServerName,
        id,
        address,
        port,
        weight,
      }));
    if (servers.length > 0) membership.set(backend, servers);
  }
  return membership;
}

const MAX_WEIGHT = 256;
const SERVER_NAME = /^[A-Za-z0-9_.:-]{1,128}$/;

function toServers(instances: readonly Instance[]): { servers: Server[]; rejections: Rejection[] } {
  const byName = new Map<ServerName, Omit<Server, 'id'>>();
  const rejections: Rejection[] = [];
  for (const instance of instances) {
    const endpoint = toEndpoint(instance);
    if ('reason' in endpoint)
      rejections.push({ place: instance.name.slice(0, 128), reason: endpoint.reason });
    else if (!byName.has(endpoint.name)) byName.set(endpoint.name, endpoint);
  }
  const taken = new Set<number>();
  const servers = [...byName.values()]
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
    .map((endpoint) => ({ ...endpoint, id: freeId(endpoint.name, taken) }));
  return { servers, rejections };
}

/**
 * `<name>_<address>:<port>`, as Synapse names servers. Registry text is hostile: an address that is not a plain IP
 * literal would be looked up or expanded by HAProxy, a name with other characters could become another line of its
 * file or another command (HAProxy reference 6.1 and 6.2). Such an instance is set aside.
 */
function toEndpoint({
  name,
  host,
  port,
  weight = 1,
}: Instance): Omit<Server, 'id'> | { readonly reason: string } {
  const address = canonicalAddress(host);
  if (address === undefined) return { reason: 'the host is not an IPv4 or IPv6 address' };
  if (address === '0.0.0.0' || address === '::')
    return { reason: 'the host is the unspecified address: HAProxy would go wherever its client wanted to' };
  const text = name === '' ? `${address}:${port}` : `${name}_${address}:${port}`;
  if (!SERVER_NAME.test(text))
    return { reason: 'the name holds characters other than letters, digits and _.:-, or is too long' };
  return { name: text as ServerName, address, port, weight: Math.max(0, Math.min(weight, MAX_WEIGHT)) };
}

/** Whether HAProxy may be told of it. */
export function isUsable(instance: Instance): boolean {
  return !('reason' in toEndpoint(instance));
}

/** An address as HAProxy reports it, however it was announced: `2001:DB8:0::1` is `2001:db8::1`. */
export function canonicalAddress(host: string): string | undefined {
  switch (isIP(host)) {
    case 4:
      return host;
    case 6:
      return host.includes('%') ? undefined : new SocketAddress({ address: host, family: 'ipv6' }).address;
    default:
      return undefined;
  }
}

/** FNV-1a folded to 31 bits (HAProxy takes 1 to 2^31-1), with linear probing. */
function freeId(name: string, taken: Set<number>): number {
  let hash = 2_166_136_261;
  for (const byte of Buffer.from(name)) hash = Math.imul(hash ^ byte, 16_777_619);
  let id = hash & 0x7fff_ffff || 1;
  while (taken.has(id)) id = id === 0x7fff_ffff ? 1 : id + 1;
  taken.add(id);
  return id;
}

/** `10.0.0.1:80` or `[::1]:80` as HAProxy writes addresses. */
export function serverAddress({ address, port }: Pick<Server, 'address' | 'port'>): string {
  return isIP(address) === 6 ? `[${address}]:${port}` : `${address}:${port}`;
}

/**
 * What follows the address, in the file and in `add server` alike. The pool options are the defaults of a server line;
 * dynamic servers of 2.6 and 2.8 would start without them and never reuse a connection (HAProxy reference 1.4).
 */
export function serverArguments(
  { id, weight }: Pick<Server, 'id' | 'weight'>,
  serverOptions: string,
): string {
  const fixed = `id ${id} weight ${weight} pool-purge-delay 5s pool-max-conn -1`;
  return serverOptions === '' ? fixed : `${fixed} ${serverOptions}`;
}

/** What has to be switched on for a new server, because HAProxy does so only for those in its file. */
export function checksOf(serverOptions: string): ('health' | 'agent')[] {
  const words = serverOptions.split(' ');
  return [
    ...(words.includes('check') ? ['health' as const] : []),
    ...(words.includes('agent-check') ? ['agent' as const] : []),
  ];
}
