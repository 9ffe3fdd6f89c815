import { displayName, writeAcl } from './acl.ts';
import { ErrorCode, RequestRefused } from './errors.ts';
import type { JuteReader, JuteWriter } from './jute.ts';
import { readPath, type Operation, type RequestContext } from './operation.ts';
import { writeStat } from './znode.ts';

/** A path and whether to leave a watch: the body of most reads. */
function readTarget(body: JuteReader): { path: string; isWatched: boolean } {
  return { path: readPath(body), isWatched: body.boolean() };
}

/** The watch is left whether the node exists or not. */
export const exists: Operation = ({ database, watcher }, body, reply) => {
  const { path, isWatched } = readTarget(body);
  if (path.includes('\0')) throw new RequestRefused(ErrorCode.badArguments);
  if (isWatched) database.watches.add('content', path, watcher);
  writeStat(reply, database.tree.require(path));
};

export const getData: Operation = ({ database, watcher }, body, reply) => {
  const { path, isWatched } = readTarget(body);
  const node = database.tree.require(path);
  if (isWatched) database.watches.add('content', path, watcher);
  reply.buffer(node.content);
  writeStat(reply, node);
};

function getChildrenOf(context: RequestContext, body: JuteReader, reply: JuteWriter) {
  const { path, isWatched } = readTarget(body);
  const node = context.database.tree.require(path);
  if (isWatched) context.database.watches.add('children', path, context.watcher);
  reply.strings(node.children, node.children.size);
  return node;
}

export const getChildren: Operation = (context, body, reply) => {
  getChildrenOf(context, body, reply);
};

export const getChildren2: Operation = (context, body, reply) => {
  writeStat(reply, getChildrenOf(context, body, reply));
};

export const getAllChildrenNumber: Operation = ({ database }, body, reply) => {
  reply.int(database.tree.countBelow(readPath(body)));
};

export const getAcl: Operation = ({ database }, body, reply) => {
  const node = database.tree.require(readPath(body));
  writeAcl(reply, node.acl);
  writeStat(reply, node);
};

/** The requester's own ephemeral nodes, those whose path begins with the given text. */
export const getEphemerals: Operation = ({ database, session }, body, reply) => {
  const given = body.string() ?? '';
  const prefix = ['', '/'].includes(given.trim()) ? '' : given;
  const paths = [...database.tree.ephemeralsOf(session.id)].filter((path) => path.startsWith(prefix));
  reply.strings(paths, paths.length);
};

/** One server is always in step with itself. */
export const sync: Operation = (_context, body, reply) => {
  reply.string(body.string());
};

export const whoAmI: Operation = ({ identities }, _body, reply) => {
  reply.int(identities.length);
  for (const identity of identities) reply.string(identity.scheme).string(displayName(identity));
};
