import type { Codec, Snapshot } from '@tandem/core';

import type { Stat } from './opcodes.ts';
import { type Child, createRoster, isRead } from './roster.ts';

/**
 * What is known of the children of one path, and what of that may be shown. Pure: it is told of lists, events and data
 * in the order in which the server sent them, and says what has to be read.
 *
 * Every change is a step in a journal, and what is shown moves along it only to places where the data of every child
 * are known. So each snapshot is what the path really held at some moment: a record that replaces another one appears
 * before the other goes, however slowly its data come.
 */
export interface Children {
  /** The list itself has to be read (again). */
  readonly isStale: boolean;
  /** Names whose data have to be read. */
  unread(): string[];
  /** The list as the server has it; undefined: there is no such path. */
  list(listing: Listing | undefined): void;
  /** Whether list and events account for everything: false makes it stale (the path's Stat after a reconnect). */
  check(stat: Stat | undefined): void;
  /** The list may have changed. */
  suspect(): void;
  /** Data that a writer may have changed unseen have to be read again. */
  doubt(): void;
  created(name: string): void;
  deleted(name: string): void;
  changed(name: string): void;
  /** The path itself is gone. */
  ended(): void;
  /** The data of a child; undefined: there is no such child. */
  read(name: string, data: Buffer | undefined): void;
  /** The data of a child may not be read: it costs itself only, until `retryRefused` asks again. */
  refuse(name: string, reason: string): void;
  readonly hasRefused: boolean;
  retryRefused(): void;
  /** What may be shown, if that differs from what was shown last. */
  take(): Snapshot | undefined;
}

export interface Listing {
  readonly children: readonly string[];
  readonly stat: Stat;
}

/** What happened at once. */
interface Step {
  readonly added: readonly Child[];
  readonly removed: readonly Child[];
}

const MISSING = 'missing';
/** While a child cannot be read, nothing moves: what piles up is put together. */
const MAX_JOURNAL = 1_000;

export function createChildren(codec: Codec): Children {
  return new JournaledChildren(codec);
}

class JournaledChildren implements Children {
  readonly #codec: Codec;
  isStale = true;
  /** Tells one life of the path from the next: deleted and made again, or on wiped data, it counts its names anew. */
  #life: string | undefined;
  /** Counts creations and deletions, as the server does in the path's Stat. */
  #cversion = 0;
  #actual = new Map<string, Child>();
  #journal: Step[] = [];
  readonly #unread = new Set<string>();
  /** Some may have gone since. */
  readonly #refused = new Set<Child>();
  readonly #roster = createRoster();
  #isWhole = false;
  #taken: Snapshot | undefined;

  constructor(codec: Codec) {
    this.#codec = codec;
  }

