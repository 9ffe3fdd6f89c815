import { isIP, SocketAddress } from 'node:net';

import { type Instance, type InstanceId, instanceId, type Rejection } from '@tandem/core';

import type { InstanceOption } from '../config/discover.ts';
import type { HoldKind, Offer, Offers } from '../output.ts';
import type { Placement } from './ports.ts';
import { parseServerOptions } from './server-options.ts';
import type { Structure } from './structure.ts';

/** A name that HAProxy takes in its file and on its command line as one harmless word. Made only here. */
export type ServerName = string & { readonly brand: 'ServerName' };

/** HAProxy's words for a server in rotation and out of it. */
export type ServerState = 'ready' | HoldKind;

/** A server as HAProxy reports it. */
export interface ReportedServer {
  readonly name: string;
  readonly id: number;
  /** Canonical IP literal */
  readonly address: string;
  readonly port: number;
  /** 0 to 256 */
  readonly weight: number;
  readonly state: ServerState;
}

/**
 * One server line. Everything about it is spelled out: dynamic servers inherit nothing from `default-server`. Servers
 * with one name are equal but for weight and state: what else would differ is a part of the name.
 */
export interface Server extends ReportedServer {
  readonly name: ServerName;
  /** Stable for a name, the same on every host, so that consistent hashes agree (HAProxy reference 1.4). */
  readonly id: number;
  /** Not ready only while an operator holds it. */
  readonly state: ServerState;
  /** Beside those of its backend; canonical. */
  readonly options: string;
}

/** The servers of every backend: what the runtime API changes. A backend that is not in it is left as it is. */
export type Membership = ReadonlyMap<string, readonly Server[]>;

export interface BuiltMembership {
  readonly membership: Membership;
  /** What had to be set aside because HAProxy must never see it, by service. */
  readonly rejected: ReadonlyMap<string, readonly Rejection[]>;
}

interface BuiltServers {
  readonly servers: readonly Server[];
  readonly rejections: readonly Rejection[];
}

/**
 * Turns offers into the servers of every known service. Pure but for its memory: equal records give the same servers,
 * and services in which nothing has changed the same arrays. A service without a placement has a backend of its name.
 */
export function createMembershipBuilder(): (
  offers: Offers,
  placements?: ReadonlyMap<string, Placement>,
) => BuiltMembership {
  const builders = new Map<string, ServersBuilder>();
  return (offers, placements) => {
    const membership = new Map<string, readonly Server[]>();
    const rejected = new Map<string, readonly Rejection[]>();
    for (const [name, offer] of offers) {
      const accepted = offer.service.config.instanceOptions;
      const { backend, options } = placements?.get(name) ?? { backend: name, options: '' };
      let builder = builders.get(name);
      if (builder?.options !== options || !isSame(builder.accepted, accepted)) {
        builder = { accepted, options, build: createServersBuilder(accepted, options) };
        builders.set(name, builder);
      }
      const { instances, holds } = offer;
      if (instances === undefined) continue;
      const { servers, rejections } = builder.build({ instances, holds });
      membership.set(backend, servers);
      if (rejections.length > 0) rejected.set(name, rejections);
    }
    for (const name of builders.keys()) if (!offers.has(name)) builders.delete(name);
    return { membership, rejected };
  };
}

/** The servers of every known service, without a memory. */
export function buildMembership(offers: Offers): BuiltMembership {
  return createMembershipBuilder()(offers);
}

interface ServersBuilder {
  readonly accepted: readonly InstanceOption[];
  readonly options: string;
  readonly build: (offer: KnownOffer) => BuiltServers;
}

type KnownOffer = Pick<Offer, 'holds'> & { readonly instances: readonly Instance[] };

function createServersBuilder(
  accepted: readonly InstanceOption[],
  shared: string,
): (offer: KnownOffer) => BuiltServers {
  const translated = new WeakMap<Instance, Translated>();
  /** Servers that differ from what their records say, as they were last time. */
  let variants = new Map<Server, Server>();
  let last: (KnownOffer & BuiltServers) | undefined;

  function translate(instance: Instance): Translated {
    let known = translated.get(instance);
    if (known === undefined) translated.set(instance, (known = toServer(instance, accepted, shared)));
    return known;
  }

  return (offer) => {
    if (last !== undefined && last.instances === offer.instances && isSameMap(last.holds, offer.holds))
      return last;
    const found: Server[] = [];
    let isOrdered = true;
    const held = new Map<ServerName, HoldKind>();
    const rejections: Rejection[] = [];
    for (const instance of offer.instances) {
      const { server, rejection } = translate(instance);
      if (rejection !== undefined) rejections.push(rejection);
      if (server === undefined) continue;
      isOrdered &&= found.length === 0 || byServerName(found.at(-1) as Server, server) < 0;
      found.push(server);
      const hold = offer.holds.size === 0 ? undefined : offer.holds.get(instanceId(instance));
      if (hold !== undefined && !held.has(server.name)) held.set(server.name, hold);
    }
    const taken = new Set<number>();
    const used = new Map<Server, Server>();
    const unique = isOrdered ? found : uniqueServers(found);
    const servers = unique.map((server): Server => {
      const id = freeId(server.id, taken);
      const state: ServerState = held.get(server.name) ?? 'ready';
      if (id === server.id && state === server.state) return server;
      const before = variants.get(server);
      const variant = before?.id === id && before.state === state ? before : { ...server, id, state };
      used.set(server, variant);
      return variant;
    });
    variants = used;
    const before = last?.servers ?? [];
    const built = { ...offer, servers: isSame(before, servers) ? before : servers, rejections };
    last = built;
    return built;
  };
}

