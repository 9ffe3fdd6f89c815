import { setMaxListeners } from 'node:events';
import { rm } from 'node:fs/promises';

import {
  codecFor,
  formatEndpoint,
  type InstanceId,
  instanceId,
  type Log,
  messageOf,
  type Snapshot,
  createBackoff,
  isTandemError,
  sleepOrAborted,
} from '@tandem/core';

import type {
  AnnounceOptions,
  Announcer,
  Place,
  Registry,
  RegistryStatus,
  WatchOptions,
} from '../registry.ts';
import { type Access, openAccess } from './access.ts';
import type { ZooKeeperConfig } from './config.ts';
import type { SessionCredentials } from './connection.ts';
import { createEphemeral } from './ephemeral.ts';
import { mirrorPath } from './mirror.ts';
import type { Resolve } from './names.ts';
import { findOwnNodes } from './nodes.ts';
import { remove } from './opcodes.ts';
import { readResume, type Resume, writeResume } from './resume-file.ts';
import { hex, openSession, type Session } from './session.ts';

export interface ZooKeeperRegistryOptions {
  readonly config: ZooKeeperConfig;
  readonly log: Log;
  /** Where the session is kept for a successor; without it nothing is resumed. */
  readonly resumeFile?: string;
  /** How names become addresses; default: as the system does it. */
  readonly resolve?: Resolve;
  /** The longest wait before servers that have refused our credentials are asked again; default 30 s. */
  readonly refusedMs?: number;
}

/**
 * A registry in ZooKeeper, in Nerve's layout. One session per process and ensemble, shared by all services.
 * Rejects with `CONFIG_INVALID` when a file for TLS or auth is missing or does not hold what it should.
 */
export async function openZooKeeperRegistry(options: ZooKeeperRegistryOptions): Promise<Registry> {
  const { config, log, resumeFile } = options;
  const access = await openAccess(config, log);
  const ensemble = `${config.servers.map(formatEndpoint).toSorted().join(',')}${config.chroot}`;
  const resume = resumeFile === undefined ? undefined : await readResume(resumeFile, ensemble, log);
  if (resume !== undefined) log.info({ session: hex(resume.session.id) }, 'resuming the saved session');
  return new ZooKeeperRegistry(options, access, ensemble, resume);
}

const SAVE_RETRY = { baseMs: 200, maxMs: 30_000 };

class ZooKeeperRegistry implements Registry {
  readonly #options: ZooKeeperRegistryOptions;
  readonly #ensemble: string;
  readonly #session: Session;
  readonly #claims = new Map<string, Set<InstanceId>>();
  readonly #announcers = new Set<Announcer>();
  readonly #abort = new AbortController();
  /** Every path below which this session has announced, in this life or an earlier one. */
  readonly #paths: Set<string>;
  readonly #resumed: SessionCredentials | undefined;
  #credentials: SessionCredentials | undefined;
  #saving: Promise<void> = Promise.resolve();
  readonly #saveBackoff = createBackoff(SAVE_RETRY);
  #saveRetry: NodeJS.Timeout | undefined;
  /** The last save has failed, and somebody was told. */
  #isUnsaved = false;
  #closing: Promise<void> | undefined;

