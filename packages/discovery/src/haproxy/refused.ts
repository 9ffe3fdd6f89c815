import { placesIn } from './alerts.ts';
import { FULLEST_NAME, renderSample } from './render.ts';
import type { Structure } from './structure.ts';
import { isSpare } from './ports.ts';
import { type Part, remove, type Wanted } from './parts.ts';

/** What HAProxy refuses, with what it says. */
export type Refusal = Culprit & { readonly reason: string };

type Culprit =
  | { readonly part: Part }
  /** The service whose instances cannot have options of their own. */
  | { readonly own: string }
  /** The service whose `server_options` its spare cannot have. */
  | { readonly options: string };

type Found =
  | {
      readonly kind: 'found';
      /** Nothing when HAProxy takes the whole. */
      readonly refused: readonly Refusal[];
      /** What is left: HAProxy takes it. */
      readonly rest: Wanted;
    }
  | { readonly kind: 'hopeless'; readonly complaint: string };

type Check = (text: string) => Promise<string | undefined>;

/**
 * Finds out what HAProxy refuses of a structure and of the servers in it. Where its alerts name the places, they are
 * left out and the rest is asked again; else the culprits are searched by halves: one bad part of a thousand takes few
 * runs of HAProxy.
 * @param isFixed the parts that are never left out
 */
export async function findRefused(
  wanted: Wanted,
  isFixed: (part: Part, structure: Structure) => boolean,
  check: Check,
): Promise<Found> {
  const refused: Refusal[] = [];
  let rest = wanted;
  for (;;) {
    const text = renderSample(rest.structure, rest.allowances);
    const complaint = await check(text);
    if (complaint === undefined) return { kind: 'found', refused, rest };
    const suspects = suspectsOf(rest, (part) => isFixed(part, rest.structure));
    const named = namedBy(complaint, text, suspects);
    const found = named.length > 0 ? named : await searchAll(rest, suspects, complaint, check);
    if (found.length === 0) return { kind: 'hopeless', complaint };
    refused.push(...found);
    rest = leaveOut(rest, found);
  }
}

/** What may be left out on account of one service or shared frontend, the least that may be wrong first. */
interface Suspect {
  /** Of its sections. */
  readonly titles: readonly string[];
  readonly culprits: readonly Culprit[];
}

function suspectsOf({ structure, allowances }: Wanted, isFixed: (part: Part) => boolean): Suspect[] {
  const known = new Map(allowances.map((allowance) => [allowance.backend, allowance]));
  const shared = structure.sharedFrontends
    .filter(({ name }) => !isFixed({ sharedFrontend: name }))
    .map(({ name }): Suspect => ({
      titles: [`frontend ${name}`],
      culprits: [{ part: { sharedFrontend: name } }],
    }));
  const services = structure.proxies.map(({ name, bind }): Suspect => {
    const { service = name, own = '', options = '' } = known.get(name) ?? {};
    const part: Part = { service };
    return {
      titles: [...(bind === undefined ? [] : [`frontend ${name}`]), `backend ${name}`],
      culprits: [
        ...(own === '' ? [] : [{ own: service }]),
        ...(isSpare(name) && options !== '' ? [{ options: service }] : []),
        ...(isSpare(name) || isFixed(part) ? [] : [{ part }]),
      ],
    };
  });
  return [...shared, ...services.filter(({ culprits }) => culprits.length > 0)];
}

/** Whom the alerts of HAProxy mean, as far as they say so. */
function namedBy(complaint: string, text: string, suspects: readonly Suspect[]): Refusal[] {
  const byTitle = new Map(suspects.flatMap((suspect) => suspect.titles.map((title) => [title, suspect])));
  const reasons = new Map<Suspect, { readonly all: string[]; readonly isOfFullest: boolean }>();
  for (const { alert, section, server } of placesIn(complaint, text)) {
    const suspect = byTitle.get(section);
    if (suspect === undefined) continue;
    const known = reasons.get(suspect);
    reasons.set(suspect, {
      all: [...(known?.all ?? []), alert],
      isOfFullest: server === FULLEST_NAME && known?.isOfFullest !== false,
    });
  }
  return [...reasons].flatMap(([{ culprits }, { all, isOfFullest }]) => {
    const culprit = isOfFullest ? culprits[0] : culprits.find((one) => !('own' in one));
    return culprit === undefined ? [] : [{ ...culprit, reason: all.join('\n') }];
  });
}

/** @param complaint what HAProxy says of the whole */
async function searchAll(
  wanted: Wanted,
  suspects: readonly Suspect[],
  complaint: string,
  check: Check,
): Promise<Refusal[]> {
  /** What HAProxy says when these are there, and no other suspect is. */
  const ask = (present: readonly Suspect[]) => {
    const others = suspects.filter((suspect) => !present.includes(suspect));
    return checkWithout(culpritsOf(others));
  };
  const checkWithout = (culprits: readonly Culprit[]) => {
    const { structure, allowances } = leaveOut(wanted, culprits);
    return check(renderSample(structure, allowances));
  };

  async function search(guilty: readonly Suspect[], said: string): Promise<Refusal[]> {
    const [first] = guilty;
    if (guilty.length === 1 && first !== undefined) return findCulprit(first, said);
    const half = Math.ceil(guilty.length / 2);
    const found: Refusal[] = [];
    for (const part of [guilty.slice(0, half), guilty.slice(half)]) {
      const answer = await ask(part);
      if (answer !== undefined) found.push(...(await search(part, answer)));
    }
    return found;
  }

  /** Without any of them HAProxy takes the rest, so that the last one is guilty when no other is. */
  async function findCulprit(suspect: Suspect, said: string): Promise<Refusal[]> {
    const others = culpritsOf(suspects.filter((one) => one !== suspect));
    let reason = said;
    for (const [index, culprit] of suspect.culprits.entries()) {
      const answer =
        index === suspect.culprits.length - 1 ? undefined : await checkWithout([...others, culprit]);
      if (answer === undefined) return [{ ...culprit, reason }];
      reason = answer;
    }
    return [];
  }

  const isWorthIt = suspects.length > 0 && (await ask([])) === undefined;
  return isWorthIt ? search(suspects, complaint) : [];
}

function culpritsOf(suspects: readonly Suspect[]): Culprit[] {
  return suspects.flatMap(({ culprits }) => culprits);
}

function leaveOut({ structure, allowances }: Wanted, culprits: readonly Culprit[]): Wanted {
  const parts = culprits.flatMap((one) => ('part' in one ? [one.part] : []));
  const own = new Set(culprits.flatMap((one) => ('own' in one ? [one.own] : [])));
  const options = new Set(culprits.flatMap((one) => ('options' in one ? [one.options] : [])));
  return {
    structure: parts.length === 0 ? structure : remove(structure, parts),
    allowances: allowances
      .filter(({ service }) => !options.has(service))
      .map((one) => (own.has(one.service) ? { ...one, own: '' } : one)),
  };
}
