import { isIP } from 'node:net';

import { createDnsClient, type DnsAnswer } from './dns.ts';
import { createHostsFile } from './hosts-file.ts';
import type { Claim } from './turns.ts';

/** What the name of a host stands for. */
export interface AddressResolver {
  /**
   * Ends in reasonable time. Rejects only with the reason of the signal.
   * @param claim on whose behalf: those with many names keep nobody else waiting
   */
  resolve(name: string, signal: AbortSignal, claim?: Claim): Promise<DnsAnswer<string>>;
}

const DNS_TIMEOUT_MS = 2_000;
/** What the system's own file says is asked for again after this time. */
const HOSTS_TTL_MS = 30_000;

/**
 * By the system's file of hosts, then by the DNS; `localhost` is this host wherever nobody says otherwise (RFC 6761).
 * Not by the system's own lookup, which would also know search domains and other directories: see `createDnsClient`.
 */
export function createAddressResolver(
  options: { readonly nameservers?: readonly string[]; readonly hostsFile?: string } = {},
): AddressResolver {
  const client = createDnsClient({ nameservers: options.nameservers, timeoutMs: DNS_TIMEOUT_MS });
  const hosts = createHostsFile(options.hostsFile ?? '/etc/hosts');
  const own = (records: readonly string[]): DnsAnswer<string> => ({
    kind: 'found',
    records,
    ttlMs: HOSTS_TTL_MS,
  });
  return {
    async resolve(name, signal, claim) {
      const listed = await hosts.find(name, signal);
      const four = listed.filter((address) => isIP(address) === 4);
      if (listed.length > 0) return own(four.length > 0 ? four : listed);
      if (/(^|\.)localhost$/.test(name)) return own(['127.0.0.1']);
      return client.addresses(name, 'any', signal, claim);
    },
  };
}
