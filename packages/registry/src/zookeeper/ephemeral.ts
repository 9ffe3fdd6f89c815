import { type Codec, createBackoff, type Instance, isTandemError, type Log, messageOf } from '@tandem/core';

import type { Announcer, Place } from '../registry.ts';
import { ensurePath, findOwnNodes, isAt, type OwnNode } from './nodes.ts';
import { create, getData, remove } from './opcodes.ts';
import type { Session } from './session.ts';

export interface EphemeralOptions {
  readonly session: Session;
  readonly path: string;
  readonly place: Place;
  readonly codec: Codec;
  readonly pathEncoding: boolean;
  readonly log: Log;
  /** Resolves when a successor could resume the session: only then may anything hang on it. */
  readonly saved: () => Promise<void>;
  readonly onRelease: () => void;
}

/** What is wanted: nothing said yet (leave what is there), an instance, or none. */
type Wanted = { readonly said: false } | { readonly said: true; readonly instance: Instance | undefined };

const RETRY = { baseMs: 100, maxMs: 5_000 };

/**
 * Level-triggered reconciliation of "this instance should stand here": compares what is wanted with what this session
 * has in the registry, acts, and looks again whenever the session, the node or the wish changes. A create whose answer
 * got lost is settled by looking for the node, so there is never a duplicate.
 */
export function createEphemeral(options: EphemeralOptions): Announcer {
  return new Ephemeral(options);
}

class Ephemeral implements Announcer {
  readonly #options: EphemeralOptions;
  readonly #log: Log;
  readonly #backoff = createBackoff(RETRY);
  readonly #abort = new AbortController();
  readonly #unsubscribe: () => void;
  readonly #onNodeEvent = () => this.#touch();
  readonly #agreement = new Set<() => void>();
  #wanted: Wanted = { said: false };
  /** Counts wishes and disturbances; reconciled when `#settled` has caught up. */
  #revision = 0;
  #settled = 0;
  /** The node that is known to stand, with the session that owns it. */
  #node: (OwnNode & { readonly owner: bigint }) | undefined;
  #running = false;
  #retry: NodeJS.Timeout | undefined;

