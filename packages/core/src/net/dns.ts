import { Resolver } from 'node:dns/promises';
import { setMaxListeners } from 'node:events';
import { isIP } from 'node:net';

import { withDeadline } from '../deadline.ts';
import { messageOf, systemErrorCode } from '../errors.ts';
import { type Claim, createTurns } from './turns.ts';

/**
 * What the DNS says of a name. Failures are not answers: nothing is known then, and what was known holds.
 * That a name does not exist, or has no records of the kind, is an answer (RCODE 3, or RCODE 0 without records), in
 * difference to servers that fail, refuse or are silent. The library does not show whether a zone's SOA came with it,
 * as one of a zone's own servers has to send it (RFC 2308), so whoever acts on it asks twice.
 */
export type DnsAnswer<T> =
  | { readonly kind: 'found'; readonly records: readonly T[]; readonly ttlMs: number }
  | { readonly kind: 'none'; readonly reason: string }
  | { readonly kind: 'failed'; readonly reason: string };

/** `any`: IPv4 where there is some, else IPv6, so that a host with both is one instance. */
export const FAMILIES = ['any', 'ipv4', 'ipv6', 'both'] as const;
export type Family = (typeof FAMILIES)[number];

export interface ServiceRecord {
  readonly target: string;
  readonly port: number;
  readonly priority: number;
  readonly weight: number;
}

export interface DnsClient {
  /** The addresses of a name, in order. Rejects only with the reason of the signal. */
  addresses(name: string, family: Family, signal: AbortSignal, claim?: Claim): Promise<DnsAnswer<string>>;
  /** The SRV records of a name. Rejects only with the reason of the signal. */
  services(name: string, signal: AbortSignal): Promise<DnsAnswer<ServiceRecord>>;
}

export interface DnsOptions {
  /** `10.0.0.2`, `10.0.0.2:53` or `[::1]:53`. Default: the system's. */
  readonly nameservers?: readonly string[] | undefined;
  /** How long each try waits for a server. */
  readonly timeoutMs: number;
}

const TRIES = 2;
/** Nobody has more than half of them: see `createTurns`. */
const MAX_IN_FLIGHT = 128;
/** The library shows no TTL of SRV records; those who change them mean to be heard soon. */
const SRV_TTL_MS = 10_000;

/** No query takes longer, however many servers there are. */
const QUERY_LIMIT_MS = 15_000;

/**
 * The name to ask for, or undefined where the text is not the name of a host: such text is never looked up. Letters,
 * digits, hyphens and the underscores that are in use; nothing that somebody could take for a number.
 */
export function queryName(text: string): string | undefined {
  const name = text.toLowerCase().replace(/\.$/, '');
  const isName = name.length <= 253 && name.split('.').every((label) => LABEL.test(label));
  return isName && !/(^|\.)(\d+|0x[0-9a-f]*)$/.test(name) ? name : undefined;
}

const LABEL = /^(?!-)[a-z0-9_-]{1,63}(?<!-)$/;

/**
 * Asks by the library's own queries, never by the system's lookup: that one can be neither ended nor given a limit, and
 * while it waits it holds one of the four threads that files are read with. So names are taken as they stand, without
 * the search domains of the system.
 */
