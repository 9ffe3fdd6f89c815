import { TandemError } from '@tandem/core';

import { type JuteReader, JuteWriter } from './jute.ts';

/** The numbers of ZooKeeper's protocol (ZooDefs.OpCode, KeeperException.Code). */
export const OPCODE = {
  create: 1,
  remove: 2,
  exists: 3,
  getData: 4,
  setData: 5,
  sync: 9,
  getChildren: 8,
  getChildren2: 12,
  removeWatches: 18,
  multiRead: 22,
  auth: 100,
  setWatches: 101,
  setWatches2: 105,
} as const;
export const UNIMPLEMENTED = -6;
export const NO_NODE = -101;
export const NO_AUTH = -102;
export const BAD_VERSION = -103;
export const NODE_EXISTS = -110;
const NO_WATCHER = -121;

const ERROR_NAMES: Readonly<Record<number, string>> = {
  [-1]: 'SYSTEM_ERROR',
  [-2]: 'RUNTIME_INCONSISTENCY',
  [-4]: 'CONNECTION_LOSS',
  [-5]: 'MARSHALLING_ERROR',
  [UNIMPLEMENTED]: 'UNIMPLEMENTED',
  [-7]: 'OPERATION_TIMEOUT',
  [-8]: 'BAD_ARGUMENTS',
  [NO_NODE]: 'NO_NODE',
  [NO_AUTH]: 'NO_AUTH',
  [BAD_VERSION]: 'BAD_VERSION',
  [-108]: 'NO_CHILDREN_FOR_EPHEMERALS',
  [NODE_EXISTS]: 'NODE_EXISTS',
  [-111]: 'NOT_EMPTY',
  [-112]: 'SESSION_EXPIRED',
  [-114]: 'INVALID_ACL',
  [-115]: 'AUTH_FAILED',
  [-118]: 'SESSION_MOVED',
  [-119]: 'NOT_READONLY',
  [-120]: 'EPHEMERAL_ON_LOCAL_SESSION',
  [-124]: 'SESSION_CLOSED_REQUIRE_SASL_AUTH',
  [-125]: 'QUOTA_EXCEEDED',
  [-127]: 'THROTTLED',
};

export type WatchKind = 'data' | 'exist' | 'child';

/** One request: what goes out, what comes back, and which watch the server has then set. */
export interface Operation<T> {
  readonly name: string;
  readonly opcode: number;
  readonly path: string;
  readonly body: Buffer;
  parse(reader: JuteReader): T;
  /** Makes a value of an error code that is an expected outcome. */
  recover?(code: number): { readonly value: T } | undefined;
  /** The kind of one-shot watch that stands after this answer (0: no error). */
  watchKind?(code: number): WatchKind | undefined;
}

/** The part of a node's Stat that Tandem reads. Sizes in bytes. */
export interface Stat {
  /** The transaction that created it, and when (by the server's clock): together they tell one life from the next. */
  readonly czxid: bigint;
  readonly ctime: bigint;
  /** How often its data were written since. */
  readonly version: number;
  /** Counts every creation and deletion of a child; 32 bits, with overflow. */
  readonly cversion: number;
  readonly ephemeralOwner: bigint;
}

/** An error code of the server, as an error that names the operation and the path. */
export function refusal(operation: Pick<Operation<unknown>, 'name' | 'path'>, code: number): TandemError {
  const name = ERROR_NAMES[code] ?? `CODE_${code}`;
  // A wrong password is refused by nobody: it only gives no rights.
  const hint = code === NO_AUTH ? '; compare registry.zookeeper.auth with the ACL there' : '';
  return new TandemError(
    'REGISTRY_REFUSED',
    `ZooKeeper refused to ${operation.name} ${operation.path}: ${name}${hint}`,
    {
      details: { path: operation.path, zookeeperCode: code, zookeeperName: name },
    },
  );
}

export type NodeMode = 'persistent' | 'ephemeral' | 'persistent-sequential' | 'ephemeral-sequential';
const FLAGS = { persistent: 0, ephemeral: 1, 'persistent-sequential': 2, 'ephemeral-sequential': 3 } as const;
const ALL_PERMISSIONS = 31;

