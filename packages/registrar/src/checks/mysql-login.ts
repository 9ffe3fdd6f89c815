import { createHash } from 'node:crypto';

/**
 * What a password becomes on its way to a server, by the plugin that the server asks for; undefined for one that is not
 * known here. Without a password it is empty for all of them.
 */
export function answerChallenge(
  plugin: string,
  password: string | undefined,
  challenge: Buffer,
): Buffer | undefined {
  if (password === undefined) return Buffer.alloc(0);
  switch (plugin) {
    case 'mysql_native_password':
      return scramble('sha1', password, challenge, 'challenge first');
    case 'caching_sha2_password':
      return scramble('sha256', password, challenge, 'challenge last');
    default:
      return undefined;
  }
}

/** The digest of the password, hidden behind one that only somebody can make who knows the digest of the digest. */
function scramble(
  algorithm: 'sha1' | 'sha256',
  password: string,
  challenge: Buffer,
  order: 'challenge first' | 'challenge last',
): Buffer {
  const digest = (...parts: (Buffer | string)[]) =>
    parts.reduce((hash, part) => hash.update(part), createHash(algorithm)).digest();
  const once = digest(password);
  const twice = digest(once);
  const mask = order === 'challenge first' ? digest(challenge, twice) : digest(twice, challenge);
  return Buffer.from(once.map((byte, index) => byte ^ (mask[index] ?? 0)));
}
