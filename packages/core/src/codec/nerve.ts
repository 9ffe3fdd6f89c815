import type { Instance } from '../instance.ts';
import type { Codec, Decoded } from './codec.ts';
import { isObject, type JsonObject, parseEndpoint, parseObject, parseText } from './record.ts';

/**
 * Nerve's znode format, both directions, byte for byte (smartstack reference, sections 1.8 and 2.5):
 * compact JSON with the keys host, port, name, then weight, haproxy_server_options and labels where present.
 * The record stands in the node's data and, with path encoding, in its name too.
 */

const ENCODED_PREFIX = 'base64_';
/** Nerve falls back to a plain name beyond this length of the encoded record. */
const MAX_ENCODED_LENGTH = 65_536;

export function encodeNerveRecord(instance: Instance): string {
  return JSON.stringify({
    host: instance.host,
    port: instance.port,
    name: instance.name,
    ...(instance.weight === undefined ? {} : { weight: instance.weight }),
    ...(instance.haproxyServerOptions === undefined
      ? {}
      : { haproxy_server_options: instance.haproxyServerOptions }),
    ...(instance.labels === undefined ? {} : { labels: instance.labels }),
  });
}

/** The znode's name before the sequence number: `i-1234_`, or `base64_<length>_<record>_` with path encoding. */
export function nerveNamePrefix(instance: Instance, options: { pathEncoding: boolean }): string {
  const plain = `${instance.name}_`;
  if (!options.pathEncoding) return plain;
  const encoded = toUrlSafe(Buffer.from(encodeNerveRecord(instance)).toString('base64'));
  return encoded.length > MAX_ENCODED_LENGTH ? plain : `${ENCODED_PREFIX}${encoded.length}_${encoded}_`;
}

/**
 * The instance that a child's name carries by itself, or undefined if its data has to be read:
 * a plain name, or one that only looks encoded.
 */
export function decodeNerveName(child: string): Decoded | undefined {
  // Most names of a fleet without path encoding end here.
  if (!child.startsWith(ENCODED_PREFIX)) return undefined;
  const record = encodedRecord(child);
  if (record === undefined) return undefined;
  const parsed = parseText(record);
  if (!parsed.ok) return undefined;
  const decoded = toInstance(parsed.object);
  return decoded.ok ? decoded : undefined;
}

/** Names of a whole fleet are decoded at every start: a buffer for each would be the most of the work. */
const scratch = Buffer.allocUnsafe(MAX_ENCODED_LENGTH);

function encodedRecord(child: string): string | undefined {
  const end = child.indexOf('_', ENCODED_PREFIX.length);
  const digits = child.slice(ENCODED_PREFIX.length, end);
  if (end === -1 || !/^\d{1,6}$/.test(digits)) return undefined;
  const length = Number(digits);
  const encoded = child.slice(end + 1, end + 1 + length);
  if (length === 0 || length > MAX_ENCODED_LENGTH || encoded.length !== length) return undefined;
  const written = scratch.write(encoded, 0, 'base64url');
  // Characters that do not belong are passed over, and are missing in the end.
  return written === decodedLength(encoded) ? scratch.toString('utf8', 0, written) : undefined;
}

function decodedLength(encoded: string): number {
  const padding = encoded.endsWith('==') ? 2 : encoded.endsWith('=') ? 1 : 0;
  return Math.floor(((encoded.length - padding) * 3) / 4);
}

/** Never throws, whatever the bytes: what cannot be an instance says why. */
export function decodeNerveRecord(bytes: Buffer): Decoded {
  const parsed = parseObject(bytes);
  return parsed.ok ? toInstance(parsed.object) : parsed;
}

function toInstance(record: JsonObject): Decoded {
  const endpoint = parseEndpoint(record);
  if (!endpoint.ok) return endpoint;
  const { name, weight, haproxy_server_options: options } = record;
  const labels = toLabels(record['labels']);
  // One object, field by field: a fleet of records is decoded at every start.
  const instance: { -readonly [Key in keyof Instance]: Instance[Key] } = {
    name: typeof name === 'string' ? name : '',
    host: endpoint.host,
    port: endpoint.port,
  };
  if (typeof weight === 'number' && Number.isInteger(weight) && weight >= 0) instance.weight = weight;
  if (typeof options === 'string') instance.haproxyServerOptions = options;
  if (labels !== undefined) instance.labels = labels;
  return { ok: true, instance };
}

function toLabels(value: unknown): Readonly<Record<string, string>> | undefined {
  if (!isObject(value)) return undefined;
  if (areTexts(value)) return value;
  const labels: [string, string][] = [];
  for (const [key, label] of Object.entries(value)) {
    if (typeof label === 'string') labels.push([key, label]);
    else if (typeof label === 'number' || typeof label === 'boolean') labels.push([key, String(label)]);
  }
  return Object.fromEntries(labels);
}

function areTexts(object: JsonObject): object is Readonly<Record<string, string>> {
  for (const key of Object.keys(object)) if (typeof object[key] !== 'string') return false;
  return true;
}

function toUrlSafe(base64: string): string {
  return base64.replaceAll('+', '-').replaceAll('/', '_');
}

/** Nerve writes the same data again and again; a changed record is a new sequential node, or another encoded name. */
export const nerveCodec: Codec = {
  encodeRecord: encodeNerveRecord,
  namePrefix: nerveNamePrefix,
  decodeName: decodeNerveName,
  decodeRecord: decodeNerveRecord,
  nameInRecord: (name) => name,
  isImmutable: (child) => /_\d{10}$/.test(child) || decodeNerveName(child) !== undefined,
};
