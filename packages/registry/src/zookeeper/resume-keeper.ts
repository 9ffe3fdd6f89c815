import { rm } from 'node:fs/promises';

import { createBackoff, instanceId, type Log, messageOf } from '@tandem/core';

import type { Place } from '../registry.ts';
import type { SessionCredentials } from './connection.ts';
import type { PersistentNote } from './reconciler.ts';
import { type PersistentClaim, type Resume, writeResume } from './resume-file.ts';

/** Keeps the resume file at what a successor would need now. A file that cannot be written is tried again. */
export interface ResumeKeeper {
  /** The session that everything hangs on from now on. Nothing is written before there is one. */
  useSession(session: SessionCredentials): void;
  /** Something may be announced below the path. */
  keepPath(path: string): void;
  /** Nothing that a successor would have to look for stands below the path any more. */
  dropPath(path: string): void;
  persistentNote(path: string, place: Place): PersistentNote;
  /** Resolves when everything up to now is in the file, or has been tried. */
  saved(): Promise<void>;
  /** The last write. What nobody could find a use for is removed. */
  close(options: { isSessionEnded: boolean }): Promise<void>;
}

const SAVE_RETRY = { baseMs: 200, maxMs: 30_000 };

export function createResumeKeeper(options: {
  /** Undefined: nothing is resumed, and nothing is written. */
  file: string | undefined;
  ensemble: string;
  inherited: Resume | undefined;
  log: Log;
}): ResumeKeeper {
  return new FileKeeper(options);
}

class FileKeeper implements ResumeKeeper {
  readonly #file: string | undefined;
  readonly #ensemble: string;
  readonly #log: Log;
  readonly #paths: Set<string>;
  readonly #persistent: Map<string, PersistentClaim>;
  #session: SessionCredentials | undefined;
  #saving: Promise<void> = Promise.resolve();
  readonly #backoff = createBackoff(SAVE_RETRY);
  #retry: NodeJS.Timeout | undefined;
  /** The last save has failed, and somebody was told. */
  #isUnsaved = false;
  #isClosed = false;

  constructor({ file, ensemble, inherited, log }: Parameters<typeof createResumeKeeper>[0]) {
    this.#file = file;
    this.#ensemble = ensemble;
    this.#log = log;
    this.#paths = new Set(inherited?.paths);
    this.#persistent = new Map(inherited?.persistent.map((claim) => [keyOf(claim.path, claim.place), claim]));
  }

  useSession(session: SessionCredentials): void {
    const isNew = session.id !== this.#session?.id;
    this.#session = session;
    if (isNew) this.#save();
  }

  keepPath(path: string): void {
    if (this.#paths.has(path)) return;
    this.#paths.add(path);
    this.#save();
  }

  dropPath(path: string): void {
    if (this.#paths.delete(path)) this.#save();
  }

  persistentNote(path: string, { name, host, port }: Place): PersistentNote {
    const place = { name, host, port };
    const key = keyOf(path, place);
    const all = this.#persistent;
    const save = () => this.#save();
    return {
      get isMade() {
        return all.has(key);
      },
      make() {
        if (all.has(key)) return;
        all.set(key, { path, place });
        save();
      },
      drop() {
        if (all.delete(key)) save();
      },
    };
  }

  saved(): Promise<void> {
    return this.#saving;
  }

  async close({ isSessionEnded }: { isSessionEnded: boolean }): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#retry);
    await this.#saving;
    // Out of reach, the session and its nodes outlive us for a while: a successor within that time must find them.
    const isUseless = isSessionEnded && this.#persistent.size === 0;
    if (isUseless && this.#file !== undefined) await rm(this.#file, { force: true });
  }

  /** One write after the other, so that the newest state is what stands in the file at the end. */
  #save(): void {
    if (this.#file !== undefined) this.#saving = this.#saveAfter(this.#saving, this.#file);
  }

  async #saveAfter(previous: Promise<void>, file: string): Promise<void> {
    await previous;
    const session = this.#session;
    if (session === undefined) return;
    clearTimeout(this.#retry);
    try {
      const persistent = [...this.#persistent.values()];
      await writeResume(file, this.#ensemble, { session, paths: [...this.#paths], persistent });
    } catch (error) {
      // Nothing waits for the next attempt: instances that are announced late are worse than a restart that shows.
      const facts = { file, err: messageOf(error) };
      this.#log[this.#isUnsaved ? 'debug' : 'error'](facts, 'cannot save the session, a restart will flap');
      this.#isUnsaved = true;
      if (!this.#isClosed) this.#retry = setTimeout(() => this.#save(), this.#backoff.next());
      return;
    }
    if (this.#isUnsaved) this.#log.info({ file }, 'the session is saved again');
    this.#isUnsaved = false;
    this.#backoff.reset();
  }
}

function keyOf(path: string, place: Place): string {
  return `${path} ${instanceId(place)}`;
}