/** `open`: anybody may do anything, as in Nerve. `creator-all`: ZooKeeper's CREATOR_ALL_ACL, only who made it may. */
export type Acl = 'open' | 'creator-all';
const WHO = { open: { scheme: 'world', id: 'anyone' }, 'creator-all': { scheme: 'auth', id: '' } } as const;

/** What became of a create: the path as it was made, or the reason why there is none. */
export type CreateOutcome =
  | { readonly kind: 'created'; readonly path: string }
  | { readonly kind: 'exists' }
  | { readonly kind: 'no-parent' };

/** Creates a node; as Nerve does, unless told otherwise, one that anybody may read and write. */
export function create(
  path: string,
  data: string,
  mode: NodeMode,
  acl: Acl = 'open',
): Operation<CreateOutcome> {
  const body = new JuteWriter()
    .text(path)
    .bytes(Buffer.from(data))
    .vector([WHO[acl]], (writer, who) => writer.int(ALL_PERMISSIONS).text(who.scheme).text(who.id))
    .int(FLAGS[mode])
    .toBuffer();
  return {
    name: 'create',
    opcode: OPCODE.create,
    path,
    body,
    parse: (reader) => ({ kind: 'created', path: reader.text() }),
    recover(code) {
      if (code === NODE_EXISTS) return { value: { kind: 'exists' } };
      return code === NO_NODE ? { value: { kind: 'no-parent' } } : undefined;
    },
  };
}

/** Deletes a node, of any version unless one is named; one that is not there counts as deleted. */
export function remove(path: string, version = -1): Operation<void> {
  return {
    name: 'delete',
    opcode: OPCODE.remove,
    path,
    body: new JuteWriter().text(path).int(version).toBuffer(),
    parse() {},
    recover: (code) => (code === NO_NODE ? { value: undefined } : undefined),
  };
}

/** What became of a write to a node of a certain version. */
export type WriteOutcome = 'written' | 'missing' | 'other-version';

/** Replaces the data of a node, if it still has the version that was seen. */
export function setData(path: string, data: string, version: number): Operation<WriteOutcome> {
  return {
    name: 'write',
    opcode: OPCODE.setData,
    path,
    body: new JuteWriter().text(path).bytes(Buffer.from(data)).int(version).toBuffer(),
    parse: () => 'written',
    recover(code) {
      if (code === NO_NODE) return { value: 'missing' };
      return code === BAD_VERSION ? { value: 'other-version' } : undefined;
    },
  };
}

/** What is read after its answer is at least as new as everything that any client had been promised before. */
export function sync(path: string): Operation<void> {
  return {
    name: 'catch up on',
    opcode: OPCODE.sync,
    path,
    body: new JuteWriter().text(path).toBuffer(),
    parse() {},
  };
}

/** The node's Stat, or undefined when there is none. With `watch` set, a change of either fires. */
export function exists(path: string, watch = false): Operation<Stat | undefined> {
  return {
    name: 'look at',
    opcode: OPCODE.exists,
    path,
    body: new JuteWriter().text(path).bool(watch).toBuffer(),
    parse: readStat,
    recover: missing,
    watchKind: (code) => (code === 0 ? 'data' : code === NO_NODE ? 'exist' : undefined),
  };
}

/** Data and Stat of a node, or undefined when there is none. With `watch` set, a change of it fires. */
export function getData(path: string, watch = false): Operation<{ data: Buffer; stat: Stat } | undefined> {
  return {
    name: 'read',
    opcode: OPCODE.getData,
    path,
    body: new JuteWriter().text(path).bool(watch).toBuffer(),
    // The frame is a slice of a larger chunk: data that is kept must not keep that chunk alive.
    parse: (reader) => ({ data: Buffer.from(reader.bytes() ?? []), stat: readStat(reader) }),
    recover: missing,
    watchKind: (code) => (code === 0 ? 'data' : undefined),
  };
}

/** Names of the children, or undefined when the node is missing. With `watch` set, a change of the list fires. */
export function getChildren(
  path: string,
  watch = false,
): Operation<{ children: string[]; stat: Stat } | undefined> {
  return {
    name: 'list',
    opcode: OPCODE.getChildren2,
    path,
    body: new JuteWriter().text(path).bool(watch).toBuffer(),
    parse: (reader) => ({ children: reader.vector((item) => item.text()), stat: readStat(reader) }),
    recover: missing,
    watchKind: (code) => (code === 0 ? 'child' : undefined),
  };
}

