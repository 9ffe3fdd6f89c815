import { isIP } from 'node:net';

import {
  compareAddresses,
  type DnsAnswer,
  formatDuration,
  formatEndpoint,
  isTandemError,
  messageOf,
  Port,
  queryName,
  type Rank,
  systemErrorCode,
  withDeadline,
} from '@tandem/core';
import * as z from 'zod';

import { CALLED_OFF, type CheckContext, failure, type Schedule } from '../check.ts';

/** Where a network check knocks. Names are looked up by `createTarget`. */
export const addressKeys = {
  host: z
    .string()
    .transform((text, context) => {
      const host = isIP(text) === 0 ? queryName(text) : text;
      if (host !== undefined) return host;
      context.addIssue({
        code: 'custom',
        message: 'must be an IPv4 or IPv6 address, or the name of a host',
      });
      return z.NEVER;
    })
    .prefault('127.0.0.1')
    .describe('the address to probe, or a name in /etc/hosts or the DNS; of several addresses one is probed'),
  port: Port.optional().describe('the port to probe; default: the port of the service'),
};

/** Where to connect now: always a literal, so that nothing looks anything up behind it. */
export type Target =
  | { readonly ok: true; readonly host: string; readonly port: number }
  | { readonly ok: false; readonly reason: string };

export interface TargetConfig {
  /** A literal, or a name as `queryName` makes it. */
  readonly host: string;
  readonly port?: number | undefined;
  readonly schedule: Schedule;
}

/** An address stays for so long before its name is asked for again. */
const MIN_TTL_MS = 1_000;
const MAX_TTL_MS = 300_000;
/** How long a name is left alone that was not answered: with an address to go on with, and without. */
const RETRY_MS = 5_000;
const UNKNOWN_RETRY_MS = 250;
/** How much of its time a probe waits for a name at most: with an address to go on with, and without. */
const REFRESH_SHARE = 0.5;
const FIRST_SHARE = 0.9;

/** What is known of a name, and until when nobody is asked. */
type Known =
  | {
      readonly kind: 'address';
      readonly address: string;
      readonly until: number;
      readonly isDoubted: boolean;
    }
  | { readonly kind: 'unknown'; readonly reason: string; readonly until: number };

/** Checks whose names are not answered share turns, so that however many they are, others find one free. */
const UNANSWERED = {};

/**
 * What finds the place to probe, within the time and the signal of one probe. The address of a name is kept for as long
 * as the DNS says, and while that fails; one address at a time, and the same one as long as the name stands for it.
 */
export function createTarget(
  config: TargetConfig,
  { port: servicePort, resolver }: Pick<CheckContext, 'port' | 'resolver'>,
  now: () => number = () => performance.now(),
): (signal: AbortSignal) => Promise<Target> {
  const { host, port = servicePort } = config;
  if (isIP(host) !== 0) {
    const literal = Promise.resolve<Target>({ ok: true, host, port });
    return () => literal;
  }
  const own = {};
  let known: Known = { kind: 'unknown', reason: 'nobody was asked', until: -Infinity };
  let rank: Rank = 'new';

  async function ask(signal: AbortSignal): Promise<DnsAnswer<string>> {
    const share = known.kind === 'address' ? REFRESH_SHARE : FIRST_SHARE;
    const limitMs = Math.ceil(config.schedule.timeoutMs * share);
    try {
      return await withDeadline(signal, limitMs, (signal) =>
        resolver.resolve(host, signal, { by: rank === 'failing' ? UNANSWERED : own, rank }),
      );
    } catch (error) {
      if (!signal.aborted && !isTandemError(error, 'DEADLINE_EXCEEDED')) throw error;
      return { kind: 'failed', reason: `no nameserver has answered within ${formatDuration(limitMs)}` };
    }
  }

  return async (signal) => {
    if (now() >= known.until) {
      const answer = await ask(signal);
      if (signal.aborted) return CALLED_OFF;
      known = learn(known, answer, now());
      rank = answer.kind === 'failed' ? 'failing' : 'known';
    }
    return known.kind === 'address'
      ? { ok: true, host: known.address, port }
      : failure(`the name ${host} does not resolve: ${known.reason}`);
  };
}

/**
 * A nameserver that fails has said nothing, so the address stays. That there is no such name is believed when it is said
 * twice: a server that has just lost its zone says so, too.
 */
function learn(known: Known, answer: DnsAnswer<string>, now: number): Known {
  switch (answer.kind) {
    case 'found': {
      const addresses = answer.records.filter((record) => isIP(record) !== 0).toSorted(compareAddresses);
      const stays = known.kind === 'address' && addresses.includes(known.address);
      const address = stays ? known.address : addresses[0];
      if (address === undefined) return learn(known, NO_ADDRESS, now);
      const ttlMs = Math.max(MIN_TTL_MS, Math.min(answer.ttlMs, MAX_TTL_MS));
      return { kind: 'address', address, until: now + ttlMs, isDoubted: false };
    }
    case 'none':
      return known.kind === 'address' && !known.isDoubted
        ? { ...known, until: now + MIN_TTL_MS, isDoubted: true }
        : { kind: 'unknown', reason: answer.reason, until: now + MIN_TTL_MS };
    case 'failed':
      return known.kind === 'address'
        ? { ...known, until: now + RETRY_MS }
        : { kind: 'unknown', reason: answer.reason, until: now + UNKNOWN_RETRY_MS };
  }
}

const NO_ADDRESS = { kind: 'none', reason: 'no address stands for it' } as const;
/** What a service is called towards itself, such as `web.example:80`. The zone of an address means nothing there. */
export function authorityOf(host: string, port: number): string {
  return formatEndpoint({ host: host.replace(/%.*/, ''), port });
}

/** Why a connection did not come about or broke, in the words of an operator. */
export function connectionReason(error: unknown): string {
  switch (systemErrorCode(error)) {
    case 'ECONNREFUSED':
      return 'connection refused';
    case 'ECONNRESET':
    case 'EPIPE':
      return 'connection closed by the service';
    case 'ETIMEDOUT':
      return 'connection timed out';
    case 'EHOSTUNREACH':
      return 'host unreachable';
    case 'ENETUNREACH':
      return 'network unreachable';
    case 'EADDRNOTAVAIL':
      return 'no local address or port to connect from';
    case 'EMFILE':
    case 'ENFILE':
      return 'too many open files';
    default:
      return messageOf(error);
  }
}