  constructor(options: EphemeralOptions) {
    this.#options = options;
    this.#log = options.log.child({
      path: options.path,
      instance: `${options.place.host}:${options.place.port}`,
    });
    this.#unsubscribe = options.session.subscribe((state) => {
      if (state.state === 'connected') this.#touch();
    });
  }

  set(instance: Instance | undefined): void {
    if (instance !== undefined && !isAt(instance, this.#options.place)) {
      throw new TypeError('an announcer announces only the instance of its own place');
    }
    this.#wanted = { said: true, instance };
    this.#touch();
  }

  agreed(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#settled === this.#revision) {
        resolve();
        return;
      }
      const onAbort = () => {
        this.#agreement.delete(onAgreed);
        reject(signal.reason as Error);
      };
      const onAgreed = () => {
        signal.removeEventListener('abort', onAbort);
        resolve();
      };
      if (signal.aborted) {
        reject(signal.reason as Error);
        return;
      }
      this.#agreement.add(onAgreed);
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  release(): void {
    if (this.#abort.signal.aborted) return;
    this.#abort.abort(new Error('released'));
    this.#unsubscribe();
    clearTimeout(this.#retry);
    this.#options.session.forgetWatch(this.#onNodeEvent);
    this.#options.onRelease();
  }

  #touch(): void {
    if (!this.#wanted.said) return;
    this.#revision += 1;
    clearTimeout(this.#retry);
    void this.#loop();
  }

  async #loop(): Promise<void> {
    if (this.#running || this.#abort.signal.aborted) return;
    this.#running = true;
    try {
      while (this.#settled !== this.#revision && !this.#abort.signal.aborted) {
        const revision = this.#revision;
        await this.#reconcile();
        this.#settled = revision;
        this.#backoff.reset();
      }
      if (this.#settled === this.#revision) {
        for (const onAgreed of this.#agreement) onAgreed();
        this.#agreement.clear();
      }
    } catch (error) {
      this.#onFailure(error);
    } finally {
      this.#running = false;
    }
  }

  #onFailure(error: unknown): void {
    // The outcome of what was under way is unknown: look before acting again.
    this.#node = undefined;
    if (this.#abort.signal.aborted || isTandemError(error, 'REGISTRY_CLOSED')) return;
    const retryMs = Math.round(this.#backoff.next());
    const wanted = this.#wanted.said && this.#wanted.instance !== undefined ? 'announced' : 'withdrawn';
    this.#log.warn({ wanted, err: messageOf(error), retryMs }, 'the registry did not take it, trying again');
    this.#retry = setTimeout(() => void this.#loop(), retryMs);
  }

  async #reconcile(): Promise<void> {
    const { session, path, place, codec, pathEncoding } = this.#options;
    const { signal } = this.#abort;
    const owner = await session.connected(signal);
    if (this.#node?.owner !== owner) this.#node = undefined;
    const standing =
      this.#node === undefined
        ? (await findOwnNodes(session, { path, codec, names: new Set([place.name]) }, { signal })).filter(
            (node) => isAt(node.instance, place),
          )
        : [this.#node];
    // Only now: what was wanted before an outage may be wrong after it.
    const wanted = this.#wanted;
    if (!wanted.said) return;
    if (wanted.instance === undefined) {
      for (const node of standing) await this.#delete(node);
      this.#node = undefined;
      return;
    }
    const record = codec.encodeRecord(wanted.instance);
    const prefix = `${path}/${codec.namePrefix(wanted.instance, { pathEncoding })}`;
    const kept = await this.#keep(
      standing.find((node) => node.record === record && node.path.startsWith(prefix)),
      owner,
    );
    this.#node = kept ?? (await this.#create(prefix, record, wanted.instance, owner));
    // The new node stands before the old one goes, so that readers never see a gap.
    for (const node of standing) if (node.path !== this.#node.path) await this.#delete(node);
  }

  /** Confirms that a node still stands, as we wrote it and ours, and watches it. */
  async #keep(node: OwnNode | undefined, owner: bigint): Promise<(OwnNode & { owner: bigint }) | undefined> {
    if (node === undefined) return undefined;
    const watch = { signal: this.#abort.signal, onWatch: this.#onNodeEvent };
    const found = await this.#options.session.run(getData(node.path, true), watch);
    const isKept = found?.stat.ephemeralOwner === owner && found.data.toString('utf8') === node.record;
    return isKept ? { ...node, owner } : undefined;
  }

  async #create(
    prefix: string,
    record: string,
    instance: Instance,
    owner: bigint,
  ): Promise<OwnNode & { owner: bigint }> {
    const { session, path, saved } = this.#options;
    const { signal } = this.#abort;
    await saved();
    const wish = create(prefix, record, 'ephemeral-sequential', session.acl);
    let outcome = await session.run(wish, { signal });
    if (outcome.kind === 'no-parent') {
      await ensurePath(session, path, { signal });
      outcome = await session.run(wish, { signal });
    }
    // Somebody deletes it all the time: the backoff of the next attempt keeps us from racing against that.
    if (outcome.kind === 'no-parent') throw new Error('the path vanished at once');
    if (outcome.kind === 'exists') throw new Error('a sequential name exists already');
    this.#log.info({ node: outcome.path }, 'announced');
    const node = { path: outcome.path, record, instance };
    const kept = await this.#keep(node, owner);
    if (kept === undefined) throw new Error('the node vanished at once');
    return kept;
  }

  async #delete(node: OwnNode): Promise<void> {
    // We know that it goes: its watch has nothing to tell us.
    if (node.path === this.#node?.path || this.#node === undefined)
      this.#options.session.forgetWatch(this.#onNodeEvent);
    await this.#options.session.run(remove(node.path), { signal: this.#abort.signal });
    this.#log.info({ node: node.path }, 'withdrawn');
  }
}
