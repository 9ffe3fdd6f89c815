// The part of Marathon's API that discovery reads, with answers of the shape that version 1.x gives.
import type { IncomingMessage, ServerResponse } from 'node:http';

import { answerJson, type BackendPlace, type HttpBackend, startHttpBackend } from './http-backend.ts';

export type Task = Readonly<Record<string, unknown>>;

export interface MarathonApi extends HttpBackend {
  /** The app has these tasks from now on, and whoever listens is told. Undefined: there is no such app. */
  readonly serve: (tasks: readonly unknown[] | undefined) => void;
  readonly serveSilently: (tasks: readonly unknown[] | undefined) => void;
  /** An event to everyone who listens. */
  readonly emit: (type: string, event?: Readonly<Record<string, unknown>>) => void;
  readonly emitRaw: (bytes: string) => void;
  /** Answers every request with this instead, unless it says false; undefined: as usual. */
  readonly answerWith: (
    answer: ((request: IncomingMessage, response: ServerResponse) => boolean) | undefined,
  ) => void;
  readonly listeners: () => number;
  /** How often it was asked for the tasks. */
  readonly lists: () => number;
}

const APP = '/shop/web';

export async function startMarathonApi(place: BackendPlace = {}): Promise<MarathonApi> {
  const listeners = new Set<ServerResponse>();
  let tasks: readonly unknown[] | undefined = [];
  let answer: ((request: IncomingMessage, response: ServerResponse) => boolean) | undefined;

  const backend = await startHttpBackend((request, response) => {
    const { pathname } = new URL(request.url ?? '/', 'http://marathon');
    if (answer?.(request, response) === true) return;
    if (pathname === `/v2/apps${APP}/tasks`) {
      if (tasks === undefined) answerJson(response, { message: `App '${APP}' does not exist` }, 404);
      else answerJson(response, { tasks });
    } else if (pathname === '/v2/events') {
      if (request.headers.accept !== 'text/event-stream') {
        answerJson(response, {}, 406);
        return;
      }
      listeners.add(response);
      response.once('close', () => listeners.delete(response));
      response.writeHead(200, { 'content-type': 'text/event-stream;charset=UTF-8' });
      const attached = { remoteAddress: '127.0.0.1', eventType: 'event_stream_attached' };
      response.write(`event: event_stream_attached\r\ndata: ${JSON.stringify(attached)}\r\n\r\n`);
    } else answerJson(response, { message: 'not found' }, 404);
  }, place);

  const api: MarathonApi = {
    ...backend,
    serve(next) {
      tasks = next;
      api.emit('status_update_event', { appId: APP, taskStatus: 'TASK_RUNNING' });
    },
    serveSilently(next) {
      tasks = next;
    },
    emit(type, event = {}) {
      const data = JSON.stringify({ ...event, eventType: type, timestamp: '2026-01-01T00:00:00.000Z' });
      api.emitRaw(`event: ${type}\r\ndata: ${data}\r\n\r\n`);
    },
    emitRaw(bytes) {
      for (const response of listeners) response.write(bytes);
    },
    answerWith(next) {
      answer = next;
    },
    listeners: () => listeners.size,
    lists: () => backend.requests.filter(({ line }) => line.endsWith('/tasks')).length,
  };
  return api;
}

/** A task that has started, on a host of its own. */
export function taskOf(number: number, changes: Task = {}): Task {
  return {
    appId: APP,
    id: `shop_web.instance-0000000${number}._app.1`,
    host: `10.0.0.${number}`,
    ports: [31_000 + number, 32_000 + number],
    servicePorts: [10_000, 10_001],
    ipAddresses: [{ ipAddress: `10.0.0.${number}`, protocol: 'IPv4' }],
    slaveId: '3c6c-S0',
    stagedAt: '2026-01-01T00:00:00.000Z',
    startedAt: '2026-01-01T00:00:01.000Z',
    state: 'TASK_RUNNING',
    version: '2026-01-01T00:00:00.000Z',
    localVolumes: [],
    healthCheckResults: [
      {
        alive: true,
        consecutiveFailures: 0,
        firstSuccess: '2026-01-01T00:00:02.000Z',
        lastFailure: null,
        lastSuccess: '2026-01-01T00:00:09.000Z',
        lastFailureCause: null,
        instanceId: `shop_web.instance-0000000${number}`,
      },
    ],
    ...changes,
  };
}
