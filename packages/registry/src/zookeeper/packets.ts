import { TandemError } from '@tandem/core';

import { JuteReader, JuteWriter } from './jute.ts';
import { OPCODE, type Operation } from './opcodes.ts';

/** What went wrong or came back. */
export type Answer<T> =
  { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: TandemError };

/** What the library puts into its queue. */
export interface LibraryRequest {
  header: { type: number; xid: number };
  payload: null;
  toBuffer(): Buffer;
}

interface LibraryPacket {
  request: LibraryRequest;
  callback?: (error: unknown, frame?: Buffer) => void;
}

/** The part of the library that requests go through. */
export interface LibraryQueues {
  xid: number;
  zxid: Buffer;
  /** Sent, not yet answered. */
  pendingQueue: LibraryPacket[];
  /** Not yet sent. */
  packetQueue: { queue: LibraryPacket[] };
  queue(request: LibraryRequest, callback: NonNullable<LibraryPacket['callback']>): void;
}

const ours = new WeakSet<LibraryRequest>();

/** The answer to what `packAuth` packs has this number too. The library keeps it out of its numbering. */
export const AUTH_XID = -4;

/** A request for the library's queue, which numbers it and keeps it in order; the bytes are ours. */
export function packRequest(opcode: number, body: Buffer, xid = 0): LibraryRequest {
  const made: LibraryRequest = {
    header: { type: opcode, xid },
    payload: null,
    toBuffer() {
      const head = Buffer.allocUnsafe(12);
      head.writeInt32BE(body.length + 8, 0);
      head.writeInt32BE(made.header.xid, 4);
      head.writeInt32BE(opcode, 8);
      return Buffer.concat([head, body]);
    },
  };
  ours.add(made);
  return made;
}

/** AuthPacket { type, scheme, auth } */
export function packAuth(credentials: { scheme: string; proof: Buffer }): LibraryRequest {
  const body = new JuteWriter().int(0).text(credentials.scheme).bytes(credentials.proof).toBuffer();
  return packRequest(OPCODE.auth, body, AUTH_XID);
}

/** False for what the library has packed itself. */
export function isOurs(request: LibraryRequest): boolean {
  return ours.has(request);
}

/** ConnectRequest { protocolVersion, lastZxidSeen, timeOut, sessionId, passwd, readOnly } with its length in front. */
export function packHello(hello: {
  lastZxid: bigint;
  timeoutMs: number;
  sessionId: bigint;
  password: Buffer;
}): Buffer {
  return new JuteWriter()
    .int(0)
    .long(hello.lastZxid)
    .int(hello.timeoutMs)
    .long(hello.sessionId)
    .bytes(hello.password)
    .bool(false)
    .toFrame();
}

/** The body of an answer without error. Never throws: what cannot be read is `REGISTRY_PROTOCOL`. */
export function unpackAnswer<T>(operation: Operation<T>, frame: Buffer): Answer<T> {
  try {
    return { ok: true, value: operation.parse(new JuteReader(frame, 20)) };
  } catch (cause) {
    const { name, path } = operation;
    const message = `cannot read ZooKeeper's answer to ${name} ${path}`;
    return { ok: false, error: new TandemError('REGISTRY_PROTOCOL', message, { cause, details: { path } }) };
  }
}
