import type { InstanceId } from '@tandem/core';

/** One instance below a path. Never changes: another wish is another record. */
export interface MemoryRecord {
  readonly id: InstanceId;
  /** Who announced it, and with whose end it goes. */
  readonly session: number;
  /** As text, so that nothing is shared between those who write and those who read. */
  readonly text: string;
  /** Tells one writing from the next. */
  readonly number: number;
}

/** What memory registries keep. All that are opened with the same store are clients of one registry. */
export interface MemoryStore {
  /** Oldest first. */
  below(path: string): readonly MemoryRecord[];
  /** Everything that a session has announced, with its path. */
  ownedBy(session: number): (readonly [path: string, record: MemoryRecord])[];
  /** Writes what a session wants to stand, in one step with the removal of what it had there before. */
  write(path: string, wish: Omit<MemoryRecord, 'number'>): void;
  remove(path: string, record: MemoryRecord): void;
  /** Calls back in a later turn, at every change below the path; returns what ends it. */
  subscribe(path: string, onChange: () => void): () => void;
  /** The session that is kept under this name, or a new one. Without a name nobody can take it up again. */
  enter(name: string | undefined): number;
  /** Ends a session and everything that it has announced. */
  end(session: number): void;
}

export function createMemoryStore(): MemoryStore {
  const paths = new Map<string, readonly MemoryRecord[]>();
  const listeners = new Map<string, Set<() => void>>();
  const sessions = new Map<string, number>();
  let lastNumber = 0;
  let lastSession = 0;

  function below(path: string): readonly MemoryRecord[] {
    return paths.get(path) ?? [];
  }
  function replace(path: string, records: readonly MemoryRecord[]): void {
    if (records.length === 0) paths.delete(path);
    else paths.set(path, records);
    for (const onChange of listeners.get(path) ?? []) setImmediate(onChange);
  }
  function ownedBy(session: number): (readonly [string, MemoryRecord])[] {
    return [...paths].flatMap(([path, records]) =>
      records.filter((record) => record.session === session).map((record) => [path, record] as const),
    );
  }
  function remove(path: string, record: MemoryRecord): void {
    const records = below(path);
    if (records.includes(record))
      replace(
        path,
        records.filter((other) => other !== record),
      );
  }

  return {
    below,
    ownedBy,
    remove,
    write(path, wish) {
      const before = below(path);
      const standing = before.find(({ id, session }) => id === wish.id && session === wish.session);
      if (standing?.text === wish.text) return;
      lastNumber += 1;
      replace(path, [...before.filter((record) => record !== standing), { ...wish, number: lastNumber }]);
    },
    subscribe(path, onChange) {
      const known = listeners.get(path) ?? new Set();
      listeners.set(path, known.add(onChange));
      return () => {
        known.delete(onChange);
        if (known.size === 0 && listeners.get(path) === known) listeners.delete(path);
      };
    },
    enter(name) {
      const kept = name === undefined ? undefined : sessions.get(name);
      if (kept !== undefined) return kept;
      lastSession += 1;
      if (name !== undefined) sessions.set(name, lastSession);
      return lastSession;
    },
    end(session) {
      for (const [path, record] of ownedBy(session)) remove(path, record);
      for (const [name, kept] of sessions) if (kept === session) sessions.delete(name);
    },
  };
}