/** In order; of those with one name the first counts. */
function uniqueServers(servers: readonly Server[]): readonly Server[] {
  const sorted = servers.toSorted(byServerName);
  return sorted.filter(({ name }, index) => name !== sorted[index - 1]?.name);
}

function byServerName(a: Server, b: Server): number {
  if (a.name === b.name) return 0;
  return a.name < b.name ? -1 : 1;
}

function isSame(a: readonly unknown[], b: readonly unknown[]): boolean {
  return a === b || (a.length === b.length && a.every((item, index) => item === b[index]));
}

function isSameMap(a: ReadonlyMap<InstanceId, HoldKind>, b: ReadonlyMap<InstanceId, HoldKind>): boolean {
  return a === b || (a.size === b.size && [...a].every(([key, value]) => b.get(key) === value));
}

const MAX_WEIGHT = 256;
const SERVER_NAME = /^[A-Za-z0-9_.:-]{1,128}$/;

interface Translated {
  readonly server: Server | undefined;
  readonly rejection: Rejection | undefined;
}

/**
 * A record as a server, ready, with the id that it has unless another one has it, too. Its name is
 * `<name>_<address>:<port>`, as Synapse names servers, and a mark of its own options if it has any: the same name
 * always means the same line. Registry text is hostile: an address that is not a plain IP literal would be looked up
 * or expanded by HAProxy, a name with other characters could become another line of its file or another command
 * (HAProxy reference 6.1 and 6.2). Such an instance is set aside.
 */
function toServer(instance: Instance, accepted: readonly InstanceOption[], shared: string): Translated {
  const place = instance.name.slice(0, 128);
  const endpoint = toEndpoint(instance);
  if ('reason' in endpoint) return { server: undefined, rejection: { place, reason: endpoint.reason } };
  const own = ownOptions(instance, endpoint.name, accepted);
  const options = `${shared} ${own.text}`.trim();
  const name = options === '' ? endpoint.name : markedName(endpoint.name, options);
  if (!SERVER_NAME.test(name))
    return { server: undefined, rejection: { place, reason: 'the name is too long for options beside it' } };
  const weight = Math.max(0, Math.min(own.weight ?? instance.weight ?? 1, MAX_WEIGHT));
  const { address, port } = endpoint;
  return {
    server: { name, id: idOf(name), address, port, weight, state: 'ready', options },
    rejection:
      own.complaints.length === 0
        ? undefined
        : { place, reason: `haproxy_server_options: ${own.complaints.slice(0, 3).join(', ')}` },
  };
}

function ownOptions(
  { haproxyServerOptions }: Instance,
  name: ServerName,
  accepted: readonly InstanceOption[],
) {
  if (haproxyServerOptions === undefined || haproxyServerOptions === '')
    return { weight: undefined, text: '', complaints: [] };
  const own = parseServerOptions(haproxyServerOptions, accepted);
  if (own.text === '' || SERVER_NAME.test(markedName(name, own.text))) return own;
  return { ...own, text: '', complaints: [...own.complaints, 'the name is too long for options beside it'] };
}

function markedName(name: ServerName, options: string): ServerName {
  return `${name}:${markOf(options)}` as ServerName;
}

/** Eight digits, so that they are never taken for a port. */
function markOf(options: string): string {
  return fnv(options).toString(16).padStart(8, '0');
}

