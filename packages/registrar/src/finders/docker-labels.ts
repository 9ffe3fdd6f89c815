import { isIP } from 'node:net';

import {
  type Binding,
  type ContainerHealth,
  findPublished,
  Port,
  RegistryPath,
  SafeName,
} from '@tandem/core';

import { type Finding, type RegisterConfig, RegisterSection, type ServiceRegistration } from '../config.ts';
import { createDraft, type Draft, type LabelRefusal, type Refusal } from './label-draft.ts';
import { type LabelMap, type LabelValue, readLabels } from './label-values.ts';

/** A container that runs, as far as its registration goes. */
export interface FoundContainer {
  readonly id: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, unknown>>;
  readonly health: ContainerHealth;
  /** Its ports are those of the host. */
  readonly isOnHost: boolean;
  /** `Ports` as the list has them. */
  readonly ports: unknown;
}

export interface LabelOptions {
  /** What is announced. */
  readonly address: string;
  readonly allowCommands: boolean;
  /** Where a service stands in the registry if its labels do not say. */
  readonly pathOf: (service: string) => string;
}

/** A mistake in the labels of a container. Costs that service of that container. */
export interface LabelProblem {
  readonly container: string;
  readonly label: string;
  readonly reason: string;
  readonly remedy?: string;
}

export interface ReadContainer {
  readonly registrations: readonly ServiceRegistration[];
  readonly problems: readonly LabelProblem[];
}

const PREFIX = 'tandem.';
const MAX_LABELS = 200;

export function hasServiceLabels(labels: unknown): labels is Readonly<Record<string, unknown>> {
  if (typeof labels !== 'object' || labels === null) return false;
  return Object.keys(labels).some((key) => key.startsWith(PREFIX));
}

/** What the labels of a container register: the same keys as `register` of a service file has. */
export function readContainer(container: FoundContainer, options: LabelOptions): ReadContainer {
  const own = Object.entries(container.labels)
    .filter(([key]) => key.startsWith(PREFIX))
    .toSorted(([a], [b]) => (a < b ? -1 : 1));
  const problem = (label: string, { reason, remedy }: Refusal): LabelProblem => ({
    container: container.name,
    label: printable(label.replace(/\.$/, '')),
    reason,
    ...(remedy === undefined ? {} : { remedy }),
  });
  if (own.length > MAX_LABELS) {
    const reason = `are ${own.length}, and at most ${MAX_LABELS} are read`;
    return { registrations: [], problems: [problem(`${PREFIX}*`, { reason })] };
  }
  const registrations: ServiceRegistration[] = [];
  const problems: LabelProblem[] = [];
  for (const [number, labels] of groupLabels(own)) {
    const prefix = number === '' ? PREFIX : `${PREFIX}${number}.`;
    const read = readService(container, { prefix, number, labels }, options);
    if (read.ok) registrations.push(read.registration);
    else problems.push(...read.refusals.map((refusal) => problem(refusal.label, refusal)));
  }
  return { registrations, problems };
}

type Label = readonly [key: string, value: unknown];

/** `tandem.1.service` and what belongs to it are of another service than `tandem.service`. */
function groupLabels(labels: readonly Label[]): Map<string, Label[]> {
  const groups = new Map<string, Label[]>();
  for (const label of labels) {
    const number = /^tandem\.(\d{1,2})\./.exec(label[0])?.[1] ?? '';
    groups.set(number, [...(groups.get(number) ?? []), label]);
  }
  return groups;
}

type ReadService =
  | { readonly ok: true; readonly registration: ServiceRegistration }
  | { readonly ok: false; readonly refusals: readonly LabelRefusal[] };

/** The labels of one service of a container. */
interface Group {
  readonly prefix: string;
  readonly number: string;
  readonly labels: readonly Label[];
}

function readService(container: FoundContainer, group: Group, options: LabelOptions): ReadService {
  const draft = createDraft(group.prefix, options);
  for (const [key, value] of group.labels) draft.add(key, value);
  if (draft.refusals.length > 0) return { ok: false, refusals: draft.refusals };
  const { service: name, path: at, port: inside, ...rest } = draft.register;
  const refuse = (key: string, reason: string, remedy?: string): ReadService => ({
    ok: false,
    refusals: [{ label: group.prefix + key, reason, remedy }],
  });

  if (name === undefined) return refuse('service', 'is required but missing', 'Name the service with it');
  const service = SafeName.safeParse(name);
  if (!service.success) return refuse('service', complaintOf(service.error, name));
  const path = RegistryPath.safeParse(at ?? options.pathOf(service.data));
  if (!path.success) return refuse('path', complaintOf(path.error, at ?? ''));
  if (inside === undefined)
    return refuse('port', 'is required but missing', 'Set it to the port inside of the container');
  const containerPort = readPort(inside);
  if (containerPort === undefined)
    return refuse('port', `must be a port, 1 to 65535, found ${JSON.stringify(inside)}`);
  const { address } = rest;
  const announced = typeof address === 'string' ? address : options.address;
  const binding = bindingOf(container, containerPort, announced);
  if (binding === undefined) return refuse('port', ...unpublished(containerPort));

  const checks: LabelValue[] = [];
  for (const { kind, key, keys } of draft.checks) {
    const located = locateCheck(container, { kind, keys, binding }, options);
    if (!located.ok) return refuse(`${key}.${kind}.${located.key}`, located.reason, located.remedy);
    checks.push({ [kind]: located.keys });
  }
  const read = readLabels({ ...rest, port: binding.port, checks }, container.name, RegisterSection);
  if (!read.ok) {
    const label = (where: string) =>
      group.prefix +
      labelOf(
        where,
        draft.checks.map(({ key }) => key),
      );
    return {
      ok: false,
      refusals: read.problems.map(({ path, reason, remedy }) => ({ label: label(path), reason, remedy })),
    };
  }
  const where = { service: service.data, path: path.data };
  return {
    ok: true,
    registration: registrationOf(container, { ...where, config: read.value }, group, draft),
  };
}

