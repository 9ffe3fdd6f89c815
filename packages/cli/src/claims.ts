import path from 'node:path';

import { Listen } from '@tandem/discovery';

/** Something that one file alone may have. */
export interface Claim {
  /** Where in the file. */
  readonly at: readonly string[];
  /** In words, such as `the service "web"`. */
  readonly what: string;
  /** Claims without an address overlap when this is equal. */
  readonly place: string;
  /** For what is listened on: it may be part of another address. */
  readonly address?: Address;
}

interface Address {
  /** `4:127.0.0.1`, `6:::1`, and for all of a kind `4` (IPv4), `6` (IPv6) or empty (both). */
  readonly host: string;
}

/** What is claimed by words alone. */
export function claim(at: readonly string[], what: string): Claim {
  return { at, what, place: what };
}

/** An address or the path of a socket, as the configuration has it after its validation. */
export function listenClaim(at: readonly string[], listen: string, bindOptions = ''): Claim {
  if (listen.startsWith('/')) return pathClaim(at, listen);
  const colon = listen.lastIndexOf(':');
  const isV6Only = bindOptions.split(' ').includes('v6only');
  return {
    at,
    what: `the address ${listen}`,
    place: `port ${listen.slice(colon + 1)}`,
    address: { host: canonicalHost(listen.slice(0, colon), isV6Only) },
  };
}

/** A file, by one name for each. */
export function pathClaim(at: readonly string[], file: string): Claim {
  const name = path.resolve(file);
  return { at, what: `the path ${name}`, place: name };
}

/** What lines of the host file's own let HAProxy listen on, as far as it can be told. */
export function bindClaims(at: readonly string[], lines: readonly string[]): Claim[] {
  return lines.flatMap((line) => {
    const [keyword, addresses = '', ...options] = line.trim().split(/\s+/);
    if (keyword !== 'bind') return [];
    return addresses.split(',').flatMap((address) => {
      const listen = Listen.safeParse(address.startsWith(':') ? `*${address}` : address).data;
      return listen === undefined ? [] : [listenClaim(at, listen, options.join(' '))];
    });
  });
}

export function overlap(a: Claim, b: Claim): boolean {
  if (a.place !== b.place) return false;
  if (a.address === undefined || b.address === undefined) return true;
  return a.address.host.startsWith(b.address.host) || b.address.host.startsWith(a.address.host);
}

/** Of two spellings of one address only one comes out; the wildcard of IPv6 takes connections over IPv4, too. */
function canonicalHost(host: string, isV6Only: boolean): string {
  if (host === '*' || host === '0.0.0.0') return '4:';
  if (!host.startsWith('[')) return `4:${host} `;
  const address = new URL(`http://${host}/`).hostname.slice(1, -1);
  if (address === '::') return isV6Only ? '6:' : '';
  const mapped = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(address);
  if (mapped === null) return `6:${address} `;
  const [high = 0, low = 0] = mapped.slice(1).map((part) => Number.parseInt(part, 16));
  return canonicalHost([high >> 8, high & 255, low >> 8, low & 255].join('.'), isV6Only);
}

/** One version of a file with what it claims. */
export interface Version {
  readonly claims: readonly Claim[];
}

/** A file that cannot have what it claims. */
export interface Conflict {
  readonly file: string;
  readonly claim: Claim;
  readonly other: string;
  readonly otherClaim: Claim;
}

/**
 * Decides which version of each file is in force when they are put side by side: the new one unless it claims what
 * another file has. Who had it in the last load keeps it, whatever the files are called; among newcomers the first by
 * name gets it. A file that loses keeps the version that was in force, or is left out without one.
 */
export function settleClaims<V extends Version>(
  files: ReadonlyMap<string, V>,
  inForce: ReadonlyMap<string, V>,
  reserved: { readonly file: string; readonly claims: readonly Claim[] },
): { readonly chosen: ReadonlyMap<string, V>; readonly conflicts: readonly Conflict[] } {
  const chosen = new Map([...files].toSorted(byRank(inForce)));
  const conflicts: Conflict[] = [];
  for (;;) {
    const conflict = findConflict(chosen, inForce, reserved);
    if (conflict === undefined) return { chosen, conflicts };
    conflicts.push(conflict);
    const { file } = conflict;
    const before = inForce.get(file);
    // What was in force together before cannot be in its own way; what else it would meet is looked at again.
    if (before !== undefined && before !== chosen.get(file)) chosen.set(file, before);
    else chosen.delete(file);
  }
}

interface Owner {
  readonly file: string;
  readonly claim: Claim;
}

function byRank(inForce: ReadonlyMap<string, unknown>) {
  const rank = (file: string) => `${inForce.has(file) ? 0 : 1}${file}`;
  return ([a]: readonly [string, unknown], [b]: readonly [string, unknown]) => (rank(a) < rank(b) ? -1 : 1);
}

function findConflict(
  chosen: ReadonlyMap<string, Version>,
  inForce: ReadonlyMap<string, Version>,
  reserved: { readonly file: string; readonly claims: readonly Claim[] },
): Conflict | undefined {
  // A version that is in force stays whatever comes; what it had, a changed one has rather than a newcomer.
  const right = ({ file, claim }: Owner): number => {
    if (file === reserved.file) return Infinity;
    const before = inForce.get(file);
    if (before !== undefined && before === chosen.get(file)) return 2;
    return before?.claims.some((earlier) => overlap(earlier, claim)) === true ? 1 : 0;
  };
  const owners = new Map<string, Owner[]>();
  for (const claim of reserved.claims) add(owners, { file: reserved.file, claim });
  for (const [file, { claims }] of chosen) {
    for (const claim of claims) {
      const owner = owners.get(claim.place)?.find((one) => overlap(one.claim, claim));
      if (owner === undefined) continue;
      const newcomer = { file, claim };
      const [loser, winner] = right(newcomer) > right(owner) ? [owner, newcomer] : [newcomer, owner];
      return { ...loser, other: winner.file, otherClaim: winner.claim };
    }
    for (const claim of claims) add(owners, { file, claim });
  }
  return undefined;
}

function add(owners: Map<string, Owner[]>, owner: Owner): void {
  const there = owners.get(owner.claim.place);
  if (there === undefined) owners.set(owner.claim.place, [owner]);
  else there.push(owner);
}
