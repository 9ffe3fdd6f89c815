import { isDeepStrictEqual } from 'node:util';

import { type Endpoint, formatBind, singleEndpoints } from './endpoints.ts';
import { type Part, partsOf, type SetAside, type Wanted, without } from './parts.ts';
import { findRefused, type Refusal } from './refused.ts';
import { markOf } from './render.ts';
import type { Structure } from './structure.ts';
import { findTaken } from './taken.ts';

export type Vetted =
  | {
      readonly kind: 'accepted';
      readonly structure: Structure;
      readonly setAside: readonly SetAside[];
      readonly limits: Limits;
      /** Whether an address was taken, which may be free again at any time. */
      readonly hasTaken: boolean;
    }
  | {
      readonly kind: 'refused';
      readonly complaint: string;
      /** What the servers of the last good structure cannot have. */
      readonly limits: Limits;
    };

/** What servers cannot have, by service. */
export interface Limits {
  /** Services whose instances go without options of their own, with what HAProxy says against these. */
  readonly plain: ReadonlyMap<string, string>;
  /** Services whose `server_options` no spare can have: nothing serves them. */
  readonly unserved: ReadonlySet<string>;
}

export const NO_LIMITS: Limits = { plain: new Map(), unserved: new Set() };

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
 * The part of a structure that HAProxy can run, and what its servers can carry. `haproxy -c` binds nothing, and a
 * reload that cannot bind refuses every new connection for two seconds (HAProxy reference 3.3), so new addresses are
 * tried first. When HAProxy refuses the whole, what has changed is searched for the culprits: one bad input hurts only
 * itself.
 */
export async function vetStructure(wanted: Wanted, { check, ...rest }: VetDeps): Promise<Vetted> {
  const deps = { ...rest, check: async (text: string) => withoutPids(await check(text)) };
  const { good } = deps;
  const taken = await findTakenParts(wanted.structure, deps);
  const bindable = { ...wanted, structure: without(wanted.structure, taken, good) };
  const found = await findRefused(bindable, isUnchanged(good), deps.check);
  if (found.kind === 'hopeless') return refusal(found.complaint, wanted, deps);
  const parts = found.refused.flatMap((one) => ('part' in one ? [{ ...one.part, reason: one.reason }] : []));
  const structure = without(bindable.structure, parts, good);
  // Those that stay as they were have other servers than those that were tried.
  const again =
    markOf(structure) === markOf(found.rest.structure)
      ? found
      : await findRefused({ ...found.rest, structure }, () => true, deps.check);
  if (again.kind === 'hopeless') return refusal(again.complaint, wanted, deps);
  const servers = [...found.refused, ...(again === found ? [] : again.refused)];
  return {
    kind: 'accepted',
    structure,
    setAside: [...taken, ...parts, ...unservedOf(servers)],
    limits: limitsOf(servers),
    hasTaken: taken.length > 0,
  };
}

async function refusal(
  complaint: string,
  { allowances }: Wanted,
  { good, check }: Pick<VetDeps, 'good' | 'check'>,
): Promise<Vetted> {
  const found =
    good === undefined ? undefined : await findRefused({ structure: good, allowances }, () => true, check);
  const limits = found?.kind === 'found' ? limitsOf(found.refused) : NO_LIMITS;
  return { kind: 'refused', complaint, limits };
}

function limitsOf(refused: readonly Refusal[]): Limits {
  const plain = refused.flatMap((one) => ('own' in one ? [[one.own, one.reason] as const] : []));
  const unserved = unservedOf(refused).map(({ service }) => service);
  return plain.length === 0 && unserved.length === 0
    ? NO_LIMITS
    : { plain: new Map(plain), unserved: new Set(unserved) };
}

function unservedOf(refused: readonly Refusal[]): { readonly service: string; readonly reason: string }[] {
  return refused.flatMap((one) => ('options' in one ? [{ service: one.options, reason: one.reason }] : []));
}

/** The same complaint in the same words, so that whoever tells of it tells once. */
function withoutPids(complaint: string | undefined): string | undefined {
  return complaint?.replaceAll(/^(\[[A-Z]+\]) +\(\d+\)/gm, '$1');
}

async function findTakenParts(
  wanted: Structure,
  { own, whyTaken }: Pick<VetDeps, 'own' | 'whyTaken'>,
): Promise<SetAside[]> {
  if (own === undefined) return [];
  const parts = partsOf(wanted);
  const taken = await findTaken(
    parts.flatMap(({ endpoints }) => endpoints),
    own,
    whyTaken,
  );
  if (taken.size === 0) return [];
  return parts.flatMap(({ part, endpoints }) => {
    const binds = endpoints.flatMap(singleEndpoints).map(formatBind);
    const reason = binds.map((bind) => taken.get(bind)).find((one) => one !== undefined);
    return reason === undefined ? [] : [{ ...part, reason }];
  });
}

/** What runs as it is has been found good, whatever HAProxy says of it today: it is never set aside. */
function isUnchanged(good: Structure | undefined): (part: Part, structure: Structure) => boolean {
  const isAmong = <T extends { readonly name: string }>(
    known: readonly T[] | undefined,
    all: readonly T[],
    name: string,
  ) =>
    isDeepStrictEqual(
      known?.find((one) => one.name === name) ?? {},
      all.find((one) => one.name === name),
    );
  return (part, structure) => {
    if ('service' in part) return isAmong(good?.proxies, structure.proxies, part.service);
    if ('sharedFrontend' in part)
      return isAmong(good?.sharedFrontends, structure.sharedFrontends, part.sharedFrontend);
    return true;
  };
}
