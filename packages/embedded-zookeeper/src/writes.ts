import { readAcl, resolveAcl, type AclRequestEntry } from './acl.ts';
import { ErrorCode, RequestRefused } from './errors.ts';
import type { JuteReader } from './jute.ts';
import { readPath, type Operation, type RequestContext } from './operation.ts';
import { isValidPath } from './path.ts';
import type { NewNode, Transaction } from './tree.ts';
import { writeStat, type Znode } from './znode.ts';

export interface CreateRequest {
  readonly path: string;
  readonly content: Buffer | null;
  readonly acl: AclRequestEntry[] | null;
  readonly flags: number;
}

/** What the flags of a create mean. Flags with a time to live are known, but off in a server by default, as here. */
const CREATE_MODES: readonly (Pick<NewNode, 'isSequential'> & { isEphemeral: boolean })[] = [
  { isEphemeral: false, isSequential: false },
  { isEphemeral: true, isSequential: false },
  { isEphemeral: false, isSequential: true },
  { isEphemeral: true, isSequential: true },
  { isEphemeral: false, isSequential: false },
];
export const CONTAINER_FLAGS = 4;
export const TTL_FLAGS: ReadonlySet<number> = new Set([5, 6]);

export function readCreate(body: JuteReader): CreateRequest {
  return { path: readPath(body), content: body.buffer(), acl: readAcl(body), flags: body.int() };
}

export function createNode(
  { database, session, identities }: RequestContext,
  transaction: Transaction,
  request: CreateRequest,
  isContainer: boolean,
): { path: string; node: Znode } {
  const mode = CREATE_MODES[request.flags];
  if (mode === undefined) {
    throw new RequestRefused(TTL_FLAGS.has(request.flags) ? ErrorCode.unimplemented : ErrorCode.badArguments);
  }
  if (!request.path.includes('/')) throw new RequestRefused(ErrorCode.badArguments);
  return database.tree.create(transaction, {
    path: request.path,
    content: request.content,
    acl: resolveAcl(request.acl, identities),
    owner: mode.isEphemeral && !isContainer ? session.id : 0n,
    isSequential: mode.isSequential,
    isContainer,
  });
}

/** These operations check the path before anything else, and null is no path. */
function readCheckedPath(body: JuteReader): string {
  const path = body.string();
  if (path === null || !isValidPath(path)) throw new RequestRefused(ErrorCode.badArguments);
  return path;
}

export const create: Operation = (context, body, reply) => {
  const request = readCreate(body);
  reply.string(
    context.database.transact((transaction) => createNode(context, transaction, request, false)).path,
  );
};

const createWithStat =
  (isContainer: boolean): Operation =>
  (context, body, reply) => {
    const request = readCreate(body);
    const created = context.database.transact((transaction) =>
      createNode(context, transaction, request, isContainer),
    );
    writeStat(reply.string(created.path), created.node);
  };

export const create2 = createWithStat(false);
export const createContainer = createWithStat(true);

/** Nodes with a time to live are off in a ZooKeeper with default settings. */
export const createTtl: Operation = (_context, body) => {
  const { flags } = readCreate(body);
  body.long();
  throw new RequestRefused(TTL_FLAGS.has(flags) ? ErrorCode.unimplemented : ErrorCode.badArguments);
};

export const deleteNode: Operation = ({ database }, body) => {
  const path = readPath(body);
  const version = body.int();
  database.transact((transaction) => database.tree.delete(transaction, path, version));
};

export const setData: Operation = ({ database }, body, reply) => {
  const path = readCheckedPath(body);
  const content = body.buffer();
  const version = body.int();
  writeStat(
    reply,
    database.transact((transaction) => database.tree.setContent(transaction, path, content, version)),
  );
};

/** Stored and shown, never enforced. */
export const setAcl: Operation = ({ database, identities }, body, reply) => {
  const path = readCheckedPath(body);
  const acl = readAcl(body);
  const version = body.int();
  const resolved = resolveAcl(acl, identities);
  writeStat(
    reply,
    database.transact(() => database.tree.setAcl(path, resolved, version)),
  );
};

/** Outside of a multi this only says whether the version is right. */
export const check: Operation = ({ database }, body) => {
  const path = readCheckedPath(body);
  const version = body.int();
  database.transact(() => database.tree.check(path, version));
};
