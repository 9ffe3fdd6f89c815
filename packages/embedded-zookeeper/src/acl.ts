import { createHash } from 'node:crypto';
import { isIP } from 'node:net';
import { ErrorCode, RequestRefused } from './errors.ts';
import type { JuteReader, JuteWriter } from './jute.ts';

/** Who a connection is: its address, and every name that it proved by an auth packet. */
export interface Identity {
  readonly scheme: string;
  readonly id: string;
}

export interface AclEntry extends Identity {
  readonly permissions: number;
}

export const OPEN_ACL: readonly AclEntry[] = [{ permissions: 31, scheme: 'world', id: 'anyone' }];
export const READ_ONLY_ACL: readonly AclEntry[] = [{ permissions: 1, scheme: 'world', id: 'anyone' }];

/** An entry as sent: scheme and id may be null there. */
export interface AclRequestEntry {
  readonly permissions: number;
  readonly scheme: string | null;
  readonly id: string | null;
}

export function readAcl(reader: JuteReader): AclRequestEntry[] | null {
  return reader.vector((item) => ({ permissions: item.int(), scheme: item.string(), id: item.string() }));
}

export function writeAcl(writer: JuteWriter, acl: readonly AclEntry[]): void {
  writer.int(acl.length);
  for (const entry of acl) writer.int(entry.permissions).string(entry.scheme).string(entry.id);
}

/** What is stored for an ACL as sent: without duplicates, `auth` replaced by the sender's names. Refuses invalid ones. */
export function resolveAcl(
  acl: readonly AclRequestEntry[] | null,
  identities: readonly Identity[],
): readonly AclEntry[] {
  const resolved = new Map<string, AclEntry>();
  const add = (entry: AclEntry) => resolved.set(`${entry.permissions} ${entry.scheme} ${entry.id}`, entry);
  for (const { permissions, scheme, id } of acl ?? []) {
    if (scheme === 'auth') {
      const names = identities.filter((identity) => identity.scheme === 'digest');
      if (names.length === 0) throw new RequestRefused(ErrorCode.invalidAcl);
      for (const name of names) add({ permissions, scheme: name.scheme, id: name.id });
    } else if (scheme !== null && id !== null && isValidIdentity(scheme, id)) {
      add({ permissions, scheme, id });
    } else throw new RequestRefused(ErrorCode.invalidAcl);
  }
  if (resolved.size === 0) throw new RequestRefused(ErrorCode.invalidAcl);
  return [...resolved.values()];
}

function isValidIdentity(scheme: string, id: string): boolean {
  if (scheme === 'world') return id === 'anyone';
  if (scheme === 'digest') return /^[^:]*:[^:]+$/.test(id);
  return scheme === 'ip' && isValidAddress(id);
}

function isValidAddress(id: string): boolean {
  const [address = '', bits] = id.split('/', 2);
  const family = isIP(address);
  if (family === 0) return false;
  return bits === undefined || (/^\d+$/.test(bits) && Number(bits) <= (family === 4 ? 32 : 128));
}

/** The identity that an auth packet proves, or undefined when the scheme is not known here. */
export function authenticate(scheme: string | null, proof: Buffer, address: string): Identity | undefined {
  if (scheme === 'ip') return { scheme, id: address };
  if (scheme !== 'digest') return undefined;
  const credentials = proof.toString('utf8');
  const [user = ''] = credentials.split(':', 1);
  return { scheme, id: `${user}:${createHash('sha1').update(credentials).digest('base64')}` };
}

/** The name that whoAmI shows: without the digest of the password. */
export function displayName(identity: Identity): string {
  return identity.scheme === 'digest' ? (identity.id.split(':', 1)[0] ?? '') : identity.id;
}
