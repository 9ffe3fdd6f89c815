import {
  duration,
  fetchBody,
  followLines,
  type HttpAnswer,
  type HttpRequest,
  isObject,
  type Log,
  parseJson,
  Port,
} from '@tandem/core';
import * as z from 'zod';

import { FilterSection } from '../config/selection.ts';
import type { Source } from '../source.ts';
import {
  bareImage,
  type ContainerQuery,
  findNameless,
  mayConcern,
  readContainers,
  readImage,
  withImages,
} from './docker-containers.ts';
import { type Remote, remoteSource } from './remote.ts';
import { readTls, resolveTlsFiles, type TlsFiles, TlsSection } from './remote-files.ts';

/** Where the API of a daemon is. */
export interface DockerApi {
  readonly text: string;
  readonly origin: string;
  readonly socketPath: string | undefined;
  /** Where callers of its containers go if nothing else is said: to the same host. */
  readonly host: string;
}

const ApiAddress = z.string().transform((text, context): DockerApi => {
  const socketPath = /^unix:\/\/(\/\P{Cc}{1,106})$/u.exec(text)?.[1];
  if (socketPath !== undefined) return { text, origin: 'http://docker', socketPath, host: '127.0.0.1' };
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url !== undefined && /^https?:$/.test(url.protocol) && isBare(url))
    return {
      text,
      origin: url.origin,
      socketPath: undefined,
      host: url.hostname.replace(/^\[|\]$/g, ''),
    };
  context.addIssue({
    code: 'custom',
    message: 'must be unix:///PATH, http://HOST:PORT or https://HOST:PORT, and nothing more',
  });
  return z.NEVER;
});

function isBare({ username, password, pathname, search, hash }: URL): boolean {
  return [username, password, search, hash].every((part) => part === '') && pathname === '/';
}

const DockerServer = z
  .strictObject({
    api: ApiAddress.prefault('unix:///var/run/docker.sock').describe('where the daemon is asked'),
    host: z
      .string()
      .regex(/^[A-Za-z0-9_.:-]{1,253}$/, 'must be an address or the name of a host')
      .optional()
      .describe('where callers reach its containers; default: the host of api, or 127.0.0.1 for a socket'),
    name: z
      .string()
      .regex(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/, 'must hold only letters, digits, "_", "." and "-"')
      .optional()
      .describe('what its instances are called; default: each as its container'),
    tls: TlsSection.optional(),
  })
  .transform(({ api, host, name, tls }) => ({ api, host: host ?? api.host, name, tls }));

/** `docker`: containers that publish a port, as Docker Engine's API tells of them (Podman speaks it, too). */
export const DockerSection = z
  .strictObject({
    servers: z.array(DockerServer).min(1).prefault([{}]).describe('the daemons; default: that of this host'),
    image_name: z
      .string()
      .regex(/^[A-Za-z0-9][^\s@\p{Cc}]{0,254}$/u, 'must be the name of an image, such as team/web')
      .refine((name) => !/:[^/]*$/.test(name), 'must have no tag: containers of every tag are taken')
      .transform(bareImage)
      .optional(),
    labels: FilterSection.default({}).describe('only containers with these labels'),
    container_port: Port.describe('the port inside of the container, tcp; callers go where it is published'),
    require_healthy: z
      .boolean()
      .default(true)
      .describe('with a health check, a container joins only when it is healthy'),
    resync: duration({ minMs: 1_000, maxMs: 3_600_000 })
      .prefault('30s')
      .describe('how often the daemons are asked although no event came'),
  })
  .refine(
    ({ image_name: image, labels }) => image !== undefined || Object.keys(labels).length > 0,
    'needs image_name or labels: not every container is an instance',
  )
  .transform((section) => ({
    servers: section.servers,
    imageName: section.image_name,
    labels: section.labels,
    containerPort: section.container_port,
    requireHealthy: section.require_healthy,
    resyncMs: section.resync,
  }));

export type DockerConfig = z.output<typeof DockerSection>;
type DockerServerConfig = DockerConfig['servers'][number];

export function resolveDockerFiles(config: DockerConfig, absolute: (file: string) => string): DockerConfig {
  const servers = config.servers.map((server) => ({ ...server, tls: resolveTlsFiles(server.tls, absolute) }));
  return { ...config, servers };
}

