import { isIP } from 'node:net';

import { Port } from '../config/sections.ts';
import { isObject, type JsonObject } from '../json.ts';

/** A daemon that claims more than this is not believed. */
const MAX_CONTAINERS = 10_000;
const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/;

/** The entries of an answer to `GET /containers/json`; undefined when that is no list of containers. */
export function containersIn(answer: unknown): readonly unknown[] | undefined {
  return Array.isArray(answer) && answer.length <= MAX_CONTAINERS ? (answer as unknown[]) : undefined;
}

export function containerId({ Id: id }: JsonObject): string | undefined {
  return typeof id === 'string' && /^[0-9a-f]{64}$/.test(id) ? id : undefined;
}

/**
 * What people call the container; the beginning of its id if that could not be the name of an instance, and undefined if
 * it has no such id either.
 */
export function containerName({ Names: names, Id: id }: JsonObject): string | undefined {
  const given = (Array.isArray(names) ? (names as unknown[]) : [])
    .filter((name): name is string => typeof name === 'string')
    .map((name) => name.replace(/^\//, ''))
    // A link gives a container further names, which begin with that of another one.
    .find((name) => NAME.test(name));
  if (given !== undefined) return given;
  return typeof id === 'string' && /^[0-9a-f]{12,64}$/.test(id) ? id.slice(0, 12) : undefined;
}

/** Whether an entry of a list runs, and is not paused. Daemons before 1.23 of the API tell it only in words. */
export function isRunning({ State: state, Status: status }: JsonObject): boolean {
  if (typeof state === 'string') return state === 'running';
  const words = typeof status === 'string' ? status : '';
  return words === '' || (words.startsWith('Up') && !words.endsWith('(Paused)'));
}

/** What the health check of a container says; `none` without one. */
export type ContainerHealth = 'healthy' | 'unhealthy' | 'starting' | 'none';

/** The health in an entry of a list. Undefined when that does not say; daemons before 1.52 tell it only in words. */
export function healthIn({ Status: status, Health: health }: JsonObject): ContainerHealth | undefined {
  const known = readHealth(health);
  if (known !== undefined) return known;
  const [, word] =
    /\((?:health: )?(healthy|unhealthy|starting)\)/.exec(typeof status === 'string' ? status : '') ?? [];
  return word as ContainerHealth | undefined;
}

/** The health as an object, as newer lists and every `GET /containers/ID/json` have it. */
export function readHealth(health: unknown): ContainerHealth | undefined {
  const status = isObject(health) ? health['Status'] : undefined;
  if (typeof status !== 'string' || status === '') return undefined;
  return status === 'healthy' || status === 'unhealthy' || status === 'none' ? status : 'starting';
}

/** Where a port of a container is reached on its host. */
export interface Binding {
  /** Empty: any. */
  readonly address: string;
  readonly port: number;
}

/**
 * Where callers reach the port. A port may be published several times: for IPv4 and for IPv6, which may even differ, on
 * single addresses, or on several ports of the host. One is taken, always the same. `host` is where callers go.
 */
export function findPublished(
  ports: unknown,
  { containerPort, host }: { readonly containerPort: number; readonly host: string },
): Binding | undefined {
  const bindings =
    typeof ports === 'string' ? parseOldPorts(ports, containerPort) : readPorts(ports, containerPort);
  const [best] = bindings
    .map((binding) => ({ rank: rankOf(binding.address, host), binding }))
    .filter(({ rank }) => rank < UNREACHABLE)
    .toSorted((a, b) => a.rank - b.rank || a.binding.port - b.binding.port);
  return best?.binding;
}

function readPorts(ports: unknown, containerPort: number): Binding[] {
  if (!Array.isArray(ports)) return [];
  return (ports as unknown[]).flatMap((entry): Binding[] => {
    if (!isObject(entry) || entry['PrivatePort'] !== containerPort) return [];
    const { Type: type = 'tcp', IP: address = '', PublicPort: port } = entry;
    const parsed = Port.safeParse(port);
    if (type !== 'tcp' || typeof address !== 'string' || !parsed.success) return [];
    return [{ address, port: parsed.data }];
  });
}

/** `0.0.0.0:49153->6379/tcp, 22/tcp`, as the first daemons had it. */
function parseOldPorts(text: string, containerPort: number): Binding[] {
  return text.split(',').flatMap((part): Binding[] => {
    const match = /^(?:([0-9a-fA-F.:[\]]{2,48}):)?(\d{1,5})->(\d{1,5})\/tcp$/.exec(part.trim());
    const parsed = Port.safeParse(Number(match?.[2]));
    if (match === null || !parsed.success || Number(match[3]) !== containerPort) return [];
    return [{ address: (match[1] ?? '').replace(/^\[|\]$/g, ''), port: parsed.data }];
  });
}

const UNREACHABLE = 4;

/** Smaller is better. An address of its own may be that of callers behind some translation; loopback cannot. */
function rankOf(address: string, host: string): number {
  if (address === host) return 0;
  const isSixth = isIP(host) === 6;
  if (address === (isSixth ? '::' : '0.0.0.0')) return 1;
  if (address === '' || address === '::' || address === '0.0.0.0') return 2;
  return isLoopback(address) && !isLoopback(host) ? UNREACHABLE : 3;
}

function isLoopback(host: string): boolean {
  return host === '::1' || host === 'localhost' || (isIP(host) === 4 && host.startsWith('127.'));
}
