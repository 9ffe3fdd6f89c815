// The part of Docker Engine's API that both daemons read, with answers of the shape that version 1.41 gives.
import type { ServerResponse } from 'node:http';

import { answerJson, type BackendPlace, type HttpBackend, startHttpBackend } from './http-backend.ts';

export type Container = Readonly<Record<string, unknown>>;

export interface DockerApi extends HttpBackend {
  /** Has these containers from now on, and says so to whoever listens. */
  readonly serve: (containers: readonly unknown[]) => void;
  /** Has them without saying so. */
  readonly serveSilently: (containers: readonly unknown[]) => void;
  /** A line to everyone who listens, if it passes their filters. */
  readonly emit: (event: Readonly<Record<string, unknown>>) => void;
  /** Whatever it is, as it is. */
  readonly emitRaw: (bytes: string | Buffer) => void;
  /** Answers every list with this instead; undefined: as usual. */
  readonly answerWith: (answer: ((response: ServerResponse) => void) | undefined) => void;
  /** Never answers a question with this path. */
  readonly hangOver: (path: string) => void;
  /** Listeners that are connected. */
  readonly listeners: () => number;
  /** How often it was asked for its containers. */
  readonly lists: () => number;
  /** What a container was made of, for those that are shown with the id of their image. */
  readonly madeOf: Map<string, string>;
  /** What it answers for a container by itself, in place of just what that was made of. */
  readonly inspected: Map<string, unknown>;
}

export async function startDockerApi(place: BackendPlace = {}): Promise<DockerApi> {
  const listeners = new Map<ServerResponse, (event: Readonly<Record<string, unknown>>) => boolean>();
  const madeOf = new Map<string, string>();
  const inspections = new Map<string, unknown>();
  let containers: readonly unknown[] = [];
  const hanging = new Set<string>();
  let answer: ((response: ServerResponse) => void) | undefined;

  const backend = await startHttpBackend((request, response) => {
    const url = new URL(request.url ?? '/', 'http://docker');
    const inspected = /^\/containers\/([0-9a-f]{64})\/json$/.exec(url.pathname)?.[1];
    if (hanging.has(url.pathname)) return;
    if (url.pathname === '/containers/json') {
      if (answer === undefined) answerJson(response, containers);
      else answer(response);
    } else if (inspected !== undefined) {
      const image = madeOf.get(inspected);
      if (inspections.has(inspected)) answerJson(response, inspections.get(inspected));
      else if (image === undefined) answerJson(response, { message: `No such container: ${inspected}` }, 404);
      else answerJson(response, { Id: inspected, Config: { Image: image } });
    } else if (url.pathname === '/events') {
      listeners.set(response, filterOf(url));
      response.once('close', () => listeners.delete(response));
      response.writeHead(200, { 'content-type': 'application/json' });
      response.flushHeaders();
    } else answerJson(response, { message: 'page not found' }, 404);
  }, place);

  const api: DockerApi = {
    ...backend,
    serve(next) {
      containers = next;
      api.emit(eventOf('start'));
    },
    serveSilently(next) {
      containers = next;
    },
    emit(event) {
      for (const [response, passes] of listeners)
        if (passes(event)) response.write(`${JSON.stringify(event)}\n`);
    },
    emitRaw(bytes) {
      for (const response of listeners.keys()) response.write(bytes);
    },
    answerWith(next) {
      answer = next;
    },
    hangOver: (path) => void hanging.add(path),
    listeners: () => listeners.size,
    lists: () => backend.requests.filter(({ line }) => line === 'GET /containers/json').length,
    madeOf,
    inspected: inspections,
  };
  return api;
}

/** Docker compares an action by its beginning: `health_status` lets `health_status: healthy` pass. */
function filterOf(url: URL): (event: Readonly<Record<string, unknown>>) => boolean {
  const { type = [], event: wanted = [] } = JSON.parse(url.searchParams.get('filters') ?? '{}') as {
    type?: string[];
    event?: string[];
  };
  return ({ Type, Action }) =>
    (type.length === 0 || type.includes(String(Type))) &&
    (wanted.length === 0 || wanted.some((action) => String(Action).startsWith(action)));
}

export function eventOf(
  action: string,
  attributes: Readonly<Record<string, string>> = { image: 'team/web:1.2', name: 'web-1' },
  id = idOf(1),
): Record<string, unknown> {
  return {
    status: action,
    id,
    from: attributes['image'],
    Type: 'container',
    Action: action,
    Actor: { ID: id, Attributes: attributes },
    scope: 'local',
    time: 1_700_000_000,
    timeNano: 1_700_000_000_000_000_000,
  };
}

export function idOf(number: number): string {
  return number.toString(16).padStart(64, '0');
}

/** A container that publishes port 80 for IPv4 and IPv6, as most do. */
export function containerOf(number: number, changes: Container = {}): Container {
  const port = 32_000 + number;
  return {
    Id: idOf(number),
    Names: [`/web-${number}`],
    Image: 'team/web:1.2',
    ImageID: `sha256:${'ab'.repeat(32)}`,
    Command: '/bin/web',
    Created: 1_700_000_000,
    Ports: [
      { IP: '0.0.0.0', PrivatePort: 80, PublicPort: port, Type: 'tcp' },
      { IP: '::', PrivatePort: 80, PublicPort: port, Type: 'tcp' },
      { PrivatePort: 9000, Type: 'tcp' },
    ],
    Labels: { zone: 'a' },
    State: 'running',
    Status: 'Up 5 minutes',
    HostConfig: { NetworkMode: 'default' },
    NetworkSettings: { Networks: { bridge: { IPAddress: '172.17.0.2' } } },
    Mounts: [],
    ...changes,
  };
}
