import { readdir } from 'node:fs/promises';
import path from 'node:path';

import { type Log, messageOf, systemErrorCode } from '@tandem/core';

import type { Clock } from './clock.ts';

/** Files whose existence drains, looked at again and again. */
export interface DrainFiles {
  /** Which files matter from now on, as a whole. New ones are looked at at once. */
  want(files: ReadonlySet<string>): void;
  /** Undefined until that is known for the first time. */
  exists(file: string): boolean | undefined;
  stop(): void;
}

/** Names in a directory; rejects as `readdir` does. */
export type ReadDirectory = (directory: string) => Promise<readonly string[]>;

export interface DrainFilesDeps {
  readonly clock: Clock;
  readonly log: Log;
  /** Called when a file is known for the first time, has appeared or is gone. */
  readonly onChange: () => void;
  readonly readDirectory?: ReadDirectory | undefined;
}

const EVERY_MS = 500;
/** A directory that does not answer in this time is no reason to leave a service unannounced. */
const PATIENCE_MS = 2_000;
/** Each look takes a thread that all files of the process are read with, and there are four. */
const AT_ONCE = 2;

interface Directory {
  readonly files: Set<string>;
  /** Since when it is being looked at, or waits for that. */
  since: number | undefined;
  isFailing: boolean;
}

/**
 * Directories are read rather than files watched: that works on every file system, and is one call for all services
 * that share a directory.
 */
export function createDrainFiles(deps: DrainFilesDeps): DrainFiles {
  return new PolledDrainFiles(deps);
}

class PolledDrainFiles implements DrainFiles {
  readonly #deps: DrainFilesDeps;
  readonly #read: ReadDirectory;
  readonly #directories = new Map<string, Directory>();
  readonly #known = new Map<string, boolean>();
  readonly #queue = new Set<string>();
  #reading = 0;
  #isStopped = false;
  #cancelTick = () => {};

  constructor(deps: DrainFilesDeps) {
    this.#deps = deps;
    this.#read = deps.readDirectory ?? ((directory) => readdir(directory));
  }

  want(files: ReadonlySet<string>): void {
    for (const { files: before } of this.#directories.values()) before.clear();
    for (const file of this.#known.keys()) if (!files.has(file)) this.#known.delete(file);
    for (const file of files) {
      const name = path.dirname(file);
      const directory = this.#directories.get(name) ?? {
        files: new Set(),
        since: undefined,
        isFailing: false,
      };
      this.#directories.set(name, directory);
      directory.files.add(file);
    }
    for (const [name, { files: left }] of this.#directories)
      if (left.size === 0) this.#directories.delete(name);
    const isNew = [...files].some((file) => !this.#known.has(file));
    if (!isNew || this.#isStopped) return;
    this.#cancelTick();
    this.#tick();
  }

  exists(file: string): boolean | undefined {
    return this.#known.get(file);
  }

  stop(): void {
    this.#isStopped = true;
    this.#cancelTick();
  }

  #tick(): void {
    const { clock } = this.#deps;
    for (const [name, directory] of this.#directories) {
      if (directory.since === undefined) {
        directory.since = clock.now();
        this.#queue.add(name);
      } else if (clock.now() - directory.since > PATIENCE_MS) this.#fail(name, directory, 'does not answer');
    }
    this.#readNext();
    if (this.#directories.size > 0) this.#cancelTick = clock.after(EVERY_MS, () => this.#tick());
  }

  #readNext(): void {
    for (const name of this.#queue) {
      if (this.#reading >= AT_ONCE) return;
      this.#queue.delete(name);
      const directory = this.#directories.get(name);
      if (directory !== undefined) void this.#look(name, directory);
    }
  }

  async #look(name: string, directory: Directory): Promise<void> {
    this.#reading += 1;
    try {
      const names = new Set(await this.#read(name));
      this.#learn(directory, (file) => names.has(path.basename(file)));
      directory.isFailing = false;
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') {
        // Nothing is in a directory that does not exist.
        this.#learn(directory, () => false);
        directory.isFailing = false;
      } else this.#fail(name, directory, messageOf(error));
    }
    directory.since = undefined;
    this.#reading -= 1;
    this.#readNext();
  }

  /** What was known stays so; what was not is taken for absent: a disk that is ill must not take services with it. */
  #fail(name: string, directory: Directory, reason: string): void {
    if (this.#isStopped) return;
    if (!directory.isFailing)
      this.#deps.log.error(
        { directory: name, reason },
        'cannot look for drain files, what was known of them stays',
      );
    directory.isFailing = true;
    this.#learn(directory, (file) => this.#known.get(file) ?? false);
  }

  #learn({ files }: Directory, existsNow: (file: string) => boolean): void {
    if (this.#isStopped) return;
    let isChanged = false;
    for (const file of files) {
      const exists = existsNow(file);
      isChanged ||= this.#known.get(file) !== exists;
      this.#known.set(file, exists);
    }
    if (isChanged) this.#deps.onChange();
  }
}
