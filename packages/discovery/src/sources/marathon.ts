import {
  duration,
  fetchBody,
  FileName,
  followLines,
  type HttpRequest,
  isObject,
  type Listed,
  type Log,
  parseJson,
  readBasicAuth,
  readTls,
  type Remote,
  resolveTlsFiles,
  TlsSection,
  warnIfOpen,
} from '@tandem/core';
import * as z from 'zod';

import type { Source } from '../source.ts';
import { readTasks } from './marathon-tasks.ts';
import { remoteSource } from './remote.ts';

const MasterUrl = z.string().transform((text, context): string => {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url !== undefined && /^https?:$/.test(url.protocol) && isPlain(url))
    return url.href.replace(/\/+$/, '');
  context.addIssue({
    code: 'custom',
    message:
      'must be http://HOST:PORT or https://HOST:PORT, with a path if it needs one, but no user or query',
  });
  return z.NEVER;
});

function isPlain({ username, password, search, hash }: URL): boolean {
  return [username, password, search, hash].every((part) => part === '');
}

const ApiPath = z
  .string()
  .regex(/^\/[A-Za-z0-9/._~%{}-]*$/, 'must begin with "/" and be the path of a url')
  .refine((text) => text.split(/%?\{app\}/).length === 2, 'must contain {app} exactly once');

