import { setMaxListeners } from 'node:events';

import {
  codecFor,
  formatEndpoint,
  type InstanceId,
  instanceId,
  isRecordOf,
  type Log,
  type Snapshot,
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
import { createAnnouncer } from './announcer.ts';
import type { ZooKeeperConfig } from './config.ts';
import { mirrorPath } from './mirror.ts';
import type { Resolve } from './names.ts';
import { kindOf } from './nodes.ts';
import { readResume, type Resume } from './resume-file.ts';
import { createPathReader, type PathReader } from './path-reader.ts';
import { ownPathOf } from './reconciler.ts';
import { createResumeKeeper, type ResumeKeeper } from './resume-keeper.ts';
import { createRecursiveWatches, type RecursiveWatches } from './recursive-watches.ts';
import { hex, openSession, type Session } from './session.ts';
import { sweepInherited } from './sweep.ts';

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

/** One place that somebody has claimed in this life. */
interface Claim {
  readonly place: Place;
  /** The node that only this claim can have, where the name does not depend on the record. */
  readonly node: string | undefined;
}

class ZooKeeperRegistry implements Registry {
  readonly #options: ZooKeeperRegistryOptions;
  readonly #session: Session;
  /** By path, and then by what a record says of the place. */
  readonly #claims = new Map<string, Map<InstanceId, Claim>>();
  /** Places that were released with something in them: a successor has to look there. */
  readonly #left = new Map<string, Set<InstanceId>>();
  readonly #announcers = new Set<Announcer>();
  readonly #abort = new AbortController();
  readonly #watches: RecursiveWatches;
  readonly #paths: PathReader;
  readonly #inherited: Resume | undefined;
  /** Paths of an earlier life below which nobody has withdrawn yet what is not wanted. */
  readonly #unswept: Set<string>;
  readonly #resume: ResumeKeeper;
  #closing: Promise<void> | undefined;

  constructor(
    options: ZooKeeperRegistryOptions,
    access: Access,
    ensemble: string,
    resume: Resume | undefined,
  ) {
    this.#options = options;
    // Every watch of the process listens to it.
    setMaxListeners(0, this.#abort.signal);
    this.#inherited = resume;
    this.#unswept = new Set(resume?.paths);
    const { resumeFile: file, log } = options;
    this.#resume = createResumeKeeper({ file, ensemble, inherited: resume, log });
    this.#session = openSession({
      ...access,
      servers: options.config.servers,
      sessionTimeoutMs: options.config.sessionTimeoutMs,
      acl: options.config.acl,
      resolve: options.resolve,
      refusedMs: options.refusedMs,
      resume: resume?.session,
      log,
      onCredentials: (session) => this.#resume.useSession(session),
    });
    const isWanted = options.config.mirror === 'auto';
    this.#watches = createRecursiveWatches({ session: this.#session, isWanted, log });
    this.#paths = createPathReader(this.#session);
  }

  get status(): RegistryStatus {
    return { state: this.#session.state.state };
  }

  announce(path: string, place: Place, options: AnnounceOptions = {}): Announcer {
    const { log, config } = this.#options;
    const full = this.#full(path);
    const kind = kindOf(options.nodeType);
    const codec = codecFor(options.format);
    const pathEncoding = options.pathEncoding ?? config.pathEncoding;
    // Two names that a record does not tell apart would be one place.
    const id = instanceId({ ...place, name: codec.nameInRecord(place.name) });
    const node = ownPathOf({ path: full, place, kind, codec, pathEncoding });
    this.#claim(full, id, { place, node });
    this.#left.get(full)?.delete(id);
    this.#resume.keepPath(full);
    const announcer = createAnnouncer({
      session: this.#session,
      path: full,
      place,
      kind,
      codec,
      pathEncoding,
      ttlMs: kind.isEphemeral ? undefined : options.ttlMs,
      log,
      persistent: this.#resume.persistentNote(full, place),
      saved: () => this.#resume.saved(),
      onRelease: ({ isEmpty }) => {
        this.#announcers.delete(announcer);
        this.#release(full, id, isEmpty);
      },
    });
    this.#announcers.add(announcer);
    return announcer;
  }

  withdrawUnclaimed(): void {
    if (this.#inherited === undefined) return;
    void sweepInherited({
      session: this.#session,
      inherited: this.#inherited,
      isClaimed: (path, { path: node, data }) =>
        this.#claimsOf(path).some((claim) => claim.node === node || isRecordOf(data, claim.place)),
      isPlaceClaimed: (path, place) =>
        this.#claimsOf(path).some((claim) => instanceId(claim.place) === instanceId(place)),
      onSwept: (path) => {
        this.#unswept.delete(path);
        this.#prune(path);
      },
      onWithdrawn: ({ path, place }) => this.#resume.persistentNote(path, place).drop(),
      signal: this.#abort.signal,
      log: this.#options.log,
    });
  }

  watch(path: string, signal: AbortSignal, options: WatchOptions = {}): AsyncIterable<Snapshot> {
    // One signal may end every watch of a process.
    setMaxListeners(0, signal);
    return mirrorPath({
      session: this.#session,
      path: this.#full(path),
      codec: codecFor(options.format),
      watches: this.#watches,
      paths: this.#paths,
      signal,
      log: this.#options.log,
    });
  }

  close(options: { keep?: boolean } = {}): Promise<void> {
    this.#closing ??= this.#close(options);
    return this.#closing;
  }

  async #close(options: { keep?: boolean }): Promise<void> {
    this.#abort.abort(new Error('the registry is closed'));
    for (const announcer of this.#announcers) announcer.release();
    const isSessionEnded = await this.#session.close({ keepSession: options.keep === true });
    await this.#resume.close({ isSessionEnded });
  }

  #full(path: string): string {
    return `${this.#options.config.chroot}${path}`;
  }

  #claimsOf(path: string): Claim[] {
    return [...(this.#claims.get(path)?.values() ?? [])];
  }

  #claim(path: string, id: InstanceId, claim: Claim): void {
    const claims = this.#claims.get(path) ?? new Map<InstanceId, Claim>();
    if (claims.has(id)) throw new TypeError(`${id} is announced below ${path} already`);
    if (claim.node !== undefined && this.#claimsOf(path).some(({ node }) => node === claim.node))
      throw new TypeError(`${claim.node} is the node of another instance already`);
    this.#claims.set(path, claims.set(id, claim));
  }

  #release(path: string, id: InstanceId, isEmpty: boolean): void {
    const claims = this.#claims.get(path);
    claims?.delete(id);
    if (claims?.size === 0) this.#claims.delete(path);
    if (!isEmpty) this.#left.set(path, (this.#left.get(path) ?? new Set()).add(id));
    this.#prune(path);
  }

  /** A file that names every path there ever was would grow for ever. */
  #prune(path: string): void {
    const isNeeded = this.#claims.has(path) || this.#unswept.has(path);
    if (!isNeeded && (this.#left.get(path)?.size ?? 0) === 0) this.#resume.dropPath(path);
  }
}
