import type { Codec, Instance, Log } from '@tandem/core';

import type { Place } from '../registry.ts';
import {
  ensurePath,
  findOurs,
  isOurs,
  lifeOf,
  look,
  NOBODY,
  type NodeKind,
  type Ownership,
  type SeenNode,
} from './nodes.ts';
import { create, remove, setData } from './opcodes.ts';
import { hex, type Session } from './session.ts';

/** Whether a place has announced persistent nodes: kept for a successor, since no session tells whose they are. */
export interface PersistentNote {
  readonly isMade: boolean;
  make(): void;
  /** Nothing persistent stands there any more. */
  drop(): void;
}

export interface ReconcilerOptions {
  readonly session: Session;
  readonly path: string;
  readonly place: Place;
  readonly kind: NodeKind;
  readonly codec: Codec;
  readonly pathEncoding: boolean;
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly onNodeEvent: () => void;
  readonly persistent: PersistentNote;
  /** Resolves when a successor could take over: only then may anything hang on the session, or stay without it. */
  readonly saved: () => Promise<void>;
}

/** What is wanted: nothing said yet (leave what is there), an instance, or none. */
export type Wanted =
  { readonly said: false } | { readonly said: true; readonly instance: Instance | undefined };

export type Outcome = 'agreed' | 'blocked' | 'blocked-unseen';

/** Brings what stands in the registry to what is wanted, in one pass. One pass at a time. */
export interface Reconciler {
  /**
   * Asks what is wanted as late as it can. `blocked`: a foreign node has the name; it is watched. `blocked-unseen`: so
   * it is, and nothing rings when it goes.
   * Rejects when the registry fails in the middle; the outcome of the last step is then unknown.
   */
  reconcile(wanted: () => Wanted): Promise<Outcome>;
  /** What was known may be wrong: the next pass looks for everything that is ours. */
  doubt(): void;
  /** The next pass writes the node again, even if it is as it should be. */
  renew(): void;
  forgetWatch(): void;
}

export function createReconciler(options: ReconcilerOptions): Reconciler {
  return new NodeReconciler(options);
}

export function isAt(instance: Instance, place: Place): boolean {
  return instance.name === place.name && instance.host === place.host && instance.port === place.port;
}

/** The node of a place whose name says nothing of the record and has no number: only one claim can have it. */
export function ownPathOf(
  options: Pick<ReconcilerOptions, 'path' | 'place' | 'kind' | 'codec' | 'pathEncoding'>,
): string | undefined {
  const { path, place, kind, codec, pathEncoding } = options;
  if (kind.isSequential || pathEncoding) return undefined;
  return `${path}/${codec.namePrefix(place, { pathEncoding })}`;
}

/** What shall stand. */
interface Target {
  /** Without the number that the server adds to a sequential name. */
  readonly path: string;
  readonly record: string;
}

/** A node of a fixed name may have to be deleted, made, written and looked at in one pass. */
const MAX_MOVES = 6;

class NodeReconciler implements Reconciler {
  readonly #options: ReconcilerOptions;
  readonly #watch;
  readonly #ownPath: string | undefined;
  /** The node that stands, as it was last seen by this session. */
  #node: SeenNode | undefined;
  #owner = NOBODY;
  readonly #known = new Map<string, string>();
  #isRenewalDue = false;
  /** The life of the foreign node that was told of. */
  #foreign: string | undefined;

  constructor(options: ReconcilerOptions) {
    this.#options = options;
    this.#watch = { signal: options.signal, onWatch: options.onNodeEvent };
    this.#ownPath = ownPathOf(options);
  }

  doubt(): void {
    this.#node = undefined;
  }

  renew(): void {
    this.#isRenewalDue = true;
  }

  forgetWatch(): void {
    this.#options.session.forgetWatch(this.#options.onNodeEvent);
  }

  async reconcile(wanted: () => Wanted): Promise<Outcome> {
    const { session, path, codec, kind, pathEncoding, persistent, signal } = this.#options;
    const owner = await session.connected(signal);
    if (this.#owner !== owner) this.#node = undefined;
    this.#owner = owner;
    const standing = this.#node === undefined ? await this.#find() : [this.#node];
    // Only now: what was wanted before an outage may be wrong after it.
    const wish = wanted();
    if (!wish.said) return 'agreed';
    if (wish.instance === undefined) {
      this.#foreign = undefined;
      // We know that it goes: its watch has nothing to tell us.
      this.forgetWatch();
    } else {
      const target = {
        path: `${path}/${codec.namePrefix(wish.instance, { pathEncoding })}`,
        record: codec.encodeRecord(wish.instance),
      };
      const node = kind.isSequential ? await this.#stand(target, standing) : await this.#standAlone(target);
      if (typeof node === 'string') return node;
      this.#take(node);
    }
    const kept = wish.instance === undefined ? undefined : this.#node;
    // The new node stands before the old one goes, so that readers never see a gap.
    for (const node of standing) if (node.path !== kept?.path) await this.#delete(node);
    this.#node = kept;
    if (kept === undefined || kind.isEphemeral) persistent.drop();
    return 'agreed';
  }

  async #find(): Promise<SeenNode[]> {
    const { session, path, signal } = this.#options;
    const found = await findOurs(session, path, this.#ownership(), { signal });
    this.#known.clear();
    for (const node of found) this.#known.set(node.path, lifeOf(node));
    return found;
  }

  #ownership(): Ownership {
    const { place, kind, persistent } = this.#options;
    const hasPersistent = !kind.isEphemeral || persistent.isMade;
    return {
      place,
      session: this.#owner,
      hasPersistent,
      ownPath: this.#ownPath,
      known: this.#known,
    };
  }

