import type { DiscoveredService } from '../config/discover.ts';
import type { HaproxyConfig, PortRangeConfig } from '../config/haproxy.ts';
import { overlaps, parseEndpoint } from './endpoints.ts';
import type { Membership } from './membership.ts';

type Mode = 'http' | 'tcp';
const MODES: readonly Mode[] = ['http', 'tcp'];

/** A frontend that listens on the ports of services which are not there yet, and the backends that wait for them. */
export interface PortRange {
  readonly mode: Mode;
  /** `ADDRESS:FIRST-LAST` */
  readonly bind: string;
  readonly spares: number;
  readonly balance: string;
}

export function portRangesOf(config: PortRangeConfig | undefined): PortRange[] {
  if (config === undefined) return [];
  const host = config.address === '::1' ? '[::1]' : config.address;
  return MODES.flatMap((mode) => {
    const span = config[mode];
    if (span === undefined) return [];
    const { spares, balance } = config;
    return [{ mode, bind: `${host}:${span.first}-${span.last}`, spares, balance }];
  });
}

export function rangeFrontend(mode: Mode): string {
  return `tandem-ports-${mode}`;
}

/** The name of a backend that waits for a service; counted from 1. */
export function spareName(mode: Mode, number: number): string {
  return `tandem-spare-${mode}-${number}`;
}

const SPARE = /^tandem-spare-(http|tcp)-([1-9]\d{0,3})$/;

export function isSpare(backend: string): boolean {
  return SPARE.test(backend);
}

/** Keys of a service that nothing but a frontend or backend of its own can honour. */
type OwnKey = 'frontend' | 'backend' | 'bind_options' | 'balance' | 'gate';

/** Where a service is served: by a frontend or backend of its own, by a spare, or nowhere, because it cannot be. */
export type Place =
  | { readonly kind: 'own' }
  | { readonly kind: 'spare'; readonly mode: Mode; readonly port: number }
  | {
      readonly kind: 'impossible';
      readonly key: 'listen' | 'mode' | OwnKey;
      readonly reason: string;
      readonly remedy: string;
    };

/** Depends on nothing but the configuration: not on which spares are free. */
export function placeService(
  config: Pick<HaproxyConfig, 'portRange'>,
  { config: discover }: Pick<DiscoveredService, 'config'>,
): Place {
  const listen = discover.listen === undefined ? undefined : parseEndpoint(discover.listen);
  if (listen?.kind !== 'tcp') return { kind: 'own' };
  for (const range of portRangesOf(config.portRange)) {
    const whole = parseEndpoint(range.bind);
    if (whole?.kind !== 'tcp' || !overlaps(whole, listen)) continue;
    const elsewhere = `or listen outside ${range.bind} (haproxy.port_range)`;
    if (whole.host !== listen.host)
      return {
        kind: 'impossible',
        key: 'listen',
        reason: `${discover.listen} lies within haproxy.port_range, which listens on ${range.bind}`,
        remedy: `Listen on ${range.bind.slice(0, range.bind.lastIndexOf(':'))}:${listen.first}, ${elsewhere}`,
      };
    if (discover.mode !== range.mode)
      return {
        kind: 'impossible',
        key: 'mode',
        reason: `port ${listen.first} is one of the ${range.mode} ports of haproxy.port_range, and the service has mode ${discover.mode}`,
        remedy: `Set mode: ${range.mode}, ${elsewhere}`,
      };
    const own = ownStructure(discover, range);
    if (own !== undefined)
      return {
        kind: 'impossible',
        key: own,
        reason: `port ${listen.first} is one of haproxy.port_range, whose services share what they are made of, and cannot have ${own} of their own`,
        remedy: `Remove ${own}, ${elsewhere}`,
      };
    return { kind: 'spare', mode: range.mode, port: listen.first };
  }
  return { kind: 'own' };
}

/** What a service asks for that only a frontend or backend of its own can have. */
function ownStructure(discover: DiscoveredService['config'], range: PortRange): OwnKey | undefined {
  if (discover.frontend.length > 0) return 'frontend';
  if (discover.backend.length > 0) return 'backend';
  if (discover.bindOptions !== '') return 'bind_options';
  if (discover.firstCheckMs !== undefined) return 'gate';
  return discover.balance !== undefined && discover.balance !== range.balance ? 'balance' : undefined;
}

/** Which service has which spare. */
export interface Spares {
  /** Service to backend. */
  readonly assigned: ReadonlyMap<string, string>;
  /** Backends that had a service, the longest free first. */
  readonly freed: readonly string[];
}

export const noSpares: Spares = { assigned: new Map(), freed: [] };

export interface Assignment {
  readonly spares: Spares;
  /** Services that had another backend before, or none: what runs in theirs is not known to be their own. */
  readonly newcomers: ReadonlySet<string>;
  /** Services that found no spare, with the reason. */
  readonly homeless: ReadonlyMap<string, string>;
  /** Whether one of them would have found one if none had to rest. */
  readonly isWaiting: boolean;
}

/**
 * How long a spare that has lost its service is given to nobody: a request to that service which waits in a queue, or
 * is tried again (`timeout queue 5s`, `timeout connect 1s`, `retries 3`), must not be answered by another one.
 */
export const SPARE_REST_MS = 5_000;

