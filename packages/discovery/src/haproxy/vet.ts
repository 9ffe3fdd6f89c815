import { access, constants, stat } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';

import { sleep, systemErrorCode } from '@tandem/core';

import {
  type Endpoint,
  endpointsOfLines,
  formatBind,
  overlaps,
  parseEndpoint,
  singleEndpoints,
} from './endpoints.ts';
import { isSpare } from './ports.ts';
import { renderSample } from './render.ts';
import type { Proxy, SharedFrontend, Structure } from './structure.ts';

/** A part of a structure that HAProxy cannot run. It costs only itself. */
export type SetAside = Part & { readonly reason: string };

type Part =
  | { readonly service: string }
  | { readonly sharedFrontend: string }
  | { readonly portRange: string }
  /** By its title line. */
  | { readonly section: string };

export type Vetted =
  | { readonly kind: 'accepted'; readonly structure: Structure; readonly setAside: readonly SetAside[] }
  | { readonly kind: 'refused'; readonly complaint: string };

export interface VetDeps {
  /** The structure that HAProxy has run last: what a part falls back on. */
  readonly good: Structure | undefined;
  /** Where the running HAProxy listens by itself; undefined when nobody knows. */
  readonly own: readonly Endpoint[] | undefined;
  /** What HAProxy says against a text; undefined when it would take it. */
  readonly check: (text: string) => Promise<string | undefined>;
  /** Why HAProxy could not listen there; undefined when it can. */
  readonly whyTaken: (endpoint: Endpoint) => Promise<string | undefined>;
}

/**
 * The part of a structure that HAProxy can run. `haproxy -c` binds nothing, and a reload that cannot bind refuses
 * every new connection for two seconds (HAProxy reference 3.3), so new addresses are tried first. When HAProxy refuses
 * the whole, the services and shared frontends that changed are asked one by one: one bad input hurts only itself.
 */
export async function vetStructure(wanted: Structure, { check, ...rest }: VetDeps): Promise<Vetted> {
  const deps = { ...rest, check: async (text: string) => withoutPids(await check(text)) };
  const taken = await findTaken(wanted, deps);
  const bindable = without(wanted, taken, deps.good);
  const complaint = await deps.check(renderSample(bindable));
  if (complaint === undefined) return { kind: 'accepted', structure: bindable, setAside: taken };
  const common = { ...bindable, sharedFrontends: [], proxies: bindable.proxies.filter(isWaiting) };
  if ((await deps.check(renderSample(common))) !== undefined) return { kind: 'refused', complaint };
  const refused = await findRefused(bindable, common, deps);
  const remaining = without(bindable, refused, deps.good);
  const isEnough = refused.length > 0 && (await deps.check(renderSample(remaining))) === undefined;
  return isEnough
    ? { kind: 'accepted', structure: remaining, setAside: [...taken, ...refused] }
    : { kind: 'refused', complaint };
}

/** The same complaint in the same words, so that whoever tells of it tells once. */
function withoutPids(complaint: string | undefined): string | undefined {
  return complaint?.replaceAll(/^(\[[A-Z]+\]) +\(\d+\)/gm, '$1');
}

function isWaiting({ name }: Proxy): boolean {
  return isSpare(name);
}

/** Where HAProxy listens when it runs a structure. */
export function endpointsOf(structure: Structure): Endpoint[] {
  return partsOf(structure).flatMap(({ endpoints }) => endpoints);
}

function partsOf({
  proxies,
  sharedFrontends,
  portRanges,
  extraSections,
}: Structure): { readonly part: Part; readonly endpoints: readonly Endpoint[] }[] {
  const parse = (bind: string) => parseEndpoint(bind) ?? [];
  return [
    ...Object.entries(extraSections).map(([section, lines]) => ({
      part: { section },
      endpoints: endpointsOfLines(lines),
    })),
    ...portRanges.map(({ mode, bind }) => ({ part: { portRange: mode }, endpoints: [bind].flatMap(parse) })),
    ...sharedFrontends.map(({ name, binds, lines }) => ({
      part: { sharedFrontend: name },
      endpoints: [...binds.flatMap(parse), ...endpointsOfLines(lines)],
    })),
    ...proxies.map(({ name, bind, frontendLines }) => ({
      part: { service: name },
      endpoints: [
        ...(bind === undefined ? [] : [bind].flatMap(parse)),
        ...(bind === undefined ? [] : endpointsOfLines(frontendLines)),
      ],
    })),
  ];
}

