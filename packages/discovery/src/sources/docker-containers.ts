import {
  containerId,
  containerName,
  containersIn,
  findPublished,
  healthIn,
  type Instance,
  isObject,
  isRunning,
  type JsonObject,
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

const MAX_LABELS = 100;
const MAX_LABEL_LENGTH = 1_024;
const MAX_REJECTIONS = 100;

/**
 * The instances in an answer to `GET /containers/json`; undefined when that is no list of containers. Containers of
 * others, and those that do not run or are not well, are passed over; one that should be an instance and cannot be one
 * is rejected.
 */
export function readContainers(answer: unknown, query: ContainerQuery): Snapshot | undefined {
  const containers = containersIn(answer);
  if (containers === undefined) return undefined;
  const instances: Instance[] = [];
  const rejected: Rejection[] = [];
  for (const [index, entry] of containers.entries()) {
    if (!isObject(entry)) {
      rejected.push({ place: `container ${index}`, reason: 'is not an object' });
      continue;
    }
    if (!isWanted(entry, query) || !isUp(entry, query.requireHealthy)) continue;
    const port = findPublished(entry['Ports'], query)?.port;
    const name = containerName(entry) ?? '';
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
  return (containersIn(answer) ?? []).flatMap((entry) => {
    if (!isObject(entry)) return [];
    const { Image: image } = entry;
    const isNameless = typeof image === 'string' && /^(?:sha256:)?[0-9a-f]{12,64}$/.test(image);
    const id = containerId(entry);
    return isNameless && id !== undefined ? [id] : [];
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

function isUp(container: JsonObject, requireHealthy: boolean): boolean {
  if (!isRunning(container) || !requireHealthy) return isRunning(container);
  const health = healthIn(container);
  return health !== 'starting' && health !== 'unhealthy';
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