export function createDnsClient({ nameservers, timeoutMs }: DnsOptions): DnsClient {
  const enter = createTurns(MAX_IN_FLIGHT);
  const anybody: Claim = { by: {}, rank: 'known' };

  /** One resolver for each query: it can be ended by itself, and knows the system's nameservers of today. */
  async function query<T>(
    { signal, claim = anybody }: { signal: AbortSignal; claim?: Claim | undefined },
    ask: (resolver: Resolver) => Promise<T[]>,
    toAnswer: (records: T[]) => DnsAnswer<T>,
  ): Promise<DnsAnswer<T>> {
    // One signal may end many queries.
    setMaxListeners(0, signal);
    const leave = await enter(claim, signal);
    const resolver = new Resolver({ timeout: timeoutMs, tries: TRIES });
    try {
      if (nameservers !== undefined) resolver.setServers(nameservers);
      const records = await withDeadline(signal, QUERY_LIMIT_MS, () => ask(resolver));
      return records.length === 0 ? NO_RECORDS : toAnswer(records);
    } catch (error) {
      signal.throwIfAborted();
      return explain(error);
    } finally {
      resolver.cancel();
      leave();
    }
  }

  async function ofFamily(
    name: string,
    family: 4 | 6,
    asking: { signal: AbortSignal; claim: Claim | undefined },
  ): Promise<DnsAnswer<string>> {
    const answer = await query(
      asking,
      (resolver) =>
        family === 4 ? resolver.resolve4(name, { ttl: true }) : resolver.resolve6(name, { ttl: true }),
      (records) => ({
        kind: 'found',
        records,
        ttlMs: 1_000 * Math.min(...records.map(({ ttl }) => ttl)),
      }),
    );
    if (answer.kind !== 'found') return answer;
    const addresses = new Set(answer.records.map(({ address }) => address));
    return { ...answer, records: [...addresses].toSorted(compareAddresses) };
  }

  return {
    async addresses(name, family, signal, claim) {
      const asking = { signal, claim };
      if (family === 'ipv4') return ofFamily(name, 4, asking);
      if (family === 'ipv6') return ofFamily(name, 6, asking);
      if (family === 'both') {
        const [four, six] = await Promise.all([ofFamily(name, 4, asking), ofFamily(name, 6, asking)]);
        return together(four, six);
      }
      const four = await ofFamily(name, 4, asking);
      return four.kind === 'none' ? ofFamily(name, 6, asking) : four;
    },
    services: (name, signal) =>
      query(
        { signal },
        async (resolver) =>
          (await resolver.resolveSrv(name)).map(({ name: target, port, priority, weight }) => ({
            target,
            port,
            priority,
            weight,
          })),
        (records) => ({ kind: 'found', records, ttlMs: SRV_TTL_MS }),
      ),
  };
}

const NO_RECORDS = { kind: 'none', reason: 'the name has no such records' } as const;

/** Half of an answer is none: the other half would look as if it had gone. */
function together(a: DnsAnswer<string>, b: DnsAnswer<string>): DnsAnswer<string> {
  if (a.kind === 'failed' || b.kind === 'none') return a;
  if (b.kind === 'failed' || a.kind === 'none') return b;
  return { kind: 'found', records: [...a.records, ...b.records], ttlMs: Math.min(a.ttlMs, b.ttlMs) };
}

function explain(error: unknown): DnsAnswer<never> {
  const code = systemErrorCode(error);
  switch (code) {
    case 'ENOTFOUND':
      return { kind: 'none', reason: 'the name does not exist' };
    case 'ENODATA':
      return NO_RECORDS;
    case 'ESERVFAIL':
      return { kind: 'failed', reason: 'the nameserver has failed' };
    case 'EREFUSED':
      return { kind: 'failed', reason: 'the nameserver refuses to answer' };
    case 'ETIMEOUT':
      return { kind: 'failed', reason: 'no nameserver answers in time' };
    case 'ECONNREFUSED':
      return { kind: 'failed', reason: 'no nameserver can be reached' };
    default:
      return { kind: 'failed', reason: messageOf(error) };
  }
}

/** IPv4 first, and by number; the same order wherever it is made. */
export function compareAddresses(a: string, b: string): number {
  const [keyA, keyB] = [addressKey(a), addressKey(b)];
  return keyA === keyB ? 0 : keyA < keyB ? -1 : 1;
}

function addressKey(address: string): string {
  if (isIP(address) !== 4) return `6 ${address}`;
  return `4 ${address
    .split('.')
    .map((part) => part.padStart(3, '0'))
    .join('.')}`;
}
