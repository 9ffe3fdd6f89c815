import { type Codec, type Instance, isTandemError } from '@tandem/core';

import type { Place } from '../registry.ts';
import { create, exists, getChildren, getData, NO_AUTH, sync } from './opcodes.ts';
import type { RunOptions, Session } from './session.ts';

/** A node that this session owns, and the instance in it (undefined: it cannot be read as one). */
export interface OwnNode {
  readonly path: string;
  readonly record: string;
  readonly instance: Instance | undefined;
}

/**
 * The nodes below a path that belong to this very session. Foreign nodes of the same name are not ours, whatever
 * they hold. `names` narrows the search: only children that may announce one of these hosts are read.
 */
export async function findOwnNodes(
  session: Session,
  search: { path: string; codec: Codec; names?: ReadonlySet<string> },
  options: RunOptions,
): Promise<OwnNode[]> {
  const { path, codec, names } = search;
  const signal = options.signal ?? new AbortController().signal;
  const owner = await session.connected(signal);
  // A server that lags behind would not show what this session has just made through another one.
  await session.run(sync(path), options);
  const listing = await session.run(getChildren(path), options);
  const candidates = (listing?.children ?? []).filter(
    (child) => names === undefined || mayBe(codec, child, names),
  );
  const nodes = await Promise.all(
    candidates.map(async (child) => {
      const node = await session.run(getData(`${path}/${child}`), options);
      if (node === undefined || node.stat.ephemeralOwner !== owner) return undefined;
      const decoded = codec.decodeRecord(node.data);
      const instance = decoded.ok ? decoded.instance : undefined;
      return { path: `${path}/${child}`, record: node.data.toString('utf8'), instance };
    }),
  );
  return nodes.filter((node) => node !== undefined);
}

function mayBe(codec: Codec, child: string, names: ReadonlySet<string>): boolean {
  const decoded = codec.decodeName(child);
  if (decoded?.ok === true) return names.has(decoded.instance.name);
  return names.has(child.slice(0, Math.max(0, child.lastIndexOf('_'))));
}

export function isAt(instance: Instance | undefined, place: Place): boolean {
  return instance?.name === place.name && instance.host === place.host && instance.port === place.port;
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
