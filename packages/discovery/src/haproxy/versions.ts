import { TandemError } from '@tandem/core';

/**
 * What a version of HAProxy can do at run time, as far as Tandem's work depends on it (HAProxy reference 1). How a
 * newcomer waits for its first check is no matter of versions: all of them check a server in maintenance once they are
 * told `enable health`, while `init-state` is there from 3.1 on only.
 */
export interface Abilities {
  /** What `add server` takes, with the number of words that follow each. */
  readonly serverOptions: ReadonlyMap<string, number>;
  /** Whether a drained server may be deleted. Before 3.0 that can crash HAProxy: there it stays as a tombstone. */
  readonly deletesDrained: boolean;
  /** How many servers without a place in the catalog a backend may keep until a reload clears them away. */
  readonly maxTombstones: number;
}

/** Written `word` or `word/number of words that follow`. Everything 2.6 takes was tried on 2.6.12. */
const SINCE_2_6 = `
  check inter/1 fastinter/1 downinter/1 rise/1 fall/1 port/1 addr/1 check-ssl check-sni/1 check-alpn/1 check-proto/1
  check-send-proxy check-via-socks4 weight/1 backup no-backup ssl verify/1 verifyhost/1 ca-file/1 crl-file/1 crt/1
  sni/1 alpn/1 npn/1 ciphers/1 ciphersuites/1 ssl-min-ver/1 ssl-max-ver/1 no-sslv3 no-tlsv10 no-tlsv11 no-tlsv12
  no-tlsv13 force-sslv3 force-tlsv10 force-tlsv11 force-tlsv12 force-tlsv13 tls-tickets no-tls-tickets no-ssl-reuse
  allow-0rtt send-proxy no-send-proxy send-proxy-v2 no-send-proxy-v2 send-proxy-v2-ssl send-proxy-v2-ssl-cn
  proxy-v2-options/1 track/1 slowstart/1 maxconn/1 minconn/1 maxqueue/1 id/1 observe/1 on-error/1 error-limit/1
  on-marked-down/1 on-marked-up/1 agent-check agent-port/1 agent-addr/1 agent-inter/1 agent-send/1 proto/1 ws/1
  source/1 usesrc/1 interface/1 tfo no-tfo pool-max-conn/1 pool-purge-delay/1 pool-low-conn/1`;
const SINCE_2_8 = 'shard/1';
const SINCE_3_0 = 'cookie/1 guid/1 hash-key/1 set-proxy-v2-tlv-fmt/1 curves/1 sigalgs/1';
const SINCE_3_2 = 'init-state/1 idle-ping/1 strict-maxconn check-reuse-pool pool-conn-name/1';

/**
 * A tombstone costs about 5.5 KB and, in maintenance, no checks. Where they cannot be deleted, a thousand of them are
 * ten deploys of a hundred instances that all get new addresses. A reload then is the softer way: it drops nothing,
 * while nobody has fixed in Debian's 2.6 what a deletion may do to a server that something still refers to, and a crash
 * drops everything. Where they are deleted one by one, many at once are only a moment's matter.
 */
const FEW = 1_000;
const MANY = 2_000;

/**
 * The most that is sent as one request, with its payload. The same for every version, since it is written before anybody
 * has said which one will read it: beyond tune.bufsize, 16 KB, 2.6 and 2.8 crash, and 3.2 refuses the line.
 */
export const MAX_REQUEST_BYTES = 12 * 1024;

/** The newest first; a version between two rows can what the row below it can. */
const VERSIONS: readonly { readonly since: readonly [number, number]; readonly abilities: Abilities }[] = [
  row([3, 2], [SINCE_2_6, SINCE_2_8, SINCE_3_0, SINCE_3_2], { deletesDrained: true, maxTombstones: MANY }),
  row([3, 0], [SINCE_2_6, SINCE_2_8, SINCE_3_0], { deletesDrained: true, maxTombstones: MANY }),
  row([2, 8], [SINCE_2_6, SINCE_2_8], { deletesDrained: false, maxTombstones: FEW }),
  row([2, 6], [SINCE_2_6], { deletesDrained: false, maxTombstones: FEW }),
];

function row(
  since: readonly [number, number],
  words: readonly string[],
  others: Omit<Abilities, 'serverOptions'>,
): { since: readonly [number, number]; abilities: Abilities } {
  const serverOptions = words
    .flatMap((text) => text.trim().split(/\s+/))
    .map((entry): [string, number] => {
      const [word = '', count = '0'] = entry.split('/');
      return [word, Number(count)];
    });
  return { since, abilities: { ...others, serverOptions: new Map(serverOptions) } };
}

/** Throws `HAPROXY_TOO_OLD` for a version such as `2.4.22`, whose runtime API cannot add servers. */
export function abilitiesOf(version: string): Abilities {
  const match = /^(\d+)\.(\d+)/.exec(version);
  const [major, minor] = [Number(match?.[1]), Number(match?.[2])];
  const found = VERSIONS.find(
    ({ since }) => major > since[0] || (major === since[0] && minor >= since[1]),
  )?.abilities;
  if (found !== undefined) return found;
  throw new TandemError(
    'HAPROXY_TOO_OLD',
    `HAProxy ${version} cannot add servers at run time. Install 2.6 or later, or set haproxy.binary`,
  );
}

/** The first of these options that no server can be given at run time; undefined when it can have all of them. */
export function staticOption(options: string, { serverOptions }: Abilities): string | undefined {
  const words = options === '' ? [] : options.split(' ');
  for (let index = 0; index < words.length; index += 1) {
    const word = words[index] ?? '';
    const following = serverOptions.get(word);
    if (following === undefined) return word;
    index += following;
  }
  return undefined;
}
