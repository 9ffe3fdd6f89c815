import type { Session, Sessions } from './sessions.ts';
import { Tree, type Transaction } from './tree.ts';
import { Watches } from './watches.ts';

/** All state of the server: nodes, watches, sessions, and the number of the last change. */
export class Database {
  readonly tree = new Tree();
  readonly watches = new Watches();
  readonly sessions: Sessions;
  readonly #now: () => number;
  #zxid = 0n;

  constructor(sessions: Sessions, now: () => number) {
    this.sessions = sessions;
    this.#now = now;
  }

  get zxid(): bigint {
    return this.#zxid;
  }

  /** A change that touches no node counts too. */
  nextZxid(): bigint {
    return ++this.#zxid;
  }

  /** Runs a change as a whole: watchers are told after it; if it throws, everything is taken back and nobody is told. */
  transact<T>(change: (transaction: Transaction) => T): T {
    const transaction: Transaction = {
      zxid: this.nextZxid(),
      timeMs: Math.floor(this.#now()),
      undo: [],
      events: [],
    };
    let result: T;
    try {
      result = change(transaction);
    } catch (error) {
      for (const undo of transaction.undo.toReversed()) undo();
      throw error;
    }
    for (const event of transaction.events) this.watches.fire(event);
    return result;
  }

  /** Ends a session: its ephemeral nodes go. Its connection is the caller's. */
  endSession(session: Session): void {
    if (!this.sessions.remove(session)) return;
    this.transact((transaction) => {
      for (const path of this.tree.ephemeralsOf(session.id)) this.tree.delete(transaction, path, -1);
    });
  }

  /** Ends a session that its client did not end, and its connection with it. */
  expireSession(session: Session): void {
    this.endSession(session);
    session.connection?.destroy();
  }

  removeEmptyContainers(): void {
    for (const path of this.tree.emptyContainers()) {
      this.transact((transaction) => this.tree.delete(transaction, path, -1));
    }
  }
}