  unread(): string[] {
    return [...this.#unread];
  }

  list(listing: Listing | undefined): void {
    const life = listing === undefined ? MISSING : lifeOf(listing.stat);
    const known = life === this.#life ? this.#actual : new Map<string, Child>();
    this.#actual = new Map();
    this.#unread.clear();
    for (const name of listing?.children ?? []) {
      const found = known.get(name);
      const child = found === undefined || found.isGone ? this.#meet(name) : found;
      if (!isRead(child)) this.#unread.add(name);
      this.#actual.set(name, child);
    }
    this.#life = life;
    this.#cversion = listing?.stat.cversion ?? 0;
    this.isStale = false;
    // What was not shown yet and this list belong together: between them the path may never have been like that.
    this.#collapse();
  }

  check(stat: Stat | undefined): void {
    const life = stat === undefined ? MISSING : lifeOf(stat);
    if (life !== this.#life || (stat !== undefined && stat.cversion !== this.#cversion)) this.isStale = true;
  }

  suspect(): void {
    this.isStale = true;
  }

  doubt(): void {
    const doubted = [...this.#actual.values()].filter(
      (child) => isRead(child) && !this.#codec.isImmutable(child.name),
    );
    if (doubted.length > 0) this.#reread(doubted);
  }

  created(name: string): void {
    // A list that has to be read anyway will have it.
    if (this.isStale) return;
    this.#count();
    if (this.#actual.has(name)) {
      this.isStale = true;
      return;
    }
    const child = this.#meet(name);
    if (!isRead(child)) this.#unread.add(name);
    this.#actual.set(name, child);
    this.#step([child], []);
  }

  deleted(name: string): void {
    const child = this.#actual.get(name);
    if (this.isStale) {
      if (child !== undefined) child.isGone = true;
      return;
    }
    this.#count();
    if (child === undefined) {
      this.isStale = true;
      return;
    }
    this.#actual.delete(name);
    this.#unread.delete(name);
    this.#step([], [child]);
  }

  changed(name: string): void {
    const child = this.#actual.get(name);
    // What stands in the name stays; what is not read yet will be read as it is then.
    if (child === undefined || !isRead(child) || this.#codec.decodeName(name) !== undefined) return;
    this.#reread([child]);
  }

  ended(): void {
    this.list(undefined);
  }

  read(name: string, data: Buffer | undefined): void {
    const child = this.#actual.get(name);
    if (child === undefined || isRead(child)) return;
    if (data === undefined) {
      this.isStale = true;
      return;
    }
    const decoded = this.#codec.decodeRecord(data);
    if (decoded.ok) child.instance = decoded.instance;
    else child.rejected = { place: name, reason: decoded.reason };
    this.#learned(child);
  }

  refuse(name: string, reason: string): void {
    const child = this.#actual.get(name);
    if (child === undefined || isRead(child)) return;
    child.rejected = { place: name, reason };
    this.#learned(child);
    this.#refused.add(child);
  }

  get hasRefused(): boolean {
    return this.#refused.size > 0;
  }

  retryRefused(): void {
    const refused = [...this.#refused].filter((child) => this.#actual.get(child.name) === child);
    this.#refused.clear();
    if (refused.length > 0) this.#reread(refused);
  }

  take(): Snapshot | undefined {
    this.#advance();
    if (!this.#isWhole) return undefined;
    const snapshot = this.#roster.snapshot();
    if (this.#taken !== undefined && isSame(this.#taken, snapshot)) return undefined;
    this.#taken = snapshot;
    return snapshot;
  }

  #meet(name: string): Child {
    const decoded = this.#codec.decodeName(name);
    const instance = decoded?.ok === true ? decoded.instance : undefined;
    return { name, instance, rejected: undefined, before: undefined, isGone: false };
  }

  /** Equal data are the same object again, so that nothing seems to have changed. */
  #learned(child: Child): void {
    const { before } = child;
    if (before !== undefined && isEqual(before, child)) {
      child.instance = before.instance;
      child.rejected = before.rejected;
    }
    // Or every node would hold on to all that it ever was.
    child.before = undefined;
    this.#unread.delete(child.name);
  }

  #reread(children: readonly Child[]): void {
    const again = children.map((before): Child => {
      const { name, isGone } = before;
      return { name, instance: undefined, rejected: undefined, before, isGone };
    });
    for (const child of again) {
      this.#actual.set(child.name, child);
      this.#unread.add(child.name);
    }
    this.#step(again, children);
  }

  /** As the server counts: 32 bits, with overflow. */
  #count(): void {
    this.#cversion = (this.#cversion + 1) | 0;
  }

  #step(added: readonly Child[], removed: readonly Child[]): void {
    this.#journal.push({ added, removed });
    if (this.#journal.length > MAX_JOURNAL) this.#collapse();
  }

  /** Makes one step of everything between what is shown and what is. */
  #collapse(): void {
    if (this.#roster.isEmpty()) {
      this.#journal = [{ added: [...this.#actual.values()], removed: [] }];
      return;
    }
    const shown = this.#roster.members();
    const actual = new Set(this.#actual.values());
    this.#journal = [
      {
        added: [...actual].filter((child) => !shown.has(child)),
        removed: [...shown].filter((child) => !actual.has(child)),
      },
    ];
  }

  /** Shows the last state in the journal whose every child is known. */
  #advance(): void {
    const unknown = new Set<Child>();
    let whole = 0;
    for (const [index, { added, removed }] of this.#journal.entries()) {
      for (const child of added) if (!isRead(child)) unknown.add(child);
      for (const child of removed) unknown.delete(child);
      if (unknown.size === 0) whole = index + 1;
    }
    if (whole === 0) return;
    this.#isWhole = true;
    for (const { added, removed } of this.#journal.splice(0, whole)) this.#roster.change(added, removed);
  }
}

function lifeOf(stat: Stat): string {
  return `${stat.czxid} ${stat.ctime}`;
}

function isEqual(a: Child, b: Child): boolean {
  return JSON.stringify([a.instance, a.rejected]) === JSON.stringify([b.instance, b.rejected]);
}

/** By identity: equal data give the same entry again. */
function isSame(a: Snapshot, b: Snapshot): boolean {
  return (
    a.instances.length === b.instances.length &&
    a.rejected.length === b.rejected.length &&
    a.instances.every((instance, index) => instance === b.instances[index]) &&
    a.rejected.every((rejection, index) => rejection === b.rejected[index])
  );
}
