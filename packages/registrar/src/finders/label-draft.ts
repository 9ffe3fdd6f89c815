import type { LabelMap, LabelValue } from './label-values.ts';

/** Why a label cannot be used, and what to do about it. */
export interface Refusal {
  readonly reason: string;
  readonly remedy?: string | undefined;
}

export type LabelRefusal = Refusal & { readonly label: string };

export interface DraftOptions {
  /** Whether a check may run a program on the host. */
  readonly allowCommands: boolean;
}

const MAX_KEY_LENGTH = 256;
const MAX_VALUE_LENGTH = 1_024;
const KEY_PART = /^[A-Za-z0-9_/-]{1,128}$/;

/** What the labels of a service say, key by key. */
export interface Draft {
  readonly register: LabelMap;
  readonly checks: readonly DraftCheck[];
  readonly refusals: readonly LabelRefusal[];
  readonly ignoresHealth: boolean;
  add(label: string, value: unknown): void;
}

interface DraftCheck {
  readonly kind: string;
  /** Such as `check`, or `check.1` where there are several of a kind. */
  readonly key: string;
  readonly keys: LabelMap;
}

/** @param prefix of the labels of the service, such as `tandem.1.` */
export function createDraft(prefix: string, options: DraftOptions): Draft {
  const register: LabelMap = {};
  const checks = new Map<string, DraftCheck>();
  const refusals: LabelRefusal[] = [];
  let ignoresHealth = false;

  function addCheck(parts: readonly string[], value: string): Refusal | undefined {
    const [first = '', ...more] = parts;
    const isNumbered = /^\d{1,2}$/.test(first);
    const [kind = '', ...keys] = isNumbered ? more : parts;
    const key = isNumbered ? `check.${first}` : 'check';
    if (kind === '') return { reason: 'names no kind of check', remedy: `Write ${prefix}check.KIND.KEY` };
    if (kind === 'container') {
      if (keys.length > 0 || (value !== 'true' && value !== 'false'))
        return { reason: `must be true or false, found ${JSON.stringify(value)}` };
      ignoresHealth = value === 'false';
      return undefined;
    }
    const refused = refuseCheck(kind, keys, options);
    if (refused !== undefined) return refused;
    const at = `${key}.${kind}`;
    const check = checks.get(at) ?? { kind, key, keys: {} };
    checks.set(at, check);
    if (keys.length > 0) return put(check.keys, keys, value);
    // `tandem.check.tcp=` asks for one with nothing to say.
    return value === '' || value === 'true'
      ? undefined
      : { reason: 'takes no value', remedy: `Leave it empty, or write ${prefix}${at}.KEY` };
  }

  function take(label: string, value: unknown): Refusal | undefined {
    const unreadable = refuseText(label, value);
    if (unreadable !== undefined) return unreadable;
    const parts = label.slice(prefix.length).split('.');
    const [first = '', ...rest] = parts;
    const text = value as string;
    if (first === 'labels')
      return put(register, ['labels', ...(rest.length === 0 ? [] : [rest.join('.')])], text);
    if (!parts.every((part) => KEY_PART.test(part) && part !== '__proto__'))
      return { reason: 'is not made of words of letters, digits, "_", "/" and "-" between its dots' };
    if (first === 'check') return addCheck(rest, text);
    if (first === 'checks')
      return {
        reason: 'is not known here',
        remedy: `Write ${prefix}check.KIND.KEY, such as ${prefix}check.http.path`,
      };
    return namesFile(parts) ? FILE_REFUSAL : put(register, parts, text);
  }

  return {
    register,
    // By their labels, which are in order.
    get checks() {
      return [...checks.values()];
    },
    refusals,
    get ignoresHealth() {
      return ignoresHealth;
    },
    add(label, value) {
      const refusal = take(label, value);
      if (refusal !== undefined) refusals.push({ label, ...refusal });
    },
  };
}

function refuseText(label: string, value: unknown): Refusal | undefined {
  if (label.length > MAX_KEY_LENGTH) return { reason: `is longer than ${MAX_KEY_LENGTH} characters` };
  if (typeof value !== 'string') return { reason: 'has a value that is not text' };
  if (value.length > MAX_VALUE_LENGTH)
    return { reason: `has a value of more than ${MAX_VALUE_LENGTH} characters` };
  return /\p{Cc}/u.test(label + value) ? { reason: 'holds control characters' } : undefined;
}

const FILE_REFUSAL: Refusal = {
  reason: 'names a file of the host, which a label must not',
  remedy: 'Register the service with a service file instead',
};

/** A label comes with an image: it must not make the registrar read files or run programs. */
function namesFile(keys: readonly string[]): boolean {
  return keys.some((key) => /(?:^|_)(?:files?|dir|directory|socket)$/.test(key));
}

function refuseCheck(kind: string, keys: readonly string[], options: DraftOptions): Refusal | undefined {
  if (kind === 'command')
    return options.allowCommands
      ? undefined
      : {
          reason: 'runs a program on the host, which a label must not',
          remedy: 'Give the container a HEALTHCHECK, or set registrar.docker.allow_commands: true',
        };
  if (kind === 'push')
    return {
      reason: 'knows services by their names only, and several containers may have one',
      remedy: 'Give the container a HEALTHCHECK',
    };
  return namesFile(keys) ? FILE_REFUSAL : undefined;
}

/** Puts a text where its keys lead. Labels come in order: a longer one comes after the one that it continues. */
function put(map: LabelMap, keys: readonly string[], text: string): Refusal | undefined {
  const [key = '', ...rest] = keys;
  const there = Object.hasOwn(map, key) ? map[key] : undefined;
  if (rest.length === 0) {
    define(map, key, text);
    return undefined;
  }
  if (there === undefined || there === '') {
    const inner: LabelMap = {};
    define(map, key, inner);
    return put(inner, rest, text);
  }
  if (typeof there === 'object' && !Array.isArray(there)) return put(there, rest, text);
  return { reason: 'goes on where another label ends', remedy: 'Remove one of the two' };
}

/** A label may be called `__proto__`. */
function define(map: LabelMap, key: string, value: LabelValue): void {
  Object.defineProperty(map, key, { value, enumerable: true, configurable: true, writable: true });
}
