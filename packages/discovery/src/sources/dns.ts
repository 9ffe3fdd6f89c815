import { isIP } from 'node:net';

import {
  createBackoff,
  createDnsClient,
  type DnsAnswer,
  type DnsClient,
  duration,
  FAMILIES,
  type Family,
  type Instance,
  type Log,
  Port,
  queryName,
  type Rejection,
  type ServiceRecord,
  sleepOrAborted,
  uniqueInstances,
} from '@tandem/core';
import * as z from 'zod';

import { publishedBy, reuseRecords, type Source, toldOnce } from '../source.ts';

const QueryName = z
  .string()
  .refine((text) => isIP(text) !== 0 || queryName(text) !== undefined, 'must be the name of a host');

/** One entry of `names`: a host with a port, or a service of which the DNS knows both. */
const NameSection = z
  .strictObject({
    host: QueryName.optional().describe('a name with A or AAAA records, each of which is an instance'),
    port: Port.optional().describe('of every instance of that host'),
    srv: QueryName.optional().describe('a name with SRV records, such as _http._tcp.web.example.com'),
    weight: z.number().int().min(0).max(256).optional().describe('of every instance of that host'),
    labels: z.record(z.string(), z.string()).optional().describe('of every instance that is found there'),
  })
  .transform(({ host, port, srv, weight, labels }, context) => {
    const common = labels === undefined ? {} : { labels };
    if (srv === undefined && host !== undefined && port !== undefined)
      return { kind: 'host', host, port, ...(weight === undefined ? {} : { weight }), ...common } as const;
    if (srv !== undefined && host === undefined && port === undefined && weight === undefined)
      return { kind: 'srv', srv, ...common } as const;
    const message = 'must have either host and port, or srv, which says of each instance its port and weight';
    context.addIssue({ code: 'custom', message });
    return z.NEVER;
  });

/** `10.0.0.2`, `10.0.0.2:53` or `[::1]:53`, as the library takes it. */
const Nameserver = z.string().refine((text) => {
  if (isIP(text) !== 0) return true;
  const [, four = '', six = '', port] = /^(?:([0-9.]+)|\[([0-9a-f:.]+)\]):(\d{1,5})$/i.exec(text) ?? [];
  return (isIP(four) === 4 || isIP(six) === 6) && Port.safeParse(Number(port)).success;
}, 'must be an address, such as 10.0.0.2, 10.0.0.2:53 or [::1]:53');

/** `dns`: what names stand for. */
export const DnsSection = z
  .strictObject({
    names: z
      .array(NameSection)
      .min(1)
      .describe('the instances of all of them together are those of the service'),
    family: z
      .enum(FAMILIES)
      .default('any')
      .describe('which addresses of a host; any: IPv4 where there is some, else IPv6'),
    nameservers: z.array(Nameserver).min(1).optional().describe("default: the system's"),
    min_ttl: duration({ minMs: 100, maxMs: 3_600_000 })
      .prefault('1s')
      .describe('names are not asked for more often, whatever their TTL'),
    max_ttl: duration({ minMs: 100, maxMs: 24 * 3_600_000 })
      .prefault('1m')
      .describe('names are not asked for less often, whatever their TTL'),
    timeout: duration({ minMs: 50, maxMs: 10_000 })
      .prefault('2s')
      .describe('how long each of two tries waits for a nameserver'),
  })
  .refine((section) => section.min_ttl <= section.max_ttl, {
    path: ['min_ttl'],
    message: 'must not be longer than max_ttl',
  })
  .transform(({ names, family, nameservers, min_ttl: minTtlMs, max_ttl: maxTtlMs, timeout: timeoutMs }) => ({
    names,
    family,
    nameservers,
    minTtlMs,
    maxTtlMs,
    timeoutMs,
  }));

export type DnsConfig = z.output<typeof DnsSection>;
type NameConfig = DnsConfig['names'][number];

/** What one name stands for. */
interface Part {
  readonly instances: readonly Instance[];
  readonly rejected: readonly Rejection[];
}

