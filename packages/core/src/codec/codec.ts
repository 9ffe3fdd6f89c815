import type { Instance } from '../instance.ts';
import { decodeNerveName, nerveCodec } from './nerve.ts';
import { createServersetCodec, SERVERSET_PREFIX } from './serverset.ts';

export type Decoded =
  { readonly ok: true; readonly instance: Instance } | { readonly ok: false; readonly reason: string };

/** How an instance is written as a node: what its name says, and what its data says. Pure; never throws. */
export interface Codec {
  /** The node's data. */
  encodeRecord(instance: Instance): string;
  /** The node's name as far as the writer chooses it; the registry may add a sequence number. */
  namePrefix(instance: Instance, options: { pathEncoding: boolean }): string;
  /** The instance that a name carries by itself, or undefined if its data has to be read. */
  decodeName(child: string): Decoded | undefined;
  /** Whatever the bytes: what cannot be an instance says why. */
  decodeRecord(data: Buffer): Decoded;
  /** What a reader finds as the name of an instance that was written under this one: empty where none is written. */
  nameInRecord(name: string): string;
  /** Whether writers of this format never change the data of a node of this name, but make another one. */
  isImmutable(child: string): boolean;
}

/** Which of the formats in use a service's nodes have. */
export type RecordFormat =
  { readonly kind: 'nerve' } | { readonly kind: 'serverset'; readonly endpoint?: string };

export function codecFor(format: RecordFormat = { kind: 'nerve' }): Codec {
  switch (format.kind) {
    case 'nerve':
      return nerveCodec;
    case 'serverset':
      return createServersetCodec(format.endpoint);
  }
}

/** What an announcer of an instance knows of its node beforehand. */
type Whereabouts = Pick<Instance, 'name' | 'host' | 'port'>;

/** One of each format that is written; the additional endpoints of a serverset say the same as its first. */
const WRITTEN = [nerveCodec, createServersetCodec()] as const;

/**
 * Whether the data were written for the instance of this name, host and port, in whatever format: what an earlier
 * configuration wrote in another one is to be found again.
 */
export function isRecordOf(data: Buffer, { name, host, port }: Whereabouts): boolean {
  return WRITTEN.some((codec) => {
    const decoded = codec.decodeRecord(data);
    if (!decoded.ok) return false;
    const { instance } = decoded;
    return instance.host === host && instance.port === port && instance.name === codec.nameInRecord(name);
  });
}

/** Whether a node of this name can hold such a record: spares the reading of most others. */
export function mayHoldRecordOf(child: string, { name, host, port }: Whereabouts): boolean {
  const inName = decodeNerveName(child);
  if (inName?.ok === true) {
    const { instance } = inName;
    return instance.name === name && instance.host === host && instance.port === port;
  }
  return child.startsWith(SERVERSET_PREFIX) || child.slice(0, child.lastIndexOf('_') + 1) === `${name}_`;
}
