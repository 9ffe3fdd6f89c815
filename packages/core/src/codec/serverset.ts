import type { Instance } from '../instance.ts';
import type { Codec, Decoded } from './codec.ts';
import { decodeNerveName } from './nerve.ts';
import { isObject, type JsonObject, parseEndpoint, parseObject, refuse } from './record.ts';

/**
 * The members of Finagle's serversets (smartstack reference, section 2.5): compact JSON with the keys serviceEndpoint,
 * additionalEndpoints and status, then shard where the instance's name is a number, in nodes called `member_` and a
 * sequence number. Weight, labels and options of HAProxy have no place in it.
 */

export const SERVERSET_PREFIX = 'member_';
/** A shard is a 32-bit number. */
const MAX_SHARD = 0x7fff_ffff;

/** With an endpoint, instances are where that additional endpoint says, and are announced there too. */
export function createServersetCodec(endpoint?: string): Codec {
  return {
    encodeRecord: (instance) => encodeRecord(instance, endpoint),
    namePrefix: () => SERVERSET_PREFIX,
    // As Synapse does: a name in Nerve's path encoding is taken at its word below any path.
    decodeName: decodeNerveName,
    decodeRecord: (data) => decodeRecord(data, endpoint),
    nameInRecord: (name) => (toShard(name) === undefined ? '' : name),
    // Finagle's announcers set the data of a member that changes.
    isImmutable: (child) => decodeNerveName(child) !== undefined,
  };
}

function encodeRecord({ name, host, port }: Instance, endpoint: string | undefined): string {
  const shard = toShard(name);
  return JSON.stringify({
    serviceEndpoint: { host, port },
    additionalEndpoints: endpoint === undefined ? {} : { [endpoint]: { host, port } },
    status: 'ALIVE',
    ...(shard === undefined ? {} : { shard }),
  });
}

/** Only a name that reads the same afterwards: `7`, not `007`. */
function toShard(name: string): number | undefined {
  return /^(0|[1-9]\d{0,9})$/.test(name) && Number(name) <= MAX_SHARD ? Number(name) : undefined;
}

/** The status is not looked at, as in Synapse: a member that is not alive has no node. */
function decodeRecord(data: Buffer, name: string | undefined): Decoded {
  const parsed = parseObject(data);
  if (!parsed.ok) return parsed;
  const found = findEndpoint(parsed.object, name);
  if (!isObject(found))
    return refuse(`${name === undefined ? 'serviceEndpoint' : `the endpoint ${name}`} is missing`);
  const endpoint = parseEndpoint(found);
  if (!endpoint.ok) return endpoint;
  const { host, port } = endpoint;
  return { ok: true, instance: { name: shardText(parsed.object['shard']), host, port } };
}

function findEndpoint(record: JsonObject, name: string | undefined): unknown {
  if (name === undefined) return record['serviceEndpoint'];
  const { additionalEndpoints: all } = record;
  // The name is a person's: `constructor` must not find what every object has.
  return isObject(all) && Object.hasOwn(all, name) ? all[name] : undefined;
}

function shardText(shard: unknown): string {
  if (typeof shard === 'string') return shard;
  return Number.isSafeInteger(shard) ? String(shard) : '';
}