/**
 * Gives every service of a port range a backend that waits. Whoever has one keeps it; newcomers get one that was never
 * used, or else the one that has been free for the longest, because requests to the last service may still be under
 * way in it: never one that loses its service with this very change, nor one that has to rest. Pure: equal input gives
 * equal output, whatever the order of services.
 */
export function assignSpares(
  config: Pick<HaproxyConfig, 'portRange'>,
  services: readonly DiscoveredService[],
  previous: Spares,
  resting: ReadonlySet<string> = new Set(),
): Assignment {
  const assigned = new Map<string, string>();
  const newcomers = new Set<string>();
  const homeless = new Map<string, string>();
  const freed: string[] = [];
  const justFreed = new Set(previous.assigned.values());
  let isWaiting = false;
  for (const { mode, spares: count } of portRangesOf(config.portRange)) {
    const all = Array.from({ length: count }, (_, index) => spareName(mode, index + 1));
    const places = new Map(
      services.map((service) => [service.service, placeService(config, service)] as const),
    );
    const wanted = [...places.keys()].filter((name) => isIn(places.get(name), mode)).toSorted();
    const taken = new Set<string>();
    for (const name of wanted) {
      const before = previous.assigned.get(name);
      if (before === undefined || !all.includes(before) || taken.has(before)) continue;
      assigned.set(name, before);
      taken.add(before);
    }
    const formerlyUsed = new Set([...previous.freed, ...[...previous.assigned.values()].toSorted()]);
    const isFree = (spare: string) => all.includes(spare) && !taken.has(spare);
    const known = [...formerlyUsed].filter(isFree);
    const rests = (spare: string) => justFreed.has(spare) || resting.has(spare);
    const free = [
      ...all.filter((spare) => isFree(spare) && !formerlyUsed.has(spare)),
      ...known.filter((spare) => !rests(spare)),
    ];
    for (const name of wanted) {
      if (assigned.has(name)) continue;
      const spare = free.shift();
      if (spare === undefined) {
        isWaiting ||= known.some(rests);
        homeless.set(
          name,
          `all ${count} spare backends for ${mode} are in use, or were a moment ago: raise haproxy.port_range.spares`,
        );
        continue;
      }
      assigned.set(name, spare);
      newcomers.add(name);
    }
    const given = new Set(assigned.values());
    freed.push(...known.filter((spare) => !given.has(spare)));
  }
  return { spares: { assigned, freed }, newcomers, homeless, isWaiting };
}

function isIn(place: Place | undefined, mode: Mode): boolean {
  return place?.kind === 'spare' && place.mode === mode;
}

/** Where the servers of a service go, and the options that all of them carry there as their own. */
export interface Placement {
  readonly backend: string;
  /** In a spare, the `server_options` of the service: the backend does not know whom it will serve. */
  readonly options: string;
}

/** Undefined for a service that no backend serves. */
export function placementOf(
  { service, config: { serverOptions } }: DiscoveredService,
  place: Place,
  { spares }: Assignment,
): Placement | undefined {
  if (place.kind === 'own') return { backend: service, options: '' };
  const backend = spares.assigned.get(service);
  return place.kind === 'impossible' || backend === undefined
    ? undefined
    : { backend, options: serverOptions };
}

/** One array, so that whoever compares sees that nothing has changed. */
const NOBODY: readonly never[] = [];

/**
 * The membership with what spares there are. One that nobody has is empty, and so is one whose service is new there
 * and not known yet: whatever HAProxy still has in it belongs to somebody else.
 */
export function placeMembership(
  membership: Membership,
  ranges: readonly PortRange[],
  { spares, newcomers, homeless }: Assignment,
): Membership {
  if (ranges.length === 0) return membership;
  const placed = new Map(membership);
  for (const service of homeless.keys()) placed.delete(service);
  const kept = new Set(
    [...spares.assigned].filter(([service]) => !newcomers.has(service)).map(([, spare]) => spare),
  );
  for (const { mode, spares: count } of ranges) {
    for (let number = 1; number <= count; number += 1) {
      const spare = spareName(mode, number);
      if (!placed.has(spare) && !kept.has(spare)) placed.set(spare, NOBODY);
    }
  }
  return placed;
}

const NOTE =
  /^(tandem-spare-(?:http|tcp)-[1-9]\d{0,3}) (?:serves ([A-Za-z0-9][A-Za-z0-9_.-]{0,127})|is free)$/;

/** What the map file of a range says of its spares, so that the next daemon goes on with the same ones. */
export function notesOf(mode: Mode, { assigned, freed }: Spares): string[] {
  const isOfMode = (spare: string) => SPARE.exec(spare)?.[1] === mode;
  return [
    ...[...assigned]
      .filter(([, spare]) => isOfMode(spare))
      .map(([service, spare]) => `${spare} serves ${service}`)
      .toSorted(),
    ...freed.filter(isOfMode).map((spare) => `${spare} is free`),
  ];
}

/** The reverse of `notesOf`, from the notes of every range; what is not such a note is passed over. */
export function readNotes(notes: readonly string[]): Spares {
  const assigned = new Map<string, string>();
  const freed: string[] = [];
  for (const note of notes) {
    const [, spare, service] = NOTE.exec(note) ?? [];
    if (spare === undefined) continue;
    if (service === undefined) freed.push(spare);
    else assigned.set(service, spare);
  }
  return { assigned, freed };
}