function toEndpoint({
  name,
  host,
  port,
}: Instance): { name: ServerName; address: string; port: number } | { readonly reason: string } {
  const address = canonicalAddress(host);
  if (address === undefined) return { reason: 'the host is not an IPv4 or IPv6 address' };
  if (address === '0.0.0.0' || address === '::')
    return { reason: 'the host is the unspecified address: HAProxy would go wherever its client wanted to' };
  const text = name === '' ? `${address}:${port}` : `${name}_${address}:${port}`;
  if (!SERVER_NAME.test(text))
    return { reason: 'the name holds characters other than letters, digits and _.:-, or is too long' };
  return { name: text as ServerName, address, port };
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

/** FNV-1a of ASCII text, 32 bits. */
function fnv(text: string): number {
  let hash = 2_166_136_261;
  for (let index = 0; index < text.length; index += 1)
    hash = Math.imul(hash ^ text.charCodeAt(index), 16_777_619);
  return hash >>> 0;
}

/** HAProxy takes 1 to 2^31-1. */
function idOf(name: ServerName): number {
  return fnv(name) & 0x7fff_ffff || 1;
}

function freeId(wanted: number, taken: Set<number>): number {
  let id = wanted;
  while (taken.has(id)) id = id === 0x7fff_ffff ? 1 : id + 1;
  taken.add(id);
  return id;
}

/** Who is held, by backend. */
export type Holds = ReadonlyMap<string, ReadonlyMap<InstanceId, HoldKind>>;

/**
 * The membership, completed from what HAProxy has for the backends that it says nothing of: who serves, and of the
 * others who is a member by what it was left with, or else by the file that it was started with. Those are held, wait
 * for their first check, or were taken out by somebody else. The own options of its servers, which HAProxy does not
 * tell, are found in the same way.
 */
export function adoptServers(
  desired: { structure: Structure; membership: Membership; holds?: Holds },
  reported: ReadonlyMap<string, readonly ReportedServer[]>,
  left: Membership = new Map(),
  inFile: ServersInFile = { members: new Map(), options: new Map() },
): Membership {
  const membership = new Map(desired.membership);
  for (const { name: backend } of desired.structure.proxies) {
    if (membership.has(backend)) continue;
    const before = left.get(backend) ?? [];
    const known = new Map<string, Server>(before.map((server) => [server.name, server]));
    const members = left.has(backend) ? known : inFile.members.get(backend);
    const held = heldServers(desired.holds?.get(backend));
    const servers = (reported.get(backend) ?? [])
      .filter(
        ({ name, address, state }) =>
          (state === 'ready' || members?.has(name) === true) && SERVER_NAME.test(name) && isIP(address) !== 0,
      )
      .map((server): Server => {
        const kept = known.get(server.name);
        const { name, id, address, port, weight } = server;
        const state = held.get(name.replace(MARK, '')) ?? 'ready';
        if (kept?.weight === weight && kept.id === id && kept.state === state) return kept;
        const options = kept?.options ?? inFile.options.get(name) ?? '';
        return { name: name as ServerName, id, address, port, weight, state, options };
      })
      .sort(byServerName);
    if (servers.length > 0) membership.set(backend, isSame(before, servers) ? before : servers);
  }
  return membership;
}

const MARK = /:([0-9a-f]{8})$/;

/** By what an instance's server is called without a mark. Only the empty name leaves no `_` before the address. */
function heldServers(holds: ReadonlyMap<InstanceId, HoldKind> = new Map()): ReadonlyMap<string, HoldKind> {
  return new Map(
    [...holds].flatMap(([id, kind]): [string, HoldKind][] => {
      const name = id.replaceAll(/[[\]]/g, '');
      return name.startsWith('_')
        ? [
            [name, kind],
            [name.slice(1), kind],
          ]
        : [[name, kind]];
    }),
  );
}

/** The same membership as it is to be written down: who is held by somebody else is out of rotation there, too. */
export function withHolds(
  membership: Membership,
  holds: ReadonlyMap<string, ReadonlyMap<string, HoldKind>>,
): Membership {
  if (holds.size === 0) return membership;
  const held = new Map(membership);
  for (const [backend, kinds] of holds) {
    const servers = membership.get(backend) ?? [];
    if (servers.some(({ name }) => kinds.has(name)))
      held.set(
        backend,
        servers.map((server) => ({ ...server, state: kinds.get(server.name) ?? server.state })),
      );
  }
  return held;
}

/** The servers of a file that Tandem wrote. */
export interface ServersInFile {
  /** Their names, by backend. */
  readonly members: ReadonlyMap<string, ReadonlySet<string>>;
  /** The own options of those that have any. */
  readonly options: ReadonlyMap<string, string>;
}

/** Names of servers with options of their own say how these must read. */
export function serversInFile(text: string): ServersInFile {
  const members = new Map<string, Set<string>>();
  let section = new Set<string>();
  const found = new Map<string, string>();
  for (const line of text.split('\n')) {
    const [keyword, name = '', ...words] = line.trim().split(' ');
    if (keyword === 'backend') members.set(name, (section = new Set()));
    if (keyword !== 'server') continue;
    section.add(name);
    const mark = MARK.exec(name)?.[1];
    if (mark === undefined) continue;
    const end = words.at(-1) === 'disabled' ? -1 : words.length;
    for (let start = 1; start < words.length; start += 1) {
      const options = words.slice(start, end).join(' ');
      if (markOf(options) === mark) found.set(name, options);
    }
  }
  return { members, options: found };
}

/** `10.0.0.1:80` or `[::1]:80` as HAProxy writes addresses. */
export function serverAddress({ address, port }: Pick<Server, 'address' | 'port'>): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

/**
 * What follows the address, in the file and in `add server` alike. The pool options are the defaults of a server line;
 * dynamic servers of 2.6 and 2.8 would start without them and never reuse a connection (HAProxy reference 1.4).
 */
export function serverArguments(
  { id, weight, options }: Pick<Server, 'id' | 'weight' | 'options'>,
  serverOptions: string,
): string {
  const fixed = `id ${id} weight ${weight} pool-purge-delay 5s pool-max-conn -1`;
  const shared = serverOptions === '' ? fixed : `${fixed} ${serverOptions}`;
  return options === '' ? shared : `${shared} ${options}`;
}
