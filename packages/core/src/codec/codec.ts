import type { Instance } from '../instance.ts';
import { nerveCodec } from './nerve.ts';

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
  /** Whether writers of this format never change the data of a node of this name, but make another one. */
  isImmutable(child: string): boolean;
}

/** Which of the formats in use a service's nodes have. */
export type RecordFormat = { readonly kind: 'nerve' };

export function codecFor(format: RecordFormat = { kind: 'nerve' }): Codec {
  switch (format.kind) {
    case 'nerve':
      return nerveCodec;
  }
}
