import { formatDuration } from '@tandem/core';
import type { ServiceStatus } from '@tandem/registrar';

import type { CheckState, RegisteredState, RegistrarState } from './control/registrar-answers.ts';
import { findNamed } from './find-named.ts';
import { printable } from './printable.ts';
import { formatTable } from './table.ts';

/** What the registrar sees, for a terminal: all services in a line each, and what somebody should look at. */
export function formatRegistrar(state: RegistrarState): string {
  const rows = state.services.map((service) => [
    service.service,
    `${service.host}:${service.port}`,
    service.health,
    announcedOf(service),
    weightOf(service),
    notesOf(service).join('; '),
  ]);
  const table =
    rows.length === 0
      ? 'no services\n'
      : formatTable(['SERVICE', 'ADDRESS', 'HEALTH', 'ANNOUNCED', 'WEIGHT', 'NOTES'], rows);
  return `registry ${state.registry}, ${summarize(state.services)}\n${complaintsOf(state)}${table}`;
}

/** The same of one service, at each of its places, with its checks. */
export function formatRegistered(state: RegistrarState, name: string): string {
  findNamed(state.services, name, 'the registrar knows');
  return state.services
    .filter(({ service }) => service === name)
    .map(formatPlace)
    .join('\n');
}

function formatPlace(service: RegisteredState): string {
  const { name, path, host, port, health, checks } = service;
  const standing = { yes: 'announced', 'not yet': 'not yet announced', no: 'not announced' };
  const facts = [`${name} ${host}:${port} at ${path}`, health, standing[announcedOf(service)]];
  const notes = [...notesOf({ ...service, checks: [] }), ...weightNotes(service)];
  const rows = checks.map((check) => [check.check, check.health, tookOf(check), wordOf(check) ?? '']);
  const table =
    rows.length === 0 ? 'no checks\n' : formatTable(['CHECK', 'HEALTH', 'LAST PROBE', 'SAYS'], rows);
  return `${printable(service.service)}: ${printable(facts.join(', '))}\n${notes
    .map((note) => `  ${printable(note)}\n`)
    .join('')}\n${table}`;
}

/** One line that says it all, such as `12 services: 10 announced, 1 down, 1 drained`. Each is counted once. */
export function summarize(services: readonly Standing[], mistakes = 0): string {
  const counts = new Map<string, number>();
  for (const service of services) {
    const kind = kindOf(service);
    counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  const parts = KINDS.flatMap((kind) => (counts.has(kind) ? [`${counts.get(kind)} ${kind}`] : []));
  const many = countServices(services.length);
  const sum = parts.length === 0 ? many : `${many}: ${parts.join(', ')}`;
  if (mistakes === 0) return sum;
  return `${sum}; ${mistakes === 1 ? '1 mistake' : `${mistakes} mistakes`} in service files`;
}

export function countServices(count: number): string {
  return count === 1 ? '1 service' : `${count} services`;
}

const KINDS = [
  'announced',
  'not confirmed',
  'down',
  'drained',
  'held down',
  'rate limited',
  'waiting',
  'undecided',
] as const;

/** What of a service decides how it is counted. */
interface Standing extends Pick<ServiceStatus, 'announced' | 'confirmed' | 'drained' | 'health' | 'role'> {
  readonly flapHold?: unknown;
  readonly rateLimitedForMs?: number | undefined;
}

function kindOf(service: Standing): (typeof KINDS)[number] {
  if (service.role === 'waiting') return 'waiting';
  if (service.drained.length > 0) return 'drained';
  if (service.announced) return service.confirmed ? 'announced' : 'not confirmed';
  if (service.health === 'down') return 'down';
  if (service.flapHold !== undefined) return 'held down';
  return service.rateLimitedForMs === undefined ? 'undecided' : 'rate limited';
}

/** What the registry was told is not what stands there until it says so. */
function announcedOf({ announced, confirmed }: RegisteredState): 'yes' | 'not yet' | 'no' {
  if (!announced) return 'no';
  return confirmed ? 'yes' : 'not yet';
}

function complaintsOf({ overdue, problems }: RegistrarState): string {
  const lines = [
    ...overdue.map((check) => `${check} makes no progress: a fault in the registrar`),
    ...problems.map(({ file, line, path, reason, remedy }) => {
      const place = [file, ...(line === undefined ? [] : [line])].join(':');
      const what = path === '' ? reason : `${path}: ${reason}`;
      return `${place}: ${what}${remedy === undefined ? '' : `. ${remedy}`}`;
    }),
  ];
  return lines.map((line) => `! ${printable(line)}\n`).join('');
}

/** Why a service is announced or not, as far as its health does not say it. */
function notesOf(service: RegisteredState): string[] {
  const { origin, announced, confirmed, role, waitsFor, drained, flapHold, rateLimitedForMs, checks } =
    service;
  const causes = {
    operator: 'by "tandem drain"',
    file: 'by a drain file',
    shutdown: 'for the end of the daemon',
  };
  return [
    origin === undefined ? undefined : `found in ${origin}`,
    confirmed ? undefined : `the registry has not confirmed its ${announced ? 'announcement' : 'withdrawal'}`,
    role === 'outgoing' ? 'leaves when its successor is announced' : undefined,
    role === 'waiting' ? `waits for ${waitsFor ?? 'its place'}` : undefined,
    drained.length === 0 ? undefined : `drained ${drained.map((cause) => causes[cause]).join(' and ')}`,
    flapHold === undefined
      ? undefined
      : `held down for flapping, for another ${roughly(flapHold.remainingMs)}`,
    rateLimitedForMs === undefined
      ? undefined
      : `its announcement waits for the rate limit since ${roughly(rateLimitedForMs)}`,
    ...checks.flatMap((check) => {
      const word = wordOf(check);
      return word === undefined ? [] : [`${check.check}: ${word}`];
    }),
  ].filter((note) => note !== undefined);
}

function weightOf({ weight: { announced, override, configured } }: RegisteredState): string {
  return String(announced ?? override ?? configured ?? '');
}

function weightNotes({ weight: { announced, override, configured } }: RegisteredState): string[] {
  const wanted = override ?? configured;
  const notes = [
    wanted === undefined ? undefined : `weight ${wanted}`,
    override === undefined ? undefined : `set by "tandem weight", ${configured ?? 'none'} in its file`,
    announced === undefined || announced === wanted ? undefined : `announced with ${announced} for now`,
  ].filter((note) => note !== undefined);
  return notes.length === 0 ? [] : [notes.join(', ')];
}

function wordOf({ reason, warning }: CheckState): string | undefined {
  return reason ?? warning;
}

function tookOf({ lastProbeMs }: CheckState): string {
  return lastProbeMs === undefined ? '' : `${Math.round(lastProbeMs)}ms`;
}

/** To the second: nobody reads more. */
function roughly(ms: number): string {
  return formatDuration(Math.max(1, Math.round(ms / 1_000)) * 1_000);
}