/** One after the other: two parts that want the same address would find it taken by the attempt for each other. */
async function findTaken(wanted: Structure, deps: VetDeps): Promise<SetAside[]> {
  const taken: SetAside[] = [];
  for (const { part, endpoints } of partsOf(wanted)) {
    const reason = await whyPartTaken(endpoints, deps);
    if (reason !== undefined) taken.push({ ...part, reason });
  }
  return taken;
}

/** How many ports of a range are tried at a time. */
const TRIED_AT_ONCE = 32;

async function whyPartTaken(
  endpoints: readonly Endpoint[],
  { own, whyTaken: why }: VetDeps,
): Promise<string | undefined> {
  if (own === undefined) return undefined;
  const isNew = (endpoint: Endpoint) => !own.some((other) => overlaps(other, endpoint));
  const untried = endpoints.flatMap(singleEndpoints).filter(isNew);
  for (let start = 0; start < untried.length; start += TRIED_AT_ONCE) {
    const reasons = await Promise.all(untried.slice(start, start + TRIED_AT_ONCE).map(why));
    const reason = reasons.find((one) => one !== undefined);
    if (reason !== undefined) return reason;
  }
  return undefined;
}

async function findRefused(
  structure: Structure,
  common: Structure,
  { good, check }: VetDeps,
): Promise<SetAside[]> {
  const refused: SetAside[] = [];
  for (const shared of structure.sharedFrontends) {
    if (isAmong(good?.sharedFrontends, shared)) continue;
    const reason = await check(renderSample({ ...common, sharedFrontends: [shared] }));
    if (reason !== undefined) refused.push({ sharedFrontend: shared.name, reason });
  }
  for (const proxy of structure.proxies) {
    if (isWaiting(proxy) || isAmong(good?.proxies, proxy)) continue;
    const reason = await check(renderSample({ ...common, proxies: [...common.proxies, proxy] }));
    if (reason !== undefined) refused.push({ service: proxy.name, reason });
  }
  return refused;
}

function isAmong<T extends Proxy | SharedFrontend>(known: readonly T[] | undefined, one: T): boolean {
  return known?.some((other) => isDeepStrictEqual(other, one)) === true;
}

/** Parts that are set aside keep their last good version, if its address is still theirs. */
function without(
  structure: Structure,
  setAside: readonly SetAside[],
  good: Structure | undefined,
): Structure {
  if (setAside.length === 0) return structure;
  const kept = remove(structure, setAside);
  if (good === undefined) return kept;
  const used = endpointsOf(kept);
  const isSetAside = (part: Part) => setAside.some((one) => isSamePart(one, part));
  const lost = partsOf(good).filter(
    ({ part, endpoints }) =>
      isSetAside(part) && !endpoints.some((one) => used.some((other) => overlaps(one, other))),
  );
  const former = keepOnly(
    good,
    lost.map(({ part }) => part),
  );
  return {
    ...kept,
    extraSections: { ...kept.extraSections, ...former.extraSections },
    portRanges: [...kept.portRanges, ...former.portRanges],
    sharedFrontends: [...kept.sharedFrontends, ...former.sharedFrontends].toSorted(byName),
    proxies: [...kept.proxies, ...former.proxies].toSorted(byName),
  };
}

function remove(structure: Structure, parts: readonly Part[]): Structure {
  return filterParts(structure, (part) => !parts.some((one) => isSamePart(one, part)));
}

function keepOnly(structure: Structure, parts: readonly Part[]): Structure {
  return filterParts(structure, (part) => parts.some((one) => isSamePart(one, part)));
}

/** Whether there is a version of it in a structure. */
export function hasPart(structure: Structure, part: Part): boolean {
  return partsOf(structure).some((one) => isSamePart(one.part, part));
}

