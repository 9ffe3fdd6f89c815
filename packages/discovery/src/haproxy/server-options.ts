import type { InstanceOption } from '../config/discover.ts';
import type { Proxy, Structure } from './structure.ts';

/** What an announcement says of its own server line, once it has been understood. */
export interface OwnOptions {
  /** Undefined when it says nothing of it. */
  readonly weight: number | undefined;
  /** Written anew from what was understood: the same meaning is always the same text. */
  readonly text: string;
  /** Why some of its words were set aside. */
  readonly complaints: readonly string[];
}

/** Every host that follows the service probes it: more often than this is an attack. */
const MIN_CHECK_MS = 100;
const DAY_MS = 24 * 3_600_000;
const UNIT_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: DAY_MS,
};
const MAX_WORDS = 40;

interface ValueRule {
  readonly parse: (word: string) => string | undefined;
  readonly greatest: string;
}

const whole = (min: number, max: number): ValueRule => ({
  parse: (word) => {
    const value = /^\d{1,9}$/.test(word) ? Number(word) : Number.NaN;
    return value >= min && value <= max ? String(value) : undefined;
  },
  greatest: String(max),
});
/** HAProxy takes a number without a unit for milliseconds. */
const time = (minMs: number): ValueRule => ({
  parse: (word) => {
    const match = /^(\d{1,9})(ms|s|m|h|d)?$/.exec(word);
    const ms = Number(match?.[1]) * (UNIT_MS[match?.[2] ?? 'ms'] ?? Number.NaN);
    return ms >= minMs && ms <= DAY_MS ? `${ms}ms` : undefined;
  },
  greatest: `${DAY_MS}ms`,
});

/** The words an announcement may use: by which option they are allowed, and what follows them. */
const GRAMMAR: ReadonlyMap<string, { readonly option: InstanceOption; readonly value?: ValueRule }> = new Map(
  [
    ['weight', { option: 'weight', value: whole(0, 256) }],
    ['backup', { option: 'backup' }],
    ['maxconn', { option: 'maxconn', value: whole(0, 1_000_000) }],
    ['slowstart', { option: 'slowstart', value: time(0) }],
    ['send-proxy', { option: 'send-proxy' }],
    ['send-proxy-v2', { option: 'send-proxy' }],
    ['check', { option: 'check' }],
    ['inter', { option: 'check', value: time(MIN_CHECK_MS) }],
    ['fastinter', { option: 'check', value: time(MIN_CHECK_MS) }],
    ['downinter', { option: 'check', value: time(MIN_CHECK_MS) }],
    ['rise', { option: 'check', value: whole(1, 1_000) }],
    ['fall', { option: 'check', value: whole(1, 1_000) }],
  ],
);

/**
 * Reads `haproxy_server_options` of an announcement. It is text from the registry: nothing of it is passed on but the
 * numbers in it and the words of the grammar, and what is not understood or not allowed is set aside, word by word.
 * As in HAProxy, the last of two equal words counts.
 */
export function parseServerOptions(text: string, accepted: readonly InstanceOption[]): OwnOptions {
  const words = text.split(/\s+/, MAX_WORDS + 1).filter((word) => word !== '');
  if (words.length > MAX_WORDS)
    return { weight: undefined, text: '', complaints: [`more than ${MAX_WORDS} words`] };
  const found = new Map<string, string>();
  const complaints: string[] = [];
  for (let index = 0; index < words.length; index += 1) {
    const word = words[index] ?? '';
    const rule = GRAMMAR.get(word);
    if (rule === undefined) complaints.push(`${quoted(word)} is not one of those an instance may set`);
    else if (rule.value === undefined) found.set(word, '');
    else {
      index += 1;
      const value = rule.value.parse(words[index] ?? '');
      if (value === undefined) complaints.push(`${word} has no value that makes sense`);
      else found.set(word, value);
    }
    if (rule !== undefined && !accepted.includes(rule.option) && found.delete(word))
      complaints.push(`${word} is not allowed here`);
  }
  // The newer protocol covers the older one; a line with both would depend on their order.
  if (found.has('send-proxy-v2')) found.delete('send-proxy');
  const weight = found.get('weight');
  const own = [...GRAMMAR.keys()].filter((word) => word !== 'weight' && found.has(word));
  return {
    weight: weight === undefined ? undefined : Number(weight),
    text: own.map((word) => `${word} ${found.get(word) ?? ''}`.trim()).join(' '),
    complaints,
  };
}

/** The most that an announcement can make of what it may set: whoever takes this takes every part of it. */
export function fullestOptions(accepted: readonly InstanceOption[]): string {
  const words = [...GRAMMAR]
    .filter(([, { option }]) => accepted.includes(option))
    .map(([word, { value }]) => (value === undefined ? word : `${word} ${value.greatest}`));
  return parseServerOptions(words.join(' '), accepted).text;
}

/** Hostile text is not repeated where somebody may print it. */
function quoted(word: string): string {
  return /^[A-Za-z0-9-]{1,32}$/.test(word) ? word : 'a word that is none';
}

/** What has to be switched on for a new server, because HAProxy does so only for those in its file. */
export function checksOf(serverOptions: string): ('health' | 'agent')[] {
  const words = serverOptions.split(' ');
  return [
    ...(words.includes('check') ? ['health' as const] : []),
    ...(words.includes('agent-check') ? ['agent' as const] : []),
  ];
}

/**
 * The structure without the server options that change nothing where they stand: a server's `cookie` in a backend
 * that sets none. Up to 2.8 no server can have one at run time, so that every newcomer would cost a reload.
 */
export function withoutIdleOptions(structure: Structure): Structure {
  const isCookieLine = (line: string) => /^\s*cookie\s/.test(line);
  const hasDefault = structure.defaults.some(isCookieLine);
  const proxies = structure.proxies.map((proxy) =>
    hasDefault || proxy.backendLines.some(isCookieLine) ? proxy : withoutCookie(proxy),
  );
  return proxies.every((proxy, index) => proxy === structure.proxies[index])
    ? structure
    : { ...structure, proxies };
}

function withoutCookie(proxy: Proxy): Proxy {
  const serverOptions = withoutCookieWords(proxy.serverOptions);
  return serverOptions === proxy.serverOptions ? proxy : { ...proxy, serverOptions };
}

/** What a backend without a cookie line makes of these options. */
export function withoutCookieWords(options: string): string {
  return options.replace(/(?:^| )cookie \S+(?= |$)/g, '').trim();
}

/** The line of a backend that keeps servers from being added at run time (HAProxy reference 1.2), if there is one. */
export function staticLine({ backendLines }: Pick<Proxy, 'backendLines'>): string | undefined {
  const last = (keyword: string) =>
    backendLines.map((line) => line.trim()).findLast((line) => line.split(/\s+/)[0] === keyword);
  const [balance, hash] = [last('balance'), last('hash-type')];
  if (balance !== undefined && /^balance\s+static-rr\b/.test(balance)) return balance;
  if (hash !== undefined && /^hash-type\s+map-based\b/.test(hash)) return hash;
  return backendLines
    .map((line) => line.trim())
    .find((line) => /^(option\s+transparent|transparent)\b/.test(line));
}
