import { createHash, createHmac, pbkdf2, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';

import { type Part, work } from './dialogue.ts';

const derive = promisify(pbkdf2);

/** A server that asks for more would only make us work. */
const MAX_ITERATIONS = 1_000_000;
const PART = '([^,]+)';
const FIRST = new RegExp(`^r=${PART},s=${PART},i=([0-9]{1,8})(?:,.*)?$`);

export type Scram =
  { readonly ok: true; readonly text: string } | { readonly ok: false; readonly reason: string };

/** The work that a password makes is done once for as long as the server keeps its salt. */
export interface ScramMemory {
  last?: { readonly key: string; readonly salted: Buffer };
}

/** One login by SCRAM-SHA-256 (RFC 7677), without channel binding. */
export interface ScramLogin {
  readonly first: string;
  /** What is said to the first answer of the server. */
  proof(answer: string): Part<Scram>;
  /** Whether the server has shown that it knows the password, too. */
  isConfirmed(answer: string): boolean;
}

export function createScram(password: string, nonce: string, memory: ScramMemory): ScramLogin {
  const own = `n=,r=${nonce}`;
  let confirmation: Buffer | undefined;

  function* salt(text: string, iterations: number): Part<Buffer> {
    const key = `${iterations} ${text} ${password}`;
    if (memory.last?.key === key) return memory.last.salted;
    // Of SASLprep only what makes a difference for passwords that people have.
    const salted = yield* work(() =>
      derive(password.normalize('NFKC'), Buffer.from(text, 'base64'), iterations, 32, 'sha256'),
    );
    memory.last = { key, salted };
    return salted;
  }

  return {
    first: `n,,${own}`,
    *proof(answer) {
      const [, both = '', saltText = '', count = ''] = FIRST.exec(answer) ?? [];
      const iterations = Number(count);
      if (!both.startsWith(nonce) || both === nonce || iterations < 1)
        return { ok: false, reason: 'the server does not speak SCRAM as it should' };
      if (iterations > MAX_ITERATIONS)
        return {
          ok: false,
          reason: `the server asks for ${iterations} iterations, more than ${MAX_ITERATIONS}`,
        };
      const salted = yield* salt(saltText, iterations);
      const clientKey = hmac(salted, 'Client Key');
      const final = `c=biws,r=${both}`;
      const message = `${own},${answer},${final}`;
      confirmation = hmac(hmac(salted, 'Server Key'), message);
      const mask = hmac(createHash('sha256').update(clientKey).digest(), message);
      const proof = Buffer.from(clientKey.map((byte, index) => byte ^ (mask[index] ?? 0)));
      return { ok: true, text: `${final},p=${proof.toString('base64')}` };
    },
    isConfirmed(answer) {
      const shown = Buffer.from(/^v=([^,]+)/.exec(answer)?.[1] ?? '', 'base64');
      return confirmation?.length === shown.length && timingSafeEqual(confirmation, shown);
    },
  };
}

function hmac(key: Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest();
}