/** The backends that wait go with the range whose services they would serve. */
function filterParts(structure: Structure, isKept: (part: Part) => boolean): Structure {
  const modeOf = ({ name }: Proxy) => /^tandem-spare-(http|tcp)-/.exec(name)?.[1] ?? '';
  return {
    ...structure,
    extraSections: Object.fromEntries(
      Object.entries(structure.extraSections).filter(([section]) => isKept({ section })),
    ),
    portRanges: structure.portRanges.filter(({ mode }) => isKept({ portRange: mode })),
    sharedFrontends: structure.sharedFrontends.filter(({ name }) => isKept({ sharedFrontend: name })),
    proxies: structure.proxies.filter((proxy) =>
      isKept(isWaiting(proxy) ? { portRange: modeOf(proxy) } : { service: proxy.name }),
    ),
  };
}

function isSamePart(a: Part, b: Part): boolean {
  if ('service' in a) return 'service' in b && a.service === b.service;
  if ('sharedFrontend' in a) return 'sharedFrontend' in b && a.sharedFrontend === b.sharedFrontend;
  if ('portRange' in a) return 'portRange' in b && a.portRange === b.portRange;
  return 'section' in b && a.section === b.section;
}

function byName(a: { readonly name: string }, b: { readonly name: string }): number {
  return a.name < b.name ? -1 : 1;
}

const ATTEMPTS = 4;
const PAUSE_MS = 100;

/**
 * Tries an address by listening on it for a moment, or by calling whoever may listen on the path of a socket. A
 * HAProxy that is just ending gets some time to leave it.
 * @param isManaged whether HAProxy runs with the rights of this process
 */
export async function whyTaken(endpoint: Endpoint, isManaged = true): Promise<string | undefined> {
  const bind = formatBind(endpoint);
  for (let attempt = 1; ; attempt += 1) {
    const code =
      endpoint.kind === 'unix'
        ? await tryPath(endpoint.path)
        : await tryListen(endpoint.host, endpoint.first);
    if (code === undefined) return undefined;
    if (code === 'EACCES' || code === 'EPERM') {
      // Somebody else's HAProxy may do what this process may not.
      if (!isManaged) return undefined;
      return `this process may not listen on ${bind} (${code}): give it the right to, or choose another address`;
    }
    if (code === 'ENOENT')
      return `the directory of the socket ${bind} does not exist: create it, or choose another path`;
    if (code === 'EEXIST') return `${bind} is no socket: remove it, or choose another path`;
    if (code !== 'EADDRINUSE') return `this process cannot listen on ${bind} (${code})`;
    if (attempt === ATTEMPTS) return `the address ${bind} is taken by another process`;
    await sleep(PAUSE_MS);
  }
}

function tryListen(host: string, port: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const server = net.createServer((socket) => socket.destroy());
    server.once('error', (error) => resolve(systemErrorCode(error) ?? 'unknown reason'));
    server.listen({ port, host, exclusive: true }, () => {
      server.close(() => resolve(undefined));
    });
  });
}

/** HAProxy replaces the file of a socket that nobody listens on any more. */
async function tryPath(file: string): Promise<string | undefined> {
  try {
    await access(path.dirname(file), constants.W_OK | constants.X_OK);
  } catch (error) {
    return systemErrorCode(error) ?? 'unknown reason';
  }
  try {
    if (!(await stat(file)).isSocket()) return 'EEXIST';
  } catch (error) {
    return systemErrorCode(error) === 'ENOENT' ? undefined : (systemErrorCode(error) ?? 'unknown reason');
  }
  return new Promise((resolve) => {
    const caller = net.connect(file);
    caller.setTimeout(CALL_MS, () => caller.destroy(new Error('somebody listens, and is slow')));
    caller.once('connect', () => {
      caller.destroy();
      resolve('EADDRINUSE');
    });
    caller.once('error', (error) => {
      const code = systemErrorCode(error);
      resolve(code === 'ECONNREFUSED' || code === 'ENOENT' ? undefined : (code ?? 'EADDRINUSE'));
    });
  });
}

const CALL_MS = 1_000;