  /** Remembered as ours whatever becomes of its data. */
  #take(node: SeenNode): void {
    this.#node = node;
    this.#known.set(node.path, lifeOf(node));
    this.#foreign = undefined;
  }

  /** A sequential node: one that says what is wanted stays, and a change is another one. */
  async #stand(target: Target, standing: SeenNode[]): Promise<SeenNode> {
    const { session } = this.#options;
    const candidate = standing.find((node) => this.#isRight(node, target));
    if (candidate !== undefined) {
      this.#notePersistent();
      if (this.#isRenewalDue) await this.#write(candidate, target);
      const seen = await look(session, candidate.path, this.#watch);
      // What somebody has made of it meanwhile decides whether it is kept, and what may be deleted.
      const isStillOurs = seen !== undefined && lifeOf(seen) === lifeOf(candidate);
      standing.splice(standing.indexOf(candidate), 1, ...(isStillOurs ? [seen] : []));
      if (isStillOurs && this.#isRight(seen, target)) return seen;
    }
    const path = await this.#create(target);
    // A sequential name is never taken.
    const seen = path === undefined ? undefined : await look(session, path, this.#watch);
    if (seen === undefined || !this.#isRight(seen, target)) throw new Error('the node vanished at once');
    return seen;
  }

  /** A node whose name nobody else can have: written in place, unless a foreign one has the name. */
  async #standAlone(target: Target): Promise<SeenNode | Exclude<Outcome, 'agreed'>> {
    this.#notePersistent();
    for (let move = 0; move < MAX_MOVES; move += 1) {
      const seen = await look(this.#options.session, target.path, this.#watch);
      if (seen === undefined) await this.#create(target);
      else if (!isOurs(seen, this.#ownership())) return this.#giveWay(seen);
      else if (!this.#isRightKind(seen)) {
        this.forgetWatch();
        await this.#delete(seen);
      } else if (this.#isRight(seen, target) && !this.#isRenewalDue) return seen;
      else await this.#write(seen, target);
    }
    throw new Error('somebody else changes the node all the time');
  }

  #isRightKind({ stat }: SeenNode): boolean {
    return stat.ephemeralOwner === (this.#options.kind.isEphemeral ? this.#owner : NOBODY);
  }

  #isRight(node: SeenNode, target: Target): boolean {
    const number = node.path.startsWith(target.path) ? node.path.slice(target.path.length) : 'other';
    const isNamed = this.#options.kind.isSequential ? /^-?\d{10,}$/.test(number) : number === '';
    return isNamed && this.#isRightKind(node) && node.data.toString('utf8') === target.record;
  }

  /** Told once for each life of the foreign node. It is watched already. */
  #giveWay(node: SeenNode): Exclude<Outcome, 'agreed'> {
    const life = lifeOf(node);
    if (this.#foreign !== life) {
      const { ephemeralOwner } = node.stat;
      const owner = ephemeralOwner === NOBODY ? 'nobody' : hex(ephemeralOwner);
      this.#options.log.warn(
        { node: node.path, owner },
        'a foreign node has our name, waiting until it goes',
      );
    }
    this.#foreign = life;
    this.#node = undefined;
    return node.isHidden === true ? 'blocked-unseen' : 'blocked';
  }

  #notePersistent(): void {
    const { kind, persistent } = this.#options;
    if (!kind.isEphemeral) persistent.make();
  }

  /** The path as it was made; undefined when the name is taken. */
  async #create(target: Target): Promise<string | undefined> {
    const { session, path, kind, saved, log, signal } = this.#options;
    this.#notePersistent();
    await saved();
    const wish = create(target.path, target.record, kind.mode, session.acl);
    let outcome = await session.run(wish, { signal });
    if (outcome.kind === 'no-parent') {
      await ensurePath(session, path, { signal });
      outcome = await session.run(wish, { signal });
    }
    // Somebody deletes it all the time: the backoff of the next attempt keeps us from racing against that.
    if (outcome.kind === 'no-parent') throw new Error('the path vanished at once');
    if (outcome.kind === 'exists') return undefined;
    this.#isRenewalDue = false;
    log.info({ node: outcome.path }, 'announced');
    return outcome.path;
  }

  /** Only what was seen is written over; what has changed since is for the next look to judge. */
  async #write(node: SeenNode, { record }: Target): Promise<void> {
    const { session, log, signal } = this.#options;
    const isChange = node.data.toString('utf8') !== record;
    this.forgetWatch();
    const outcome = await session.run(setData(node.path, record, node.stat.version), { signal });
    // If it was not taken, somebody else has just written, or there is nothing to renew.
    this.#isRenewalDue = false;
    if (outcome === 'written')
      log[isChange ? 'info' : 'debug']({ node: node.path }, isChange ? 'announced' : 'renewed');
  }

  /** Only as it was seen: what somebody has made in its place, or has written to, is looked at again. */
  async #delete(node: SeenNode): Promise<void> {
    const { session, log, signal } = this.#options;
    await session.run(remove(node.path, node.stat.version), { signal });
    this.#known.delete(node.path);
    log.info({ node: node.path }, 'withdrawn');
  }
}