/** What changes the list. Checks of health run commands, each of which makes three other events. */
const EVENTS = ['start', 'die', 'stop', 'kill', 'pause', 'unpause', 'health_status', 'destroy', 'rename'];
const EVENT_FILTER = encodeURIComponent(JSON.stringify({ type: ['container'], event: EVENTS }));

/** The containers of all its daemons. A daemon that is away keeps those that it last had. */
export function dockerSource(config: DockerConfig, deps: { path: string; log: Log }): Source {
  const log = deps.log.child({ path: deps.path });
  const remotes = config.servers.map((server) => dockerDaemon(config, server));
  return remoteSource(remotes, { log, pace: { resyncMs: config.resyncMs } });
}

function dockerDaemon(config: DockerConfig, { api, host, name, tls }: DockerServerConfig): Remote {
  const query: ContainerQuery = { ...config, host, name };
  const images = new Map<string, string>();

  async function get(path: string, signal: AbortSignal): Promise<HttpAnswer> {
    const request = await requestOf(api, tls, path, signal);
    return request.ok ? fetchBody(request.value, signal) : request;
  }
  /**
   * Asks one after the other: there are few, and what a container was made of never changes. One that the daemon does
   * not want to tell of stays unknown, and costs itself only.
   */
  async function learnImages(ids: readonly string[], signal: AbortSignal): Promise<HttpAnswer | undefined> {
    for (const id of images.keys()) if (!ids.includes(id)) images.delete(id);
    for (const id of ids) {
      if (images.has(id)) continue;
      const answer = await get(`/containers/${id}/json`, signal);
      if (!answer.ok) return answer;
      const image = answer.status === 200 ? readImage(parseJson(answer.body.toString('utf8'))) : undefined;
      if (image !== undefined) images.set(id, image);
    }
    return undefined;
  }

  return {
    name: api.text,
    async list(signal) {
      const answer = await get('/containers/json', signal);
      if (!answer.ok) return answer;
      if (answer.status !== 200) return { ok: false, reason: `status ${answer.status}` };
      const json = parseJson(answer.body.toString('utf8'));
      const nameless = query.imageName === undefined ? [] : findNameless(json);
      const failed = await learnImages(nameless, signal);
      if (failed?.ok === false) return failed;
      const part = readContainers(withImages(json, images), query);
      return part === undefined
        ? { ok: false, reason: 'the answer is not a list of containers' }
        : { ok: true, part };
    },
    async listen(onChange, signal) {
      const request = await requestOf(api, tls, `/events?filters=${EVENT_FILTER}`, signal);
      if (!request.ok) return request.reason;
      const onLine = (line: string) => {
        if (isChange(line, query)) onChange();
      };
      return followLines(request.value, { onOpen: onChange, onLine, signal });
    },
  };
}

/** Without a version in the path: new daemons refuse old versions, and what is read here is in all of them. */
async function requestOf(
  { origin, socketPath }: DockerApi,
  files: TlsFiles | undefined,
  path: string,
  signal: AbortSignal,
): Promise<{ ok: true; value: HttpRequest } | { ok: false; reason: string }> {
  const tls = await readTls(files, signal);
  if (!tls.ok) return tls;
  const request = {
    url: new URL(path, origin),
    headers: { accept: 'application/json' },
    ...(socketPath === undefined ? {} : { socketPath }),
    ...(tls.value === undefined ? {} : { tls: tls.value }),
  };
  return { ok: true, value: request };
}

/** What cannot be read may have been a change. */
function isChange(line: string, query: ContainerQuery): boolean {
  if (line.trim() === '') return false;
  const event = parseJson(line);
  if (!isObject(event)) return true;
  const { Type: type = 'container', Action: action, status, Actor: actor } = event;
  // Before 1.22 of the API an event had only a status; `health_status: healthy` says its result at once.
  const what = action ?? status;
  if (type !== 'container' || typeof what !== 'string') return false;
  if (!EVENTS.includes(what.split(':')[0] ?? '')) return false;
  return mayConcern(isObject(actor) ? actor['Attributes'] : undefined, query);
}
