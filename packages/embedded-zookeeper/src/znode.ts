import type { AclEntry } from './acl.ts';
import type { JuteWriter } from './jute.ts';

/** One node of the tree. Times in milliseconds since the epoch. */
export interface Znode {
  content: Buffer | null;
  acl: readonly AclEntry[];
  readonly czxid: bigint;
  mzxid: bigint;
  pzxid: bigint;
  readonly ctimeMs: number;
  mtimeMs: number;
  version: number;
  aversion: number;
  /** Children ever created. Names sequential children, and is the base of the cversion that clients see. */
  childrenCreated: number;
  /** The session of an ephemeral node, 0 for any other. */
  readonly owner: bigint;
  /** Removed by the server some time after its last child. */
  readonly isContainer: boolean;
  readonly children: Set<string>;
}

/** Writes a Stat record, the description of a node that most answers carry. */
export function writeStat(writer: JuteWriter, node: Znode): void {
  writer
    .long(node.czxid)
    .long(node.mzxid)
    .long(BigInt(node.ctimeMs))
    .long(BigInt(node.mtimeMs))
    .int(node.version)
    // The server counts creations only; every child that is not there any more was one more change.
    .int(node.childrenCreated * 2 - node.children.size)
    .int(node.aversion)
    .long(node.owner)
    .int(node.content?.length ?? 0)
    .int(node.children.size)
    .long(node.pzxid);
}
