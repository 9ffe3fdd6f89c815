import type { Decoded } from './codec.ts';

const MAX_RECORD_BYTES = 1_000_000;
const MAX_HOST_LENGTH = 253;

/** What a record says, before anybody has looked at what it means. */
export type JsonObject = Readonly<Record<string, unknown>>;

export function refuse(reason: string): Decoded & { readonly ok: false } {
  return { ok: false, reason };
}

/** Never throws, whatever the bytes. */
export function parseObject(
  bytes: Buffer,
): { readonly ok: true; readonly object: JsonObject } | (Decoded & { readonly ok: false }) {
  if (bytes.length === 0) return refuse('the data is empty');
  if (bytes.length > MAX_RECORD_BYTES) return refuse(`the data is larger than ${MAX_RECORD_BYTES} bytes`);
  return parseText(bytes.toString('utf8'));
}

/** Never throws, whatever the text. */
export function parseText(
  text: string,
): { readonly ok: true; readonly object: JsonObject } | (Decoded & { readonly ok: false }) {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return refuse('the data is not JSON');
  }
  return isObject(value) ? { ok: true, object: value } : refuse('the data is not a JSON object');
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Where an instance is reached, as `host` and `port` of an object say it. */
export function parseEndpoint(
  object: JsonObject,
): { readonly ok: true; readonly host: string; readonly port: number } | (Decoded & { readonly ok: false }) {
  const { host } = object;
  if (typeof host !== 'string' || host === '') return refuse('host is missing or not text');
  if (host.length > MAX_HOST_LENGTH) return refuse(`host is longer than ${MAX_HOST_LENGTH} characters`);
  const port = toPort(object['port']);
  if (port === undefined) return refuse('port is missing or not a number from 1 to 65535');
  return { ok: true, host, port };
}

/** Nerve keeps the type that its own config had: a number, or a string of digits. */
function toPort(value: unknown): number | undefined {
  const port = typeof value === 'string' && /^\d{1,5}$/.test(value) ? Number(value) : value;
  return typeof port === 'number' && Number.isInteger(port) && port >= 1 && port <= 65_535 ? port : undefined;
}
