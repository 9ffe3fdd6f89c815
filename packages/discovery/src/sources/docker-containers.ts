import { isIP } from 'node:net';

import {
  type Instance,
  isObject,
  type JsonObject,
  Port,
  type Rejection,
  type Snapshot,
  uniqueInstances,
} from '@tandem/core';

import type { Filter } from '../config/selection.ts';

/** Which containers are instances of a service, and where callers reach them. */
export interface ContainerQuery {
  /** Without tag and digest; undefined: any. */
  readonly imageName: string | undefined;
  readonly labels: Filter;
  readonly containerPort: number;
  /** Whether a container that is checked has to be healthy. */
  readonly requireHealthy: boolean;
  readonly host: string;
  /** What the instances are called; undefined: each as its container. */
  readonly name: string | undefined;
}

/** A daemon that claims more than this is not believed. */
const MAX_CONTAINERS = 10_000;
const MAX_LABELS = 100;
const MAX_LABEL_LENGTH = 1_024;
const MAX_REJECTIONS = 100;
const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/;

/**
 * The instances in an answer to `GET /containers/json`; undefined when that is no list of containers. Containers of
 * others, and those that do not run or are not well, are passed over; one that should be an instance and cannot be one
 * is rejected.
 */
export function readContainers(answer: unknown, query: ContainerQuery): Snapshot | undefined {
  if (!Array.isArray(answer) || answer.length > MAX_CONTAINERS) return undefined;
  const instances: Instance[] = [];
  const rejected: Rejection[] = [];
  for (const [index, entry] of (answer as unknown[]).entries()) {
    if (!isObject(entry)) {
      rejected.push({ place: `container ${index}`, reason: 'is not an object' });
      continue;
    }
    if (!isWanted(entry, query) || !isUp(entry, query.requireHealthy)) continue;
    const port = findPort(entry['Ports'], query);
    const name = nameOf(entry);
    if (port === undefined)
      rejected.push({
        place: name === '' ? `container ${index}` : name,
        reason: `publishes no port for ${query.containerPort}/tcp that callers could reach`,
      });
    else instances.push(toInstance(entry, { name: query.name ?? name, host: query.host, port }));
  }
  return { instances: uniqueInstances(instances), rejected: rejected.slice(0, MAX_REJECTIONS) };
}

/** Whether an event tells of a container that may be an instance; also when it does not say what it tells of. */
export function mayConcern(
  attributes: unknown,
  { imageName, labels }: Pick<ContainerQuery, 'imageName' | 'labels'>,
): boolean {
  if (!isObject(attributes)) return true;
  const { image } = attributes;
  if (typeof image === 'string' && imageName !== undefined && bareImage(image) !== imageName) return false;
  // Not every kind of daemon tells the labels with every event.
  return Object.entries(labels).every(([key, values]) => {
    const value = Object.hasOwn(attributes, key) ? attributes[key] : undefined;
    return typeof value !== 'string' || values.includes(value);
  });
}

/**
 * The name of an image without tag and digest, and without what Docker leaves out of it and Podman does not:
 * `docker.io/library/nginx:1.25` is `nginx`.
 */
