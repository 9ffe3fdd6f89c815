import {
  createBackoff,
  isRecordOf,
  isTandemError,
  type Log,
  mayHoldRecordOf,
  messageOf,
  sleepOrAborted,
} from '@tandem/core';

import type { Place } from '../registry.ts';
import { findNodes, NOBODY, type SeenNode } from './nodes.ts';
import { remove } from './opcodes.ts';
import type { PersistentClaim, Resume } from './resume-file.ts';
import type { Session } from './session.ts';

export interface SweepOptions {
  readonly session: Session;
  /** What an earlier life has left. */
  readonly inherited: Resume;
  /** Whether somebody has claimed the place, or the name, of a node in this life. */
  readonly isClaimed: (path: string, node: SeenNode) => boolean;
  readonly isPlaceClaimed: (path: string, place: Place) => boolean;
  /** Nothing that the earlier life's session owned and nobody wants stands below the path any more. */
  readonly onSwept: (path: string) => void;
  /** The persistent node of a place that nobody wants is gone. */
  readonly onWithdrawn: (claim: PersistentClaim) => void;
  readonly signal: AbortSignal;
  readonly log: Log;
}

interface Task {
  readonly path: string;
  run(): Promise<void>;
}

/**
 * Withdraws what an earlier life announced and nobody claims. Level-triggered like everything here: each part is tried
 * until it is done, or until the session that owned it is gone.
 */
export async function sweepInherited(options: SweepOptions): Promise<void> {
  const { inherited, signal, log } = options;
  const backoff = createBackoff({ baseMs: 200, maxMs: 5_000 });
  const pending = new Set<Task>([
    ...inherited.paths.map((path) => ({ path, run: () => sweepSession(options, path) })),
    ...inherited.persistent.map((claim) => ({
      path: claim.path,
      run: () => sweepPersistent(options, claim),
    })),
  ]);
  for (;;) {
    for (const task of pending) {
      try {
        await task.run();
        pending.delete(task);
      } catch (error) {
        if (signal.aborted || isTandemError(error, 'REGISTRY_CLOSED')) return;
        const facts = { path: task.path, err: messageOf(error) };
        log.warn(facts, 'cannot withdraw what nobody claims, trying again');
      }
    }
    if (pending.size === 0 || (await sleepOrAborted(backoff.next(), signal))) return;
  }
}

/** What the resumed session owns. If the server has ended it, that has gone with it. */
async function sweepSession(options: SweepOptions, path: string): Promise<void> {
  const { session, inherited, isClaimed, onSwept, signal } = options;
  const owner = inherited.session.id;
  if ((await session.connected(signal)) === owner) {
    const all = await findNodes(session, { path, isWanted: () => true }, { signal });
    const own = all.filter(({ stat }) => stat.ephemeralOwner === owner);
    for (const node of own) if (!isClaimed(path, node)) await withdraw(options, node);
  }
  onSwept(path);
}

/** What belongs to no session. A place that is claimed is its announcer's business. */
async function sweepPersistent(options: SweepOptions, claim: PersistentClaim): Promise<void> {
  const { session, isPlaceClaimed, onWithdrawn, signal } = options;
  const { path, place } = claim;
  if (isPlaceClaimed(path, place)) return;
  const isWanted = (child: string) => mayHoldRecordOf(child, place);
  for (const node of await findNodes(session, { path, isWanted }, { signal })) {
    const isLeft = node.stat.ephemeralOwner === NOBODY && isRecordOf(node.data, place);
    if (isPlaceClaimed(path, place)) return;
    if (isLeft) await withdraw(options, node);
  }
  if (!isPlaceClaimed(path, place)) onWithdrawn(claim);
}

async function withdraw({ session, log, signal }: SweepOptions, node: SeenNode): Promise<void> {
  await session.run(remove(node.path, node.stat.version), { signal });
  log.info({ node: node.path }, 'withdrew what an earlier life had announced');
}
