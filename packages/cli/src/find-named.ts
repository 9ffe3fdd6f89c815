import { nearest, TandemError } from '@tandem/core';

import { printable } from './printable.ts';

const MAX_LISTED = 20;

/** The service of that name; throws with what it might have been called. `knows` as in "the daemon follows". */
export function findNamed<T extends { readonly service: string }>(
  services: readonly T[],
  name: string,
  knows: string,
): T {
  const found = services.find(({ service }) => service === name);
  if (found !== undefined) return found;
  const known = [...new Set(services.map(({ service }) => service))];
  const guess = nearest(name, known);
  const more = known.length > MAX_LISTED ? ', ...' : '';
  const hint =
    guess !== undefined
      ? `Did you mean "${guess}"?`
      : `Known: ${known.length === 0 ? 'none' : known.slice(0, MAX_LISTED).join(', ')}${more}.`;
  throw new TandemError('CONTROL_REFUSED', `${knows} no service "${printable(name)}". ${printable(hint)}`);
}
