import { type Endpoint, endpointsOfLines, overlaps, parseEndpoint } from './endpoints.ts';
import { isSpare } from './ports.ts';
import type { Allowance } from './render.ts';
import type { Proxy, Structure } from './structure.ts';

/** A part of a structure that HAProxy cannot run. It costs only itself. */
export type SetAside = Part & { readonly reason: string };

export type Part =
  | { readonly service: string }
  | { readonly sharedFrontend: string }
  | { readonly portRange: string }
  /** By its title line. */
  | { readonly section: string };

/** What is vetted: a structure, and what the servers in it may look like. */
export interface Wanted {
  readonly structure: Structure;
  readonly allowances: readonly Allowance[];
}

function isWaiting({ name }: Proxy): boolean {
  return isSpare(name);
}

/** Where HAProxy listens when it runs a structure. */
export function endpointsOf(structure: Structure): Endpoint[] {
  return partsOf(structure).flatMap(({ endpoints }) => endpoints);
}

/** The parts of a structure that listen, and where. */
export function partsOf({
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

/** Whether there is a version of it in a structure. */
export function hasPart(structure: Structure, part: Part): boolean {
  return partsOf(structure).some((one) => isSamePart(one.part, part));
}

/** Parts that are set aside keep their last good version, if its address is still theirs. */
export function without(
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

export function remove(structure: Structure, parts: readonly Part[]): Structure {
  return filterParts(structure, (part) => !parts.some((one) => isSamePart(one, part)));
}

function keepOnly(structure: Structure, parts: readonly Part[]): Structure {
  return filterParts(structure, (part) => parts.some((one) => isSamePart(one, part)));
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
