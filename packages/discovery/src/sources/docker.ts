import {
  createDockerDaemon,
  DockerAddress,
  duration,
  type HttpAnswer,
  type Log,
  parseJson,
  Port,
  type Remote,
  resolveTlsFiles,
  TlsSection,
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
import { remoteSource } from './remote.ts';

const DockerServer = z
  .strictObject({
    api: DockerAddress.prefault('unix:///var/run/docker.sock').describe('where the daemon is asked'),
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

/** The containers of all its daemons. A daemon that is away keeps those that it last had. */
export function dockerSource(config: DockerConfig, deps: { path: string; log: Log }): Source {
  const log = deps.log.child({ path: deps.path });
  const remotes = config.servers.map((server) => dockerDaemon(config, server));
  return remoteSource(remotes, { log, pace: { resyncMs: config.resyncMs } });
}

function dockerDaemon(config: DockerConfig, { api, host, name, tls }: DockerServerConfig): Remote {
  const query: ContainerQuery = { ...config, host, name };
  const images = new Map<string, string>();
  const daemon = createDockerDaemon(api, tls);

  /**
   * Asks one after the other: there are few, and what a container was made of never changes. One that the daemon does
   * not want to tell of stays unknown, and costs itself only.
   */
  async function learnImages(ids: readonly string[], signal: AbortSignal): Promise<HttpAnswer | undefined> {
    for (const id of images.keys()) if (!ids.includes(id)) images.delete(id);
    for (const id of ids) {
      if (images.has(id)) continue;
      const answer = await daemon.get(`/containers/${id}/json`, signal);
      if (!answer.ok) return answer;
      const image = answer.status === 200 ? readImage(parseJson(answer.body.toString('utf8'))) : undefined;
      if (image !== undefined) images.set(id, image);
    }
    return undefined;
  }

  return {
    name: api.text,
    async list(signal) {
      const answer = await daemon.get('/containers/json', signal);
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
    listen: (onChange, signal) =>
      daemon.listen((event) => {
        // What cannot be read may have been a change.
        if (event === undefined || mayConcern(event.attributes, query)) onChange();
      }, signal),
  };
}