/** ZooKeeper's WatcherType Any. */
const ANY_WATCH = 3;

/**
 * Sets a persistent watch on each path and everything below it, whether or not it exists: SetWatches2, 3.6 and later.
 * Resolves with whether the server has such a thing; one that has not ends the connection, too.
 */
export function setRecursiveWatches(paths: readonly string[]): Operation<boolean> {
  const writer = new JuteWriter().long(0n);
  // Data, exist, child and persistent watches that are not recursive.
  for (let kind = 0; kind < 4; kind += 1) writer.int(0);
  return {
    name: 'watch',
    opcode: OPCODE.setWatches2,
    path: `${paths[0]} and ${paths.length - 1} others`,
    body: writer.vector(paths, (out, path) => out.text(path)).toBuffer(),
    parse: () => true,
    recover: (code) => (code === UNIMPLEMENTED ? { value: false } : undefined),
  };
}

/** Takes every watch of this connection off a path. */
export function removeWatches(path: string): Operation<void> {
  return {
    name: 'stop watching',
    opcode: OPCODE.removeWatches,
    path,
    body: new JuteWriter().text(path).int(ANY_WATCH).toBuffer(),
    parse() {},
    recover: (code) => (code === NO_WATCHER ? { value: undefined } : undefined),
  };
}

/** One of several reads in one go. */
export interface Read {
  readonly kind: 'data' | 'children';
  readonly path: string;
}

/** What it found. */
export type ReadOutcome =
  | { readonly kind: 'data'; readonly data: Buffer; readonly stat: Stat }
  | { readonly kind: 'children'; readonly children: readonly string[] }
  | { readonly kind: 'missing' }
  | { readonly kind: 'refused'; readonly code: number };

const READ_OPCODES = { data: OPCODE.getData, children: OPCODE.getChildren } as const;
const FAILED = -1;

/** Several reads in one round trip: 3.6 and later. Each has an outcome of its own, in the order asked. */
export function multiRead(reads: readonly Read[]): Operation<ReadOutcome[]> {
  const writer = new JuteWriter();
  for (const { kind, path } of reads)
    writer.int(READ_OPCODES[kind]).bool(false).int(-1).text(path).bool(false);
  return {
    name: 'read',
    opcode: OPCODE.multiRead,
    path: `${reads[0]?.path} and others`,
    body: writer.int(-1).bool(true).int(-1).toBuffer(),
    parse(reader) {
      const outcomes: ReadOutcome[] = [];
      for (;;) {
        const type = reader.int();
        const isEnd = reader.bool();
        reader.int();
        if (isEnd) return outcomes;
        outcomes.push(readOutcome(type, reader));
      }
    },
  };
}

function readOutcome(type: number, reader: JuteReader): ReadOutcome {
  switch (type) {
    case OPCODE.getData: {
      const data = Buffer.from(reader.bytes() ?? []);
      return { kind: 'data', data, stat: readStat(reader) };
    }
    case OPCODE.getChildren:
      return { kind: 'children', children: reader.vector((item) => item.text()) };
    case FAILED: {
      const code = reader.int();
      return code === NO_NODE ? { kind: 'missing' } : { kind: 'refused', code };
    }
    default:
      throw new RangeError(`an outcome of type ${type} was not asked for`);
  }
}

function missing(code: number): { value: undefined } | undefined {
  return code === NO_NODE ? { value: undefined } : undefined;
}

/** czxid mzxid ctime mtime version cversion aversion ephemeralOwner dataLength numChildren pzxid (zookeeper.jute) */
function readStat(reader: JuteReader): Stat {
  const czxid = reader.long();
  reader.long();
  const ctime = reader.long();
  reader.long();
  const version = reader.int();
  const cversion = reader.int();
  reader.int();
  const ephemeralOwner = reader.long();
  for (let index = 0; index < 2; index += 1) reader.int();
  reader.long();
  return { czxid, ctime, version, cversion, ephemeralOwner };
}
