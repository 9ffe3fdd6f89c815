import { OPEN_ACL, READ_ONLY_ACL, type AclEntry } from './acl.ts';
import { ErrorCode, RequestRefused } from './errors.ts';
import { EventType } from './opcodes.ts';
import { isValidPath, nameOf, parentOf } from './path.ts';
import type { Znode } from './znode.ts';

export interface TreeEvent {
  readonly type: EventType;
  readonly path: string;
}

/** One change of the tree in the making: what to take back if it fails, what to tell if it does not. */
export interface Transaction {
  readonly zxid: bigint;
  readonly timeMs: number;
  readonly undo: (() => void)[];
  readonly events: TreeEvent[];
}

export interface NewNode {
  readonly path: string;
  readonly content: Buffer | null;
  readonly acl: readonly AclEntry[];
  /** The session that an ephemeral node lives with, 0 for none. */
  readonly owner: bigint;
  readonly isSequential: boolean;
  readonly isContainer: boolean;
}

const SERVER_PATHS: ReadonlySet<string> = new Set([
  '/',
  '/zookeeper',
  '/zookeeper/quota',
  '/zookeeper/config',
]);
const NO_PATHS: ReadonlySet<string> = new Set();

/**
 * The nodes, in memory. A write that is refused throws RequestRefused and changes nothing;
 * checks come in the order of the Java server, so that several faults at once get the same code.
 */
export class Tree {
  readonly #nodes = new Map<string, Znode>();
  readonly #ephemerals = new Map<bigint, Set<string>>();
  readonly #containers = new Set<string>();

  constructor() {
    // The nodes that every server is born with are not counted as creations: cversion of the root starts at -1.
    for (const path of SERVER_PATHS) {
      const node = createZnode({ zxid: 0n, timeMs: 0 }, Buffer.alloc(0), OPEN_ACL, 0n, false);
      this.#nodes.set(path, node);
      if (path !== '/') this.#nodes.get(parentOf(path))?.children.add(nameOf(path));
    }
    const config = this.require('/zookeeper/config');
    config.acl = READ_ONLY_ACL;
    config.aversion = -1;
  }

  get size(): number {
    return this.#nodes.size;
  }

  get(path: string): Znode | undefined {
    // The Java server knows the root by this second name.
    return this.#nodes.get(path === '' ? '/' : path);
  }

  require(path: string): Znode {
    const node = this.get(path);
    if (node === undefined) throw new RequestRefused(ErrorCode.noNode);
    return node;
  }

  ephemeralsOf(session: bigint): ReadonlySet<string> {
    return this.#ephemerals.get(session) ?? NO_PATHS;
  }