export function bareImage(image: string): string {
  return image
    .replace(/@.*$/s, '')
    .replace(/:[^/:]*$/, '')
    .replace(/^(index\.)?docker\.io\//, '')
    .replace(/^library\//, '');
}

/**
 * Once a tag names another image, Docker shows the id of the image in its place: a container that is still running
 * would be no instance any more because somebody has pulled a newer image. These are the containers whose image has to
 * be asked for.
 */
export function findNameless(answer: unknown): string[] {
  if (!Array.isArray(answer) || answer.length > MAX_CONTAINERS) return [];
  return (answer as unknown[]).flatMap((entry) => {
    if (!isObject(entry)) return [];
    const { Id: id, Image: image } = entry;
    const isNameless = typeof image === 'string' && /^(?:sha256:)?[0-9a-f]{12,64}$/.test(image);
    return isNameless && typeof id === 'string' && /^[0-9a-f]{64}$/.test(id) ? [id] : [];
  });
}

/** The same answer with the images that containers, by their ids, were made of. */
export function withImages(answer: unknown, images: ReadonlyMap<string, string>): unknown {
  if (images.size === 0 || !Array.isArray(answer)) return answer;
  return (answer as unknown[]).map((entry) => {
    const image = isObject(entry) ? images.get(String(entry['Id'])) : undefined;
    return image === undefined ? entry : { ...(entry as JsonObject), Image: image };
  });
}

/** The image that a container was made of, in an answer to `GET /containers/ID/json`. */
export function readImage(answer: unknown): string | undefined {
  const config = isObject(answer) ? answer['Config'] : undefined;
  const image = isObject(config) ? config['Image'] : undefined;
  return typeof image === 'string' ? image : undefined;
}

function isWanted(container: JsonObject, { imageName, labels }: ContainerQuery): boolean {
  const { Image: image, Labels: own } = container;
  if (imageName !== undefined && (typeof image !== 'string' || bareImage(image) !== imageName)) return false;
  return hasLabels(isObject(own) ? own : {}, labels);
}

function hasLabels(own: JsonObject, wanted: Filter): boolean {
  return Object.entries(wanted).every(([key, values]) => {
    const value = Object.hasOwn(own, key) ? own[key] : undefined;
    return typeof value === 'string' && values.includes(value);
  });
}

/** Daemons before 1.23 of the API tell the state only in words, those before 1.52 the health. */
function isUp(
  { State: state, Status: status, Health: health }: JsonObject,
  requireHealthy: boolean,
): boolean {
  const words = typeof status === 'string' ? status : '';
  const isRunning =
    typeof state === 'string'
      ? state === 'running'
      : words === '' || (words.startsWith('Up') && !words.endsWith('(Paused)'));
  if (!isRunning || !requireHealthy) return isRunning;
  const known = isObject(health) ? health['Status'] : undefined;
  if (typeof known === 'string' && known !== '') return known === 'healthy' || known === 'none';
  return !/\((?:unhealthy|health: starting|starting)\)/.test(words);
}

interface Binding {
  /** Empty: any. */
  readonly address: string;
  readonly port: number;
}

/**
 * Where callers reach the port. A port may be published several times: for IPv4 and for IPv6, which may even differ, on
 * single addresses, or on several ports of the host. One is taken, always the same.
 */
function findPort(
  ports: unknown,
  { containerPort, host }: Pick<ContainerQuery, 'containerPort' | 'host'>,
): number | undefined {
  const bindings =
    typeof ports === 'string' ? parseOldPorts(ports, containerPort) : readPorts(ports, containerPort);
  const [best] = bindings
    .map(({ address, port }) => ({ rank: rankOf(address, host), port }))
    .filter(({ rank }) => rank < UNREACHABLE)
    .toSorted((a, b) => a.rank - b.rank || a.port - b.port);
  return best?.port;
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

function toInstance(container: JsonObject, where: Pick<Instance, 'name' | 'host' | 'port'>): Instance {
  const own = container['Labels'];
  const labels = (isObject(own) ? Object.entries(own) : [])
    .filter((label): label is [string, string] => {
      const [key, value] = label;
      return typeof value === 'string' && key.length <= MAX_LABEL_LENGTH && value.length <= MAX_LABEL_LENGTH;
    })
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .slice(0, MAX_LABELS);
  return { ...where, ...(labels.length === 0 ? {} : { labels: Object.fromEntries(labels) }) };
}

/** What people call the container; the beginning of its id if that could not be the name of an instance. */
function nameOf({ Names: names, Id: id }: JsonObject): string {
  const given = (Array.isArray(names) ? (names as unknown[]) : [])
    .filter((name): name is string => typeof name === 'string')
    .map((name) => name.replace(/^\//, ''))
    // A link gives a container further names, which begin with that of another one.
    .find((name) => NAME.test(name));
  if (given !== undefined) return given;
  return typeof id === 'string' && /^[0-9a-f]{12,64}$/.test(id) ? id.slice(0, 12) : '';
}
