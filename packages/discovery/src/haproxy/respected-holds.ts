import { type Membership, withHolds } from './membership.ts';
import type { ForeignHoldsStore } from './foreign-holds-store.ts';
import type { ForeignHolds } from './running-view.ts';

/** Whom somebody else holds, as far as that is respected: outlives the worker in which it was done, and the daemon. */
export class RespectedHolds {
  readonly #store: ForeignHoldsStore;
  readonly #onChange: ((holds: ForeignHolds) => void) | undefined;
  #holds: ForeignHolds = new Map();
  #text = NONE;
  /** What haproxy.cfg and the store have. */
  #written = NONE;
  #isRecalled = false;

  constructor(store: ForeignHoldsStore, onChange: ((holds: ForeignHolds) => void) | undefined) {
    this.#store = store;
    this.#onChange = onChange;
  }

  get holds(): ForeignHolds {
    return this.#holds;
  }

  /** Whether there is something to be written down. */
  get isDue(): boolean {
    return this.#text !== this.#written;
  }

  /** What the last daemon has respected is so until HAProxy shows otherwise. */
  async recall(): Promise<void> {
    if (this.#isRecalled) return;
    this.#isRecalled = true;
    this.#holds = await this.#store.load();
    this.#text = textOf(this.#holds);
    this.#written = this.#text;
  }

  /** Takes over who is held now, and tells of it. Says whether that has changed. */
  learn(foreignHolds: ForeignHolds): boolean {
    const text = textOf(foreignHolds);
    if (text === this.#text) return false;
    this.#text = text;
    this.#holds = new Map([...foreignHolds].map(([backend, names]) => [backend, new Map(names)]));
    this.#onChange?.(this.#holds);
    return true;
  }

  async remember(): Promise<void> {
    if (!this.isDue) return;
    const text = this.#text;
    await this.#store.save(this.#holds);
    this.#written = text;
  }

  /** The membership as the file has it: a HAProxy that starts finds them out of rotation, as they were. */
  over(membership: Membership): Membership {
    return withHolds(membership, this.#holds);
  }
}

const NONE = '[]';

function textOf(holds: ForeignHolds): string {
  return JSON.stringify([...holds].map(([backend, names]) => [backend, [...names]]));
}
