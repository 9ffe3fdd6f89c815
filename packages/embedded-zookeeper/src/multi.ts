import { ErrorCode, RequestRefused } from './errors.ts';
import { MalformedInput, type JuteReader, type JuteWriter } from './jute.ts';
import { Opcode } from './opcodes.ts';
import { readPath, type Operation, type RequestContext } from './operation.ts';
import type { Transaction } from './tree.ts';
import { CONTAINER_FLAGS, createNode, readCreate, TTL_FLAGS } from './writes.ts';
import { writeStat } from './znode.ts';

/** Executes one step and writes its result: at once, since a later step may change the same node. */
type Step = (context: RequestContext, transaction: Transaction, reply: JuteWriter) => void;

const CREATE_TYPES: ReadonlySet<number> = new Set([Opcode.create, Opcode.create2, Opcode.createContainer]);

/** Reads steps up to the end mark. */
function readSteps<T>(body: JuteReader, readStep: (type: number, body: JuteReader) => T): T[] {
  const steps: T[] = [];
  for (;;) {
    const type = body.int();
    const isEnd = body.boolean();
    body.int();
    if (isEnd) return steps;
    steps.push(readStep(type, body));
  }
}

function writeResultHeader(reply: JuteWriter, type: number, code: number): void {
  reply.int(type).boolean(false).int(code);
}

function writeFailure(reply: JuteWriter, code: ErrorCode): void {
  writeResultHeader(reply, Opcode.error, code);
  reply.int(code);
}

function writeEnd(reply: JuteWriter): void {
  reply.int(-1).boolean(true).int(-1);
}

function readWriteStep(type: number, body: JuteReader): Step {
  if (CREATE_TYPES.has(type)) return readCreateStep(body);
  if (type === Opcode.createTtl) return readCreateTtlStep(body);
  if (type === Opcode.delete) return readDeleteStep(body);
  if (type === Opcode.setData) return readSetDataStep(body);
  if (type === Opcode.check) return readCheckStep(body);
  throw new MalformedInput(`not a step of a multi: ${type}`);
}

/** In a multi the Java server goes by the flags alone: they make a container, and only a container's stat is told. */
function readCreateStep(body: JuteReader): Step {
  const request = readCreate(body);
  if (TTL_FLAGS.has(request.flags)) throw new MalformedInput('a create without the time to live it promises');
  const isContainer = request.flags === CONTAINER_FLAGS;
  return (context, transaction, reply) => {
    const created = createNode(context, transaction, request, isContainer);
    writeResultHeader(reply, isContainer ? Opcode.create2 : Opcode.create, ErrorCode.ok);
    reply.string(created.path);
    if (isContainer) writeStat(reply, created.node);
  };
}

function readCreateTtlStep(body: JuteReader): Step {
  readCreate(body);
  body.long();
  return () => {
    throw new RequestRefused(ErrorCode.unimplemented);
  };
}

function readDeleteStep(body: JuteReader): Step {
  const path = readPath(body);
  const version = body.int();
  return ({ database }, transaction, reply) => {
    database.tree.delete(transaction, path, version);
    writeResultHeader(reply, Opcode.delete, ErrorCode.ok);
  };
}

function readSetDataStep(body: JuteReader): Step {
  const path = readPath(body);
  const content = body.buffer();
  const version = body.int();
  return ({ database }, transaction, reply) => {
    const node = database.tree.setContent(transaction, path, content, version);
    writeResultHeader(reply, Opcode.setData, ErrorCode.ok);
    writeStat(reply, node);
  };
}

function readCheckStep(body: JuteReader): Step {
  const path = readPath(body);
  const version = body.int();
  return ({ database }, _transaction, reply) => {
    database.tree.check(path, version);
    writeResultHeader(reply, Opcode.check, ErrorCode.ok);
  };
}

/** All steps or none. Steps before the one that failed are reported as fine, those after it as never tried. */
export const multi: Operation = (context, body, reply) => {
  const steps = readSteps(body, readWriteStep);
  let tried = 0;
  try {
    context.database.transact((transaction) => {
      for (const step of steps) {
        step(context, transaction, reply);
        tried++;
      }
    });
  } catch (error) {
    if (!(error instanceof RequestRefused)) throw error;
    reply.clear();
    for (const index of steps.keys()) {
      if (index === tried) writeFailure(reply, error.code);
      else writeFailure(reply, index < tried ? ErrorCode.ok : ErrorCode.runtimeInconsistency);
    }
  }
  writeEnd(reply);
};

/** Reads of several nodes. Each succeeds or fails by itself; none leaves a watch, whatever it says. */
export const multiRead: Operation = ({ database }, body, reply) => {
  const reads = readSteps(body, (type, body) => {
    if (type !== Opcode.getData && type !== Opcode.getChildren)
      throw new MalformedInput(`not a read: ${type}`);
    const path = readPath(body);
    body.boolean();
    return { type, path };
  });
  for (const { type, path } of reads) {
    const node = database.tree.get(path);
    if (node === undefined) {
      writeFailure(reply, ErrorCode.noNode);
      continue;
    }
    writeResultHeader(reply, type, ErrorCode.ok);
    if (type === Opcode.getChildren) reply.strings(node.children, node.children.size);
    else writeStat(reply.buffer(node.content), node);
  }
  writeEnd(reply);
};