/** `marathon`: the tasks of an app, as Marathon's API tells of them. */
export const MarathonSection = z
  .strictObject({
    url: z
      .union([MasterUrl.transform((url) => [url]), z.array(MasterUrl).min(1)])
      .describe('where Marathon is, or a list of its masters: the next is asked when one is away'),
    app: z
      .string()
      .max(512)
      .regex(
        /^\/?[a-z0-9][a-z0-9.-]*(\/[a-z0-9][a-z0-9.-]*)*$/,
        'must be the id of an app, such as /shop/web',
      )
      .transform((app) => app.replace(/^\//, '')),
    api_path: ApiPath.default('/v2/apps/{app}/tasks').describe('where the tasks of an app are listed'),
    port_index: z.number().int().min(0).max(1_000).default(0).describe('which of the ports of a task'),
    require_healthy: z
      .boolean()
      .default(true)
      .describe('with results of health checks, a task joins only when all are alive'),
    credentials_file: FileName.optional().describe('user:password for basic authentication; mode 0600'),
    tls: TlsSection.optional(),
    resync: duration({ minMs: 1_000, maxMs: 3_600_000 })
      .prefault('30s')
      .describe('how often Marathon is asked although no event came'),
  })
  .transform((section) => ({
    urls: section.url,
    app: section.app,
    // Synapse writes %{app}.
    tasksPath: section.api_path.replace(/%?\{app\}/, section.app),
    portIndex: section.port_index,
    requireHealthy: section.require_healthy,
    credentialsFile: section.credentials_file,
    tls: section.tls,
    resyncMs: section.resync,
  }));

export type MarathonConfig = z.output<typeof MarathonSection>;

export function resolveMarathonFiles(
  config: MarathonConfig,
  absolute: (file: string) => string,
): MarathonConfig {
  const { credentialsFile, tls } = config;
  return {
    ...config,
    credentialsFile: credentialsFile === undefined ? undefined : absolute(credentialsFile),
    tls: resolveTlsFiles(tls, absolute),
  };
}

/** After these the tasks of an app may be others. Before 1.3.7 the masters send every event, whatever is asked for. */
const EVENTS = [
  'status_update_event',
  'health_status_changed_event',
  'instance_changed_event',
  'instance_health_changed_event',
  'app_terminated_event',
  'deployment_success',
  'deployment_failed',
];
const EVENTS_PATH = `/v2/events?plan-format=light&${EVENTS.map((event) => `event_type=${event}`).join('&')}`;
const MAX_EVENT_LENGTH = 256 << 10;
const MAX_REDIRECTS = 3;

/** Every change reaches every host of the fleet: they must not all ask the one leader in the same moment. */
const PACE = { gapMs: 500, splayMs: 250 };

export function marathonSource(config: MarathonConfig, deps: { path: string; log: Log }): Source {
  const log = deps.log.child({ path: deps.path });
  const remote = marathonMaster(config, log);
  return remoteSource([remote], { log, pace: { ...PACE, resyncMs: config.resyncMs } });
}

function marathonMaster(config: MarathonConfig, log: Log): Remote {
  const { urls, credentialsFile } = config;
  let hasLooked = false;

  async function requestTo(
    url: string,
    accept: string,
    signal: AbortSignal,
  ): Promise<{ ok: true; value: HttpRequest } | { ok: false; reason: string }> {
    const tls = await readTls(config.tls, signal);
    if (!tls.ok) return tls;
    if (credentialsFile !== undefined && !hasLooked) {
      hasLooked = true;
      await warnIfOpen(credentialsFile, log, signal);
    }
    const authorization =
      credentialsFile === undefined ? undefined : await readBasicAuth(credentialsFile, signal);
    if (authorization?.ok === false) return authorization;
    const origins = urls.map((each) => new URL(each).origin);
    const value = {
      url: new URL(url),
      headers: { accept },
      maxRedirects: MAX_REDIRECTS,
      ...(authorization === undefined
        ? {}
        : { credentials: { authorization: authorization.value, origins } }),
      ...(tls.value === undefined ? {} : { tls: tls.value }),
    };
    return { ok: true, value };
  }
  async function listAt(url: string, signal: AbortSignal): Promise<Listed> {
    const request = await requestTo(url + config.tasksPath, 'application/json', signal);
    if (!request.ok) return request;
    const answer = await fetchBody(request.value, signal);
    return answer.ok ? readAnswer(answer, config) : answer;
  }
  async function listenAt(url: string, onChange: () => void, signal: AbortSignal): Promise<string> {
    const request = await requestTo(url + EVENTS_PATH, 'text/event-stream', signal);
    if (!request.ok) return request.reason;
    const onLine = createEventReader((event) => {
      if (isChange(event, config.app)) onChange();
    });
    return followLines(request.value, { onOpen: onChange, onLine, signal });
  }
  const list = inTurn(urls);
  const listen = inTurn(urls);

  return {
    name: urls.join(', '),
    async list(signal) {
      const listed = await listAt(list.url(), signal);
      if (!listed.ok) list.next();
      return listed;
    },
    async listen(onChange, signal) {
      const reason = await listenAt(listen.url(), onChange, signal);
      listen.next();
      return reason;
    },
  };
}

/** The same one as long as it is good. */
function inTurn(urls: readonly string[]): { url(): string; next(): void } {
  let index = 0;
  return {
    url: () => urls[index % urls.length] ?? '',
    next() {
      index += 1;
    },
  };
}

function readAnswer({ status, body }: { status: number; body: Buffer }, config: MarathonConfig): Listed {
  const json = parseJson(body.toString('utf8'));
  // A proxy, or a wrong path, answers 404 as well; only Marathon itself says that there is no such app.
  if (status === 404 && saysNoSuchApp(json)) return { ok: true, part: { instances: [], rejected: [] } };
  if (status !== 200) return { ok: false, reason: `status ${status}` };
  const part = readTasks(json, config);
  return part === undefined ? { ok: false, reason: 'the answer is not a list of tasks' } : { ok: true, part };
}

function saysNoSuchApp(json: unknown): boolean {
  const message = isObject(json) ? json['message'] : undefined;
  return typeof message === 'string' && /^App '.*' does not exist/.test(message);
}

interface ServerSentEvent {
  readonly type: string;
  readonly data: string;
}

/** Makes events of lines, as the WHATWG describes them, but for names of fields that nobody needs here. */
function createEventReader(onEvent: (event: ServerSentEvent) => void): (line: string) => void {
  let type = '';
  let data = '';
  return (line) => {
    if (line === '') {
      if (type !== '' || data !== '') onEvent({ type, data });
      type = '';
      data = '';
      return;
    }
    const [, field, value = ''] = /^([^:]*):? ?(.*)$/s.exec(line) ?? [];
    if (field === 'event') type = value;
    if (field === 'data' && data.length < MAX_EVENT_LENGTH) data += value;
  };
}

/** What cannot be read may have been a change. */
function isChange({ type, data }: ServerSentEvent, app: string): boolean {
  const json = parseJson(data);
  if (!isObject(json)) return type === '' || EVENTS.includes(type);
  const { eventType, appId, runSpecId } = json;
  const what = type === '' ? eventType : type;
  if (typeof what !== 'string' || !EVENTS.includes(what)) return false;
  const about = appId ?? runSpecId;
  // Deployments name no app, but a plan.
  return typeof about !== 'string' || about.replace(/^\//, '') === app;
}