function registrationOf(
  { id, name, health }: FoundContainer,
  registration: { readonly service: string; readonly path: string; readonly config: RegisterConfig },
  { number }: Group,
  { ignoresHealth }: Draft,
): ServiceRegistration {
  const finding = ignoresHealth ? undefined : findingOf(health);
  return {
    ...registration,
    origin: `container ${name} (${id.slice(0, 12)})${number === '' ? '' : `, tandem.${number}`}`,
    ...(finding === undefined ? {} : { finding }),
  };
}

/** The health check of a container is one of its service: it has not passed while the container is starting. */
function findingOf(health: ContainerHealth): Finding | undefined {
  switch (health) {
    case 'healthy':
      return { check: 'container', health: 'up' };
    case 'unhealthy':
      return { check: 'container', health: 'down', reason: 'the container is unhealthy' };
    case 'starting':
      return { check: 'container', health: 'unknown' };
    case 'none':
      return undefined;
  }
}

/** These go nowhere by themselves. */
const KINDS_WITHOUT_ADDRESS = ['command', 'noop'];

type LocatedCheck =
  { readonly ok: true; readonly keys: LabelMap } | ({ readonly ok: false; readonly key: string } & Refusal);

/** A check of a container goes to where the container is reached, and nowhere else. */
function locateCheck(
  container: FoundContainer,
  { kind, keys, binding }: { kind: string; keys: LabelMap; binding: Binding },
  { address }: LabelOptions,
): LocatedCheck {
  if (KINDS_WITHOUT_ADDRESS.includes(kind)) return { ok: true, keys };
  const { host, port: inside } = keys;
  if (typeof host === 'string' && !isOwn(host, address))
    return {
      ok: false,
      key: 'host',
      reason: `must be a loopback address or ${address}, found ${JSON.stringify(host)}`,
      remedy: 'A label must not make the registrar call other hosts',
    };
  const port = typeof inside === 'string' ? readPort(inside) : undefined;
  const target = port === undefined ? binding : bindingOf(container, port, address);
  if (target === undefined) {
    const [reason, remedy] = unpublished(port ?? 0);
    return { ok: false, key: 'port', reason, remedy };
  }
  const probed = host === undefined ? probedHost(target.address) : undefined;
  return {
    ok: true,
    keys: {
      ...keys,
      ...(port === undefined ? {} : { port: target.port }),
      ...(probed === undefined ? {} : { host: probed }),
    },
  };
}

function isOwn(host: string, address: string): boolean {
  return [address, 'localhost', '::1'].includes(host) || (isIP(host) === 4 && host.startsWith('127.'));
}

/** Undefined where the default of the checks, the loopback, is as good. */
function probedHost(published: string): string | undefined {
  if (published === '::') return '::1';
  return published === '' || published === '0.0.0.0' || isIP(published) === 0 ? undefined : published;
}

function bindingOf(
  { isOnHost, ports }: FoundContainer,
  containerPort: number,
  host: string,
): Binding | undefined {
  return isOnHost ? { address: '', port: containerPort } : findPublished(ports, { containerPort, host });
}

function unpublished(port: number): [reason: string, remedy: string] {
  return [
    `${port}/tcp is published nowhere that callers could reach`,
    `Publish it (docker run -p ${port}), or put the container on the network of the host`,
  ];
}

function readPort(text: LabelValue): number | undefined {
  return typeof text === 'string' && /^\d{1,5}$/.test(text) ? Port.safeParse(Number(text)).data : undefined;
}

/** `checks[1].http.path` is the label `check.http.path` if the second check was made of `check`. */
function labelOf(path: string, checkKeys: readonly string[]): string {
  const [, index, rest = ''] = /^checks\[(\d+)\](.*)$/s.exec(path) ?? [];
  return index === undefined ? path : `${checkKeys[Number(index)] ?? 'check'}${rest}`;
}

function complaintOf(
  error: { readonly issues: readonly { readonly message: string }[] },
  value: LabelValue,
): string {
  return `${error.issues[0]?.message ?? 'cannot be used'}, found ${JSON.stringify(value)}`;
}

/** A label may hold anything. */
function printable(label: string): string {
  const text = label.replace(/\p{Cc}/gu, '?');
  return text.length > 80 ? `${text.slice(0, 79)}…` : text;
}