  constructor(
    options: ZooKeeperRegistryOptions,
    access: Access,
    ensemble: string,
    resume: Resume | undefined,
  ) {
    this.#options = options;
    this.#ensemble = ensemble;
    // Every watch of the process listens to it.
    setMaxListeners(0, this.#abort.signal);
    this.#paths = new Set(resume?.paths);
    this.#resumed = resume?.session;
    this.#session = openSession({
      ...access,
      servers: options.config.servers,
      sessionTimeoutMs: options.config.sessionTimeoutMs,
      acl: options.config.acl,
      resolve: options.resolve,
      refusedMs: options.refusedMs,
      resume: resume?.session,
      log: options.log,
      onCredentials: (session) => {
        const isNew = session.id !== this.#credentials?.id;
        this.#credentials = session;
        if (isNew) this.#save();
      },
    });
  }

  get status(): RegistryStatus {
    return { state: this.#session.state.state };
  }

  announce(path: string, place: Place, options: AnnounceOptions = {}): Announcer {
    const id = instanceId(place);
    const full = this.#full(path);
    const claimed = this.#claims.get(full) ?? new Set();
    if (claimed.has(id)) throw new TypeError(`${id} is announced below ${path} already`);
    this.#claims.set(full, claimed.add(id));
    if (!this.#paths.has(full)) {
      this.#paths.add(full);
      this.#save();
    }
    const { log, config } = this.#options;
    const announcer = createEphemeral({
      session: this.#session,
      path: full,
      place,
      codec: codecFor(options.format),
      pathEncoding: config.pathEncoding,
      log,
      saved: () => this.#saving,
      onRelease: () => {
        claimed.delete(id);
        this.#announcers.delete(announcer);
      },
    });
    this.#announcers.add(announcer);
    return announcer;
  }

  withdrawUnclaimed(): void {
    if (this.#resumed !== undefined) void this.#sweep(this.#resumed.id);
  }

  async *watch(path: string, signal: AbortSignal, options: WatchOptions = {}): AsyncGenerator<Snapshot> {
    const { log } = this.#options;
    const controller = new AbortController();
    const abort = () => controller.abort();
    const parents = [signal, this.#abort.signal];
    if (parents.some((parent) => parent.aborted)) return;
    for (const parent of parents) parent.addEventListener('abort', abort, { once: true });
    try {
      const codec = codecFor(options.format);
      const full = this.#full(path);
      yield* mirrorPath({ session: this.#session, path: full, codec, signal: controller.signal, log });
    } finally {
      for (const parent of parents) parent.removeEventListener('abort', abort);
    }
  }

  close(options: { keep?: boolean } = {}): Promise<void> {
    this.#closing ??= this.#close(options);
    return this.#closing;
  }

  async #close(options: { keep?: boolean }): Promise<void> {
    this.#abort.abort(new Error('the registry is closed'));
    clearTimeout(this.#saveRetry);
    for (const announcer of this.#announcers) announcer.release();
    const isEnded = await this.#session.close({ keepSession: options.keep === true });
    await this.#saving;
    const { resumeFile } = this.#options;
    // Out of reach, the session and its nodes outlive us for a while: a successor within that time must find them.
    if (isEnded && resumeFile !== undefined) await rm(resumeFile, { force: true });
  }

  #full(path: string): string {
    return `${this.#options.config.chroot}${path}`;
  }

  /** One write after the other, so that the newest session is what stands in the file at the end. */
  #save(): void {
    const { resumeFile } = this.#options;
    if (resumeFile !== undefined) this.#saving = this.#saveAfter(this.#saving, resumeFile);
  }

  async #saveAfter(previous: Promise<void>, file: string): Promise<void> {
    await previous;
    const session = this.#credentials;
    if (session === undefined) return;
    const { log } = this.#options;
    clearTimeout(this.#saveRetry);
    try {
      await writeResume(file, this.#ensemble, { session, paths: [...this.#paths] });
    } catch (error) {
      // Nothing waits for the next attempt: instances that are announced late are worse than a restart that shows.
      const facts = { file, err: messageOf(error) };
      log[this.#isUnsaved ? 'debug' : 'error'](facts, 'cannot save the session, a restart will flap');
      this.#isUnsaved = true;
      if (this.#abort.signal.aborted) return;
      this.#saveRetry = setTimeout(() => this.#save(), this.#saveBackoff.next());
      return;
    }
    if (this.#isUnsaved) log.info({ file }, 'the session is saved again');
    this.#isUnsaved = false;
    this.#saveBackoff.reset();
  }

  /** Level-triggered like everything here: tried until done, or until the session that owned the nodes is gone. */
  async #sweep(owner: bigint): Promise<void> {
    const { signal } = this.#abort;
    const backoff = createBackoff({ baseMs: 200, maxMs: 5_000 });
    const pending = new Set(this.#paths);
    for (;;) {
      for (const path of pending) {
        try {
          if ((await this.#session.connected(signal)) !== owner) return;
          await this.#sweepPath(path, signal);
          pending.delete(path);
        } catch (error) {
          if (signal.aborted || isTandemError(error, 'REGISTRY_CLOSED')) return;
          this.#options.log.warn(
            { path, err: messageOf(error) },
            'cannot withdraw what nobody claims, trying again',
          );
        }
      }
      if (pending.size === 0 || (await sleepOrAborted(backoff.next(), signal))) return;
    }
  }

  async #sweepPath(path: string, signal: AbortSignal): Promise<void> {
    for (const node of await findOwnNodes(this.#session, { path, codec: codecFor() }, { signal })) {
      const claimed =
        node.instance !== undefined && this.#claims.get(path)?.has(instanceId(node.instance)) === true;
      if (claimed) continue;
      await this.#session.run(remove(node.path), { signal });
      this.#options.log.info({ node: node.path }, 'withdrew what an earlier life had announced');
    }
  }
}
