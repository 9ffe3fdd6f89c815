import { JuteWriter } from './jute.ts';
import { Xid } from './opcodes.ts';
import type { TreeEvent } from './tree.ts';

const FRAME_LENGTH_BYTES = 4;
const REPLY_HEADER_BYTES = 16;
const SYNC_CONNECTED = 3;

/** A writer for the body of a reply; `sealReply` completes it. */
export function createReply(): JuteWriter {
  return new JuteWriter(FRAME_LENGTH_BYTES + REPLY_HEADER_BYTES);
}

/** The whole frame: length and header in front of the body. */
export function sealReply(reply: JuteWriter, xid: number, zxid: bigint, code: number): Buffer {
  const frame = reply.bytes();
  frame.writeInt32BE(frame.length - FRAME_LENGTH_BYTES, 0);
  frame.writeInt32BE(xid, 4);
  frame.writeBigInt64BE(zxid, 8);
  frame.writeInt32BE(code, 16);
  return frame;
}

/** The frame that tells a watcher of a change. */
export function notification({ type, path }: TreeEvent): Buffer {
  const reply = createReply();
  reply.int(type).int(SYNC_CONNECTED).string(path);
  return sealReply(reply, Xid.notification, -1n, 0);
}

export interface ConnectAnswer {
  /** 0 says that there is no such session. */
  readonly timeoutMs: number;
  readonly sessionId: bigint;
  readonly password: Buffer;
  /** Old clients neither send nor expect the read-only flag. */
  readonly withReadOnlyFlag: boolean;
}

/** The frame that answers a ConnectRequest. */
export function connectResponse(answer: ConnectAnswer): Buffer {
  const writer = new JuteWriter(FRAME_LENGTH_BYTES);
  writer.int(0).int(answer.timeoutMs).long(answer.sessionId).buffer(answer.password);
  if (answer.withReadOnlyFlag) writer.boolean(false);
  const frame = writer.bytes();
  frame.writeInt32BE(frame.length - FRAME_LENGTH_BYTES, 0);
  return frame;
}
