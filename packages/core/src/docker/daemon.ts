import * as z from 'zod';

import { isObject, parseJson } from '../json.ts';
import {
  fetchBody,
  followLines,
  type HttpAnswer,
  type HttpLimits,
  type HttpRequest,
} from '../net/http-client.ts';
import { readTls, type TlsFiles } from '../net/request-files.ts';

/** Where the API of a daemon is. */
export interface DockerApi {
  readonly text: string;
  readonly origin: string;
  readonly socketPath: string | undefined;
  /** Where callers of its containers go if nothing else is said: to the same host. */
  readonly host: string;
}

/** The address of Docker Engine's API, as a person writes it. Podman speaks it, too. */
export const DockerAddress = z.string().transform((text, context): DockerApi => {
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

/** What has happened to a container. */
export interface DockerEvent {
  /** Such as `die`, or `health_status` whatever its result. */
  readonly action: string;
  readonly id: string | undefined;
  /** Name, image and labels of the container; not every kind of daemon tells them with every event. */
  readonly attributes: unknown;
}

/** Asks one daemon. Nothing rejects: whatever it does, or does not, is an answer or a reason. */
export interface DockerDaemon {
  get(path: string, signal: AbortSignal, limits?: Partial<HttpLimits>): Promise<HttpAnswer>;
  /**
   * Calls back as soon as no event can be missed, and with every event that may change which containers there are and
   * how they are; with undefined for one that cannot be read. Resolves with the reason why it has come to an end.
   */
  listen(onEvent: (event: DockerEvent | undefined) => void, signal: AbortSignal): Promise<string>;
}

/** What changes the list. Checks of health run commands, each of which makes three other events. */
const EVENTS = ['start', 'die', 'stop', 'kill', 'pause', 'unpause', 'health_status', 'destroy', 'rename'];
const EVENTS_PATH = `/events?filters=${encodeURIComponent(JSON.stringify({ type: ['container'], event: EVENTS }))}`;

export function createDockerDaemon(api: DockerApi, tls: TlsFiles | undefined): DockerDaemon {
  return {
    async get(path, signal, limits) {
      const request = await requestOf(api, tls, path, signal);
      return request.ok ? fetchBody(request.value, signal, limits) : request;
    },
    async listen(onEvent, signal) {
      const request = await requestOf(api, tls, EVENTS_PATH, signal);
      if (!request.ok) return request.reason;
      const onLine = (line: string) => {
        const event = readEvent(line);
        if (event !== 'nothing') onEvent(event === 'unreadable' ? undefined : event);
      };
      return followLines(request.value, { onOpen: () => onEvent(undefined), onLine, signal });
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

function readEvent(line: string): DockerEvent | 'unreadable' | 'nothing' {
  if (line.trim() === '') return 'nothing';
  const event = parseJson(line);
  if (!isObject(event)) return 'unreadable';
  const { Type: type = 'container', Action: action, status, Actor: actor, id: oldId } = event;
  // Before 1.22 of the API an event had only a status; `health_status: healthy` says its result at once.
  const what = action ?? status;
  if (type !== 'container' || typeof what !== 'string') return 'nothing';
  const [name = ''] = what.split(':');
  if (!EVENTS.includes(name)) return 'nothing';
  const { ID: id = oldId, Attributes: attributes } = isObject(actor) ? actor : {};
  return { action: name, id: typeof id === 'string' ? id : undefined, attributes };
}
