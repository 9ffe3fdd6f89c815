import { compareInstances, type Instance, type Rejection, type Snapshot } from '@tandem/core';

/** One node from its creation, or from the last change of its data, on. One of `instance` and `rejected` once it is read. */
export interface Child {
  readonly name: string;
  instance: Instance | undefined;
  rejected: Rejection | undefined;
  /** What its data said before they may have changed. */
  before: Child | undefined;
  /** Its name may be in use again, but not by this node. */
  isGone: boolean;
}

export function isRead(child: Child): boolean {
  return child.instance !== undefined || child.rejected !== undefined;
}

/** The children that are shown, in the order of a snapshot. */
export interface Roster {
  change(added: readonly Child[], removed: readonly Child[]): void;
  isEmpty(): boolean;
  members(): ReadonlySet<Child>;
  snapshot(): Snapshot;
}

/** A child whose data are an instance. */
type Seated = Child & { readonly instance: Instance };

function isSeated(child: Child): child is Seated {
  return child.instance !== undefined;
}

/** Changes of more than this are sorted together. */
const FEW = 16;

export function createRoster(): Roster {
  const rejected = new Map<Child, Rejection>();
  let seated: Seated[] = [];

  function add(children: readonly Child[]): void {
    const next = children.filter(isSeated);
    if (next.length > FEW) seated = [...seated, ...next].toSorted(bySeat);
    else for (const child of next) seated.splice(placeOf(seated, child), 0, child);
    if (next.length === children.length) return;
    for (const child of children) if (child.rejected !== undefined) rejected.set(child, child.rejected);
  }

  function remove(children: readonly Child[]): void {
    for (const child of children) rejected.delete(child);
    if (children.length > FEW) {
      const gone = new Set(children);
      seated = seated.filter((child) => !gone.has(child));
      return;
    }
    for (const child of children) {
      const index = seated.findIndex((other) => other === child);
      if (index !== -1) seated.splice(index, 1);
    }
  }

  return {
    change(added, removed) {
      add(added);
      remove(removed);
    },
    isEmpty: () => seated.length === 0 && rejected.size === 0,
    members: () => new Set<Child>([...seated, ...rejected.keys()]),
    snapshot() {
      const instances: Instance[] = [];
      let last: Instance | undefined;
      // Of two nodes of one instance the newer record counts.
      for (const { instance } of seated) {
        if (last === undefined || compareInstances(last, instance) !== 0) instances.push(instance);
        last = instance;
      }
      return { instances, rejected: [...rejected.values()].toSorted(byPlace) };
    },
  };
}

/** Newest first among those of one instance; of several without a number, always the same one. */
function bySeat(a: Seated, b: Seated): number {
  const order = compareInstances(a.instance, b.instance) || sequenceOf(b.name) - sequenceOf(a.name);
  return order === 0 && a.name !== b.name ? (a.name < b.name ? -1 : 1) : order;
}

function sequenceOf(name: string): number {
  const digits = name.slice(name.lastIndexOf('_') + 1);
  return /^\d+$/.test(digits) ? Number(digits) : -1;
}

function byPlace(a: Rejection, b: Rejection): number {
  return a.place < b.place ? -1 : a.place > b.place ? 1 : 0;
}

function placeOf(seated: readonly Seated[], child: Seated): number {
  let low = 0;
  let high = seated.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const found = seated[middle];
    if (found !== undefined && bySeat(found, child) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}
