import { isRecordOf, isTandemError, mayHoldRecordOf } from '@tandem/core';

import type { NodeType, Place } from '../registry.ts';
import { create, exists, getChildren, getData, NO_AUTH, type NodeMode, type Stat, sync } from './opcodes.ts';
import type { RunOptions, Session } from './session.ts';

/** What the name of a node type means. */
export interface NodeKind {
  readonly mode: NodeMode;
  /** It belongs to a session and goes with it. */
  readonly isEphemeral: boolean;
  /** The server numbers it, so that its name is never taken. */
  readonly isSequential: boolean;
}

const KINDS: Readonly<Record<NodeType, NodeKind>> = {
  ephemeral_sequential: { mode: 'ephemeral-sequential', isEphemeral: true, isSequential: true },
  ephemeral: { mode: 'ephemeral', isEphemeral: true, isSequential: false },
  persistent_sequential: { mode: 'persistent-sequential', isEphemeral: false, isSequential: true },
  persistent: { mode: 'persistent', isEphemeral: false, isSequential: false },
};

export function kindOf(nodeType: NodeType = 'ephemeral_sequential'): NodeKind {
  return KINDS[nodeType];
}

/** A node as it was when it was last looked at. */
export interface SeenNode {
  readonly path: string;
  readonly data: Buffer;
  readonly stat: Stat;
  /** We may not read it: its data mean nothing, and servers do not ring for it. */
  readonly isHidden?: true;
}

/** ZooKeeper's word for a node that no session owns. */
export const NOBODY = 0n;

/** Tells a node from another one that stands under its name later, also on data that were wiped. */
export function lifeOf({ stat }: SeenNode): string {
  return `${stat.czxid} ${stat.ctime}`;
}

/**
 * The node as it is now, or undefined when there is none. With `onWatch`, a change of it rings. One that we may not
 * read is not an error: somebody else's secret must not keep us from our own.
 */
export async function look(
  session: Session,
  path: string,
  options: RunOptions,
): Promise<SeenNode | undefined> {
  const isWatched = options.onWatch !== undefined;
  try {
    const found = await session.run(getData(path, isWatched), options);
    return found === undefined ? undefined : { path, ...found };
  } catch (error) {
    const isClosed = isTandemError(error, 'REGISTRY_REFUSED') && error.details['zookeeperCode'] === NO_AUTH;
    if (!isClosed) throw error;
    const stat = await session.run(exists(path, isWatched), options);
    return stat === undefined ? undefined : { path, data: Buffer.alloc(0), stat, isHidden: true };
  }
}

/** The nodes below a path whose names are wanted, as everybody sees them. */
export async function findNodes(
  session: Session,
  search: { path: string; isWanted: (child: string) => boolean },
  options: RunOptions,
): Promise<SeenNode[]> {
  const { path, isWanted } = search;
  // A server that lags behind would not show what this session has just made through another one.
  await session.run(sync(path), options);
  const listing = await session.run(getChildren(path), options);
  const wanted = (listing?.children ?? []).filter(isWanted);
  const nodes = await Promise.all(wanted.map((child) => look(session, `${path}/${child}`, options)));
  return nodes.filter((node) => node !== undefined);
}

/** What tells the nodes of one announcer from everybody else's. */
export interface Ownership {
  readonly place: Place;
  readonly session: bigint;
  /** Whether an announcement of this place has ever been persistent, in this life or an earlier one. */
  readonly hasPersistent: boolean;
  /** The name that nobody else of this process claims: what this session owns there is ours whatever it says. */
  readonly ownPath: string | undefined;
  /** The nodes that this announcer has made or taken over: the life of each by its path. */
  readonly known: ReadonlyMap<string, string>;
}

/**
 * Foreign nodes of the same name are not ours, whatever they hold. What nobody owns is ours only if it says what we
 * would have written there, or if we have seen it do so: no session tells.
 */
export function isOurs(node: SeenNode, ownership: Ownership): boolean {
  const { place, session, hasPersistent, ownPath, known } = ownership;
  const owner = node.stat.ephemeralOwner;
  if (known.get(node.path) === lifeOf(node) || (node.path === ownPath && owner === session)) return true;
  return (owner === session || (hasPersistent && owner === NOBODY)) && isRecordOf(node.data, place);
}

/** The nodes of one announcer below its path, whatever kind and format they have. */
export async function findOurs(
  session: Session,
  path: string,
  ownership: Ownership,
  options: RunOptions,
): Promise<SeenNode[]> {
  const isWanted = (child: string) =>
    ownership.known.has(`${path}/${child}`) || mayHoldRecordOf(child, ownership.place);
  const nodes = await findNodes(session, { path, isWanted }, options);
  return nodes.filter((node) => isOurs(node, ownership));
}

/** Creates the missing ones of a path and its ancestors, persistent and empty. Data that stand there are never touched. */
export async function ensurePath(session: Session, path: string, options: RunOptions): Promise<void> {
  if (await makeNode(session, path, options)) return;
  await ensurePath(session, path.slice(0, path.lastIndexOf('/')), options);
  await makeNode(session, path, options);
}

/** False: it has no parent. From the bottom up, so that an ancestor that stands is never touched, whoever may do what there. */
async function makeNode(session: Session, path: string, options: RunOptions): Promise<boolean> {
  try {
    const outcome = await session.run(create(path, '', 'persistent', session.acl), options);
    return outcome.kind !== 'no-parent';
  } catch (error) {
    // The server looks at the rights first: below a closed node it says so even of a child that stands by now.
    const isClosed = isTandemError(error, 'REGISTRY_REFUSED') && error.details['zookeeperCode'] === NO_AUTH;
    if (isClosed && (await session.run(exists(path), options)) !== undefined) return true;
    throw error;
  }
}