/**
 * The instances of several names, each asked for again when its TTL has run out. A name that cannot be asked for keeps
 * what it last stood for; as long as one of them has never been answered nothing is said, since it would be a part. A
 * name stands for nothing when the DNS has said so twice in a row: servers that have just started say it once.
 */
export function dnsSource(config: DnsConfig, log: Log): Source {
  return {
    watch: (signal) =>
      publishedBy(signal, async (publish, signal) => {
        const client = createDnsClient(config);
        const parts = new Map<number, Part>();
        let shown: ReturnType<typeof reuseRecords> | undefined;
        const update = (index: number, part: Part) => {
          parts.set(index, part);
          if (parts.size < config.names.length) return;
          const inOrder = config.names.flatMap((_, position) => parts.get(position) ?? []);
          const merged = {
            instances: uniqueInstances(inOrder.flatMap(({ instances }) => instances)),
            rejected: inOrder.flatMap(({ rejected }) => rejected),
          };
          const snapshot = reuseRecords(shown, merged);
          if (snapshot === shown) return;
          shown = snapshot;
          publish(snapshot);
        };
        await Promise.all(
          config.names.map((name, index) =>
            followName({ name, client, config, log, signal }, (part) => update(index, part)),
          ),
        );
      }),
  };
}

interface Following {
  readonly name: NameConfig;
  readonly client: DnsClient;
  readonly config: DnsConfig;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** Asks for one name until the signal ends. Never rejects for what a nameserver does. */
async function followName(following: Following, update: (part: Part) => void): Promise<void> {
  const { name, config, log, signal } = following;
  const { minTtlMs, maxTtlMs } = config;
  const text = name.kind === 'srv' ? name.srv : name.host;
  const backoff = createBackoff({ baseMs: minTtlMs, maxMs: Math.min(maxTtlMs, 30_000) });
  let reason = '';
  const say = toldOnce((trouble) => {
    if (trouble === undefined) log.info({ name: text }, 'a name is answered again');
    else log.warn({ name: text, reason }, 'a name is not answered, keeping what it last stood for');
  });
  const askTargets = createTargets(following);
  let nones = 0;
  for (;;) {
    const answer = await ask(following, askTargets).catch((error: unknown) => {
      if (!signal.aborted) throw error;
    });
    if (answer === undefined) return;
    nones = answer.kind === 'none' ? nones + 1 : 0;
    if (answer.kind === 'failed') {
      // Which of its troubles a nameserver has may change all the time.
      ({ reason } = answer);
      say('failing');
    } else {
      say(undefined);
      backoff.reset();
    }
    if (answer.kind === 'found') update(answer.part);
    else if (nones > 1) update({ instances: [], rejected: [] });
    // What has just been said of a name for the first time is soon asked again.
    const wanted = answer.kind === 'found' ? answer.ttlMs : nones === 1 ? minTtlMs : backoff.next();
    if (await sleepOrAborted(Math.max(minTtlMs, Math.min(wanted, maxTtlMs)), signal)) return;
  }
}

type PartAnswer =
  | { readonly kind: 'found'; readonly part: Part; readonly ttlMs: number }
  | { readonly kind: 'none' | 'failed'; readonly reason: string };

async function ask(
  { name, client, config, signal }: Following,
  askTargets: (records: readonly ServiceRecord[]) => Promise<PartAnswer>,
): Promise<PartAnswer> {
  if (name.kind === 'host') {
    const { host, port, weight, labels } = name;
    const answer = await addressesOf(client, { host, family: config.family, signal });
    if (answer.kind !== 'found') return answer;
    const instances = answer.records.map((address) => toInstance(host, address, { port, weight, labels }));
    return { kind: 'found', part: { instances, rejected: [] }, ttlMs: answer.ttlMs };
  }
  const answer = await client.services(queryName(name.srv) ?? name.srv, signal);
  if (answer.kind !== 'found') return answer;
  const found = await askTargets(answer.records);
  return found.kind === 'found' ? { ...found, ttlMs: Math.min(found.ttlMs, answer.ttlMs) } : found;
}

/**
 * Those of the most preferred priority that are anywhere, and no others: to a client they are all that counts (RFC
 * 2782), and as backups the others would weigh in subsets, guards and localities. A target that is not answered keeps
 * the addresses that it last had; one that never had any is set aside, unless it is all there is.
 */
function createTargets({ name, client, config, signal }: Following) {
  const known = new Map<string, KnownTarget>();

  async function askLevel(level: readonly ServiceRecord[]): Promise<PartAnswer> {
    const answers = await Promise.all(
      level.map(({ target }) => addressesOf(client, { host: target, family: config.family, signal })),
    );
    const weights = toWeights(level);
    const instances: Instance[] = [];
    const rejected: Rejection[] = [];
    let failure: string | undefined;
    let ttlMs = Infinity;
    for (const [index, { target, port }] of level.entries()) {
      const answer = answers[index];
      if (answer === undefined) continue;
      if (answer.kind === 'found') ttlMs = Math.min(ttlMs, answer.ttlMs);
      if (answer.kind === 'failed') failure = answer.reason;
      const next = nextTarget(known.get(target), answer);
      known.set(target, next);
      const options = { port, weight: weights?.[index], labels: name.labels };
      for (const address of next.addresses) instances.push(toInstance(target, address, options));
      if (next.addresses.length === 0 && answer.kind !== 'found')
        rejected.push({ place: `${target}:${port}`, reason: answer.reason });
    }
    if (instances.length > 0) return { kind: 'found', part: { instances, rejected }, ttlMs };
    return failure === undefined ? NO_TARGETS : { kind: 'failed', reason: failure };
  }

  return async (records: readonly ServiceRecord[]): Promise<PartAnswer> => {
    for (const target of known.keys())
      if (!records.some((record) => record.target === target)) known.delete(target);
    for (const priority of [...new Set(records.map((record) => record.priority))].toSorted((a, b) => a - b)) {
      const answer = await askLevel(records.filter((record) => record.priority === priority));
      if (answer.kind !== 'none') return answer;
    }
    return NO_TARGETS;
  };
}

const NO_TARGETS = { kind: 'none', reason: 'no target of the service has an address' } as const;

interface KnownTarget {
  readonly addresses: readonly string[];
  /** How often in a row the DNS has said that there are none. */
  readonly nones: number;
}

function nextTarget(before: KnownTarget | undefined, answer: DnsAnswer<string>): KnownTarget {
  const { addresses, nones } = before ?? { addresses: [], nones: 0 };
  switch (answer.kind) {
    case 'found':
      return { addresses: answer.records, nones: 0 };
    case 'none':
      return { addresses: nones > 0 ? [] : addresses, nones: nones + 1 };
    case 'failed':
      return { addresses, nones: 0 };
  }
}

/**
 * The weights of one priority, as HAProxy knows them: 0 is the least that can be chosen there, and 256 the most here.
 * All zero means that nobody has weighed anything.
 */
function toWeights(level: readonly ServiceRecord[]): readonly number[] | undefined {
  const most = Math.max(...level.map(({ weight }) => weight));
  if (most === 0) return undefined;
  const scale = Math.min(1, 256 / most);
  return level.map(({ weight }) => Math.max(1, Math.round(weight * scale)));
}

async function addressesOf(
  client: DnsClient,
  { host, family, signal }: { host: string; family: Family; signal: AbortSignal },
): Promise<DnsAnswer<string>> {
  if (isIP(host) !== 0) return { kind: 'found', records: [host], ttlMs: Infinity };
  const name = queryName(host);
  if (name === undefined) return { kind: 'none', reason: 'it is not the name of a host' };
  return client.addresses(name, family, signal);
}

const MAX_NAME = 63;

/** Named by what stands for it, as Synapse does, where that is not too long for the name of a server. */
function toInstance(
  host: string,
  address: string,
  {
    port,
    weight,
    labels,
  }: { port: number; weight?: number | undefined; labels?: Readonly<Record<string, string>> | undefined },
): Instance {
  const name = queryName(host) ?? '';
  return {
    name: name.length > MAX_NAME ? '' : name,
    host: address,
    port,
    ...(weight === undefined ? {} : { weight }),
    ...(labels === undefined ? {} : { labels }),
  };
}
