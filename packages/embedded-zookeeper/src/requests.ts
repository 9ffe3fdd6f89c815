import { ErrorCode, RequestRefused } from './errors.ts';
import { MalformedInput, type JuteReader } from './jute.ts';
import { multi, multiRead } from './multi.ts';
import { Opcode } from './opcodes.ts';
import type { Operation, RequestContext } from './operation.ts';
import * as reads from './reads.ts';
import { createReply, sealReply } from './replies.ts';
import * as watchRequests from './watch-requests.ts';
import * as writes from './writes.ts';

const OPERATIONS: ReadonlyMap<number, Operation> = new Map([
  [Opcode.create, writes.create],
  [Opcode.create2, writes.create2],
  [Opcode.createContainer, writes.createContainer],
  [Opcode.createTtl, writes.createTtl],
  [Opcode.delete, writes.deleteNode],
  [Opcode.setData, writes.setData],
  [Opcode.setAcl, writes.setAcl],
  [Opcode.check, writes.check],
  [Opcode.multi, multi],
  [Opcode.exists, reads.exists],
  [Opcode.getData, reads.getData],
  [Opcode.getChildren, reads.getChildren],
  [Opcode.getChildren2, reads.getChildren2],
  [Opcode.getAllChildrenNumber, reads.getAllChildrenNumber],
  [Opcode.getAcl, reads.getAcl],
  [Opcode.getEphemerals, reads.getEphemerals],
  [Opcode.multiRead, multiRead],
  [Opcode.sync, reads.sync],
  [Opcode.whoAmI, reads.whoAmI],
  [Opcode.addWatch, watchRequests.addWatch],
  [Opcode.removeWatches, watchRequests.removeWatches],
  [Opcode.checkWatches, watchRequests.checkWatches],
  [Opcode.setWatches, watchRequests.setWatches],
  [Opcode.setWatches2, watchRequests.setWatches2],
]);

/** Whether this kind of request is served. */
export function isKnownOpcode(opcode: number): boolean {
  return OPERATIONS.has(opcode);
}

/** Executes one request and returns the frame of its reply. A body that cannot be read is answered, like everything else. */
export function executeRequest(
  context: RequestContext,
  xid: number,
  opcode: number,
  body: JuteReader,
): Buffer {
  const reply = createReply();
  let code: ErrorCode = ErrorCode.ok;
  try {
    const operation = OPERATIONS.get(opcode);
    if (operation === undefined) throw new RequestRefused(ErrorCode.unimplemented);
    operation(context, body, reply);
  } catch (error) {
    reply.clear();
    if (error instanceof RequestRefused) code = error.code;
    else if (error instanceof MalformedInput) code = ErrorCode.marshalling;
    else throw error;
  }
  return sealReply(reply, xid, context.database.zxid, code);
}