  /** Containers that had children once and have none now. */
  emptyContainers(): string[] {
    return [...this.#containers].filter((path) => {
      const node = this.get(path);
      return node !== undefined && node.childrenCreated > 0 && node.children.size === 0;
    });
  }

  /** All nodes below the path, at any depth. */
  countBelow(path: string): number {
    const prefix = path === '/' ? '/' : `${path}/`;
    let count = 0;
    for (const name of this.require(path).children) count += 1 + this.countBelow(prefix + name);
    return count;
  }

  create(transaction: Transaction, wanted: NewNode): { path: string; node: Znode } {
    const slash = slashBefore(wanted.path);
    const parentPath = wanted.path.slice(0, slash) || '/';
    const parent = this.require(parentPath);
    const path = wanted.isSequential ? wanted.path + sequenceNumber(parent) : wanted.path;
    if (!isValidPath(path)) throw new RequestRefused(ErrorCode.badArguments);
    if (this.#nodes.has(path)) throw new RequestRefused(ErrorCode.nodeExists);
    if (parent.owner !== 0n) throw new RequestRefused(ErrorCode.noChildrenForEphemerals);

    const { childrenCreated, pzxid } = parent;
    const node = createZnode(transaction, wanted.content, wanted.acl, wanted.owner, wanted.isContainer);
    this.#link(path, node, parent);
    parent.childrenCreated++;
    parent.pzxid = transaction.zxid;
    transaction.undo.push(() => {
      this.#unlink(path, node, parent);
      parent.childrenCreated = childrenCreated;
      parent.pzxid = pzxid;
    });
    transaction.events.push(
      { type: EventType.created, path },
      { type: EventType.childrenChanged, path: parentPath },
    );
    return { path, node };
  }

  delete(transaction: Transaction, path: string, version: number): void {
    const slash = slashBefore(path);
    if (SERVER_PATHS.has(path)) throw new RequestRefused(ErrorCode.badArguments);
    const parentPath = path.slice(0, slash) || '/';
    const parent = this.require(parentPath);
    const node = this.require(path);
    requireVersion(node.version, version);
    if (node.children.size > 0) throw new RequestRefused(ErrorCode.notEmpty);

    const { pzxid } = parent;
    this.#unlink(path, node, parent);
    parent.pzxid = transaction.zxid;
    transaction.undo.push(() => {
      this.#link(path, node, parent);
      parent.pzxid = pzxid;
    });
    transaction.events.push(
      { type: EventType.deleted, path },
      { type: EventType.childrenChanged, path: parentPath },
    );
  }

  setContent(transaction: Transaction, path: string, content: Buffer | null, version: number): Znode {
    if (!isValidPath(path)) throw new RequestRefused(ErrorCode.badArguments);
    const node = this.require(path);
    requireVersion(node.version, version);
    const { content: oldContent, version: oldVersion, mzxid, mtimeMs } = node;
    node.content = content;
    node.version++;
    node.mzxid = transaction.zxid;
    node.mtimeMs = transaction.timeMs;
    transaction.undo.push(() =>
      Object.assign(node, { content: oldContent, version: oldVersion, mzxid, mtimeMs }),
    );
    transaction.events.push({ type: EventType.dataChanged, path });
    return node;
  }

  check(path: string, version: number): void {
    if (!isValidPath(path)) throw new RequestRefused(ErrorCode.badArguments);
    requireVersion(this.require(path).version, version);
  }

  setAcl(path: string, acl: readonly AclEntry[], version: number): Znode {
    const node = this.require(path);
    requireVersion(node.aversion, version);
    node.acl = acl;
    node.aversion++;
    return node;
  }

  #link(path: string, node: Znode, parent: Znode): void {
    this.#nodes.set(path, node);
    parent.children.add(nameOf(path));
    if (node.isContainer) this.#containers.add(path);
    if (node.owner === 0n) return;
    const owned = this.#ephemerals.get(node.owner);
    if (owned === undefined) this.#ephemerals.set(node.owner, new Set([path]));
    else owned.add(path);
  }

  #unlink(path: string, node: Znode, parent: Znode): void {
    this.#nodes.delete(path);
    parent.children.delete(nameOf(path));
    this.#containers.delete(path);
    const owned = this.#ephemerals.get(node.owner);
    if (owned === undefined) return;
    owned.delete(path);
    if (owned.size === 0) this.#ephemerals.delete(node.owner);
  }
}

function createZnode(
  { zxid, timeMs }: Pick<Transaction, 'zxid' | 'timeMs'>,
  content: Buffer | null,
  acl: readonly AclEntry[],
  owner: bigint,
  isContainer: boolean,
): Znode {
  return {
    content,
    acl,
    czxid: zxid,
    mzxid: zxid,
    pzxid: zxid,
    ctimeMs: timeMs,
    mtimeMs: timeMs,
    version: 0,
    aversion: 0,
    childrenCreated: 0,
    owner,
    isContainer,
    children: new Set(),
  };
}

function slashBefore(path: string): number {
  const slash = path.lastIndexOf('/');
  if (slash === -1 || path.includes('\0')) throw new RequestRefused(ErrorCode.badArguments);
  return slash;
}

function sequenceNumber(parent: Znode): string {
  return String(parent.childrenCreated).padStart(10, '0');
}

function requireVersion(current: number, expected: number): void {
  if (expected !== -1 && expected !== current) throw new RequestRefused(ErrorCode.badVersion);
}
