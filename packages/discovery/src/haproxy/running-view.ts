import type { HoldKind } from '../output.ts';
import type { Membership, ReportedServer, Server, ServerState } from './membership.ts';
import {
  addressOf,
  type Circumstances,
  isGated,
  type Plan,
  type RunningBackends,
  type Step,
} from './plan.ts';
import type { Running, RunningIdentity } from './runtime.ts';
import type { Structure } from './structure.ts';

type Readings = Readonly<Record<'before' | 'now' | 'wanted', readonly ReportedServer[]>>;

/** Servers that somebody else holds, by backend and name. */
export type ForeignHolds = ReadonlyMap<string, ReadonlyMap<string, HoldKind>>;

/** Looks that a drained server has to be without sessions before its drain is over. */
const QUIET_SAMPLES = 2;
/**
 * A drain ends after this time in any case: clients that stick to a server would otherwise keep it for ever. What has
 * begun may still finish, unless the owner of the service wants it cut (`on-marked-down shutdown-sessions`).
 */
const DRAIN_DEADLINE_MS = 30_000;

/** By whom a member may be taken out of rotation beside the catalog. */
export interface Authorities {
  /** Whether the will of others is respected. */
  readonly respectsHolds: boolean;
  /** The servers, as `BACKEND/SERVER`, about whose weight and state an agent has its say. */
  readonly agents: ReadonlySet<string>;
}

/**
 * What one worker of HAProxy is known to have: read once, then kept in step by exact answers alone, until there is a
 * doubt. Servers as wanted are the wanted objects, so that a great fleet is not in memory twice. No I/O.
 */
export class RunningView {
  readonly identity: RunningIdentity;
  readonly #backends: Map<string, readonly ReportedServer[]>;
  /** What was wanted of a backend when it was last planned, with nothing left to do. */
  readonly #settled = new Map<string, readonly ReportedServer[]>();
  /** Servers that wait for their first check, and until when. */
  readonly #waiting = new Map<
    string,
    { readonly backend: string; readonly name: string; readonly until: number }
  >();
  /** How often in a row a server out of rotation was found without sessions. */
  readonly #samples = new Map<string, number>();
  /** When a server was first found in drain. */
  readonly #drainedAt = new Map<string, number>();
  readonly #overdue = new Set<string>();
  readonly #left = new Map<string, Map<string, HoldKind>>();
  /** Out of rotation because their agent wants it so. */
  readonly #byAgent = new Set<string>();
  #isInDoubt = false;

  constructor({ backends, ...identity }: Running) {
    this.identity = identity;
    this.#backends = new Map(backends);
  }

  get backends(): RunningBackends {
    return this.#backends;
  }

  /** Whether something may be otherwise than it is known. */
  get isInDoubt(): boolean {
    return this.#isInDoubt;
  }

  doubt(): void {
    this.#isInDoubt = true;
  }

  trust(): void {
    this.#isInDoubt = false;
  }

  /** What the next reading will find if all is as it was left; of backends never seen, what is wanted. */
  expected(membership: Membership): RunningBackends {
    return new Map([...membership, ...this.#backends]);
  }

  /**
   * Takes over a new reading of the same worker. Says whether something is not as it was left, but by an agent, whose
   * business it is. With `respectsHolds`, a member that had been left in rotation and is not any more is somebody's
   * will.
   */
  learn(backends: RunningBackends, wanted: Membership, authorities: Authorities): boolean {
    let isChanged = false;
    for (const backend of new Set([...this.#backends.keys(), ...backends.keys()])) {
      const before = this.#backends.get(backend) ?? [];
      const now = backends.get(backend) ?? [];
      if (before === now) continue;
      const readings = { before, now, wanted: wanted.get(backend) ?? [] };
      this.#noticeAgents(backend, readings, authorities.agents);
      if (authorities.respectsHolds) this.#noticeHolds(backend, readings, authorities.agents);
      this.#backends.set(backend, now);
      this.#settled.delete(backend);
      isChanged ||= wanted.has(backend) && !this.#isAgentsWork(backend, readings, authorities.agents);
    }
    this.#isInDoubt = false;
    return isChanged;
  }

  #noticeAgents(backend: string, { before, now, wanted }: Readings, agents: ReadonlySet<string>): void {
    if (agents.size === 0) return;
    const served = new Set(before.filter(({ state }) => state === 'ready').map(({ name }) => name));
    const members = new Set(wanted.filter(({ state }) => state === 'ready').map(({ name }) => name));
    for (const { name, state } of now) {
      const address = addressOf(backend, name);
      const isOut = state !== 'ready' && members.has(name) && agents.has(address);
      if (!isOut) this.#byAgent.delete(address);
      else if (served.has(name)) this.#byAgent.add(address);
    }
  }

  /** Whether two readings differ in nothing but what agents have a say about. */
  #isAgentsWork(backend: string, { before, now }: Readings, agents: ReadonlySet<string>): boolean {
    if (agents.size === 0 || before.length !== now.length) return false;
    const known = new Map(before.map((server) => [server.name, server]));
    return now.every((server) => {
      const was = known.get(server.name);
      if (was === undefined || was.id !== server.id) return false;
      if (was.address !== server.address || was.port !== server.port) return false;
      const address = addressOf(backend, server.name);
      if (!agents.has(address)) return was.weight === server.weight && was.state === server.state;
      return was.state === server.state || server.state === 'ready' || this.#byAgent.has(address);
    });
  }

  #noticeHolds(backend: string, { before, now, wanted }: Readings, agents: ReadonlySet<string>): void {
    const served = new Set(before.filter(({ state }) => state === 'ready').map(({ name }) => name));
    const members = new Set(wanted.filter(({ state }) => state === 'ready').map(({ name }) => name));
    const held = this.#left.get(backend) ?? new Map<string, HoldKind>();
    const holds = now.flatMap(({ name, state }): [string, HoldKind][] =>
      state !== 'ready' &&
      members.has(name) &&
      !agents.has(addressOf(backend, name)) &&
      (served.has(name) || held.has(name))
        ? [[name, state]]
        : [],
    );
    if (holds.length > 0) this.#left.set(backend, new Map(holds));
    else this.#left.delete(backend);
  }

  /** Takes over whom somebody else has held in a worker before this one, as far as they are out of rotation here, too. */
  inherit(holds: ForeignHolds, wanted: Membership): void {
    for (const [backend, held] of holds) {
      const members = new Set<string>(
        wanted.get(backend)?.flatMap(({ name, state }) => (state === 'ready' ? [name] : [])),
      );
      const still = (this.#backends.get(backend) ?? []).flatMap(({ name, state }): [string, HoldKind][] =>
        state !== 'ready' && held.has(name) && members.has(name) ? [[name, state]] : [],
      );
      if (still.length > 0) this.#left.set(backend, new Map(still));
    }
  }

  get foreignHolds(): ForeignHolds {
    return this.#left;
  }

  circumstances(): Circumstances {
    const left = [...this.#left].flatMap(([backend, names]) =>
      [...names.keys()].map((name) => addressOf(backend, name)),
    );
    const quiet = [...this.#samples].filter(([, count]) => count >= QUIET_SAMPLES);
    return {
      waiting: new Set(this.#waiting.keys()),
      left: new Set([...left, ...this.#byAgent]),
      quiet: new Set(quiet.map(([address]) => address)),
      overdue: this.#overdue,
      isSettled: (backend, _present, wanted) => this.#settled.get(backend) === wanted,
    };
  }

  /** Every step of a plan was taken but those that HAProxy has put off. */
  advance(plan: Plan, wanted: Membership, untaken: readonly Step[]): void {
    for (const [backend, outcome] of plan.outcome) {
      const kept = untaken
        .filter((step) => step.kind === 'delete' && step.backend === backend)
        .flatMap((step) => this.#stillThere(backend, step));
      this.#backends.set(backend, kept.length === 0 ? outcome : [...outcome, ...kept]);
      const members = wanted.get(backend);
      if (members !== undefined && !plan.unfinished.has(backend)) this.#settled.set(backend, members);
      else this.#settled.delete(backend);
      this.#forgetHoldsBeside(backend, members ?? []);
    }
    for (const step of plan.steps) {
      if (step.kind !== 'delete' && step.kind !== 'ready' && step.kind !== 'maint') continue;
      const address = addressOf(step.backend, step.server);
      // Whoever is in maintenance has to be quiet once more before it is deleted: nothing may end there meanwhile.
      this.#samples.delete(address);
      this.#drainedAt.delete(address);
      this.#overdue.delete(address);
    }
  }

  #stillThere(backend: string, step: Step): ReportedServer[] {
    const found = this.#backends
      .get(backend)
      ?.find(({ name }) => step.kind === 'delete' && name === step.server);
    return found === undefined ? [] : [{ ...found, state: 'maint' }];
  }

  /** A hold of what is no member any more has done its service. */
  #forgetHoldsBeside(backend: string, wanted: readonly ReportedServer[]): void {
    const held = this.#left.get(backend);
    if (held === undefined) return;
    const names = new Set(wanted.filter(({ state }) => state === 'ready').map(({ name }) => name));
    for (const name of held.keys()) if (!names.has(name)) held.delete(name);
    if (held.size === 0) this.#left.delete(backend);
  }

  /** A server that is being added waits for its first check, at most until then. */
  wait(backend: string, name: string, until: number): void {
    this.#waiting.set(addressOf(backend, name), { backend, name, until });
  }

  get waitingBackends(): ReadonlySet<string> {
    return new Set([...this.#waiting.values()].map(({ backend }) => backend));
  }

  /** Those members wait again that were waiting in this worker before it was seen with these eyes. */
  waitAgain(structure: Structure, wanted: Membership, now: number): void {
    for (const proxy of structure.proxies) {
      if (proxy.firstCheckMs === undefined) continue;
      const members = new Map<string, Server>(wanted.get(proxy.name)?.map((server) => [server.name, server]));
      for (const { name, state } of this.#backends.get(proxy.name) ?? []) {
        const server = members.get(name);
        const isFree = server?.state === 'ready' && this.#left.get(proxy.name)?.has(name) !== true;
        if (state === 'maint' && isFree && isGated(proxy, server))
          this.wait(proxy.name, name, now + proxy.firstCheckMs);
      }
    }
  }

  /** Lets those go whose check has passed or whose time is over. Says whether there are any. */
  release(passed: (backend: string, name: string) => boolean, now: number): boolean {
    let isAny = false;
    for (const [address, { backend, name, until }] of this.#waiting) {
      if (now < until && !passed(backend, name)) continue;
      this.#waiting.delete(address);
      this.#settled.delete(backend);
      isAny = true;
    }
    return isAny;
  }

  /**
   * By backend, the servers that wait for the end of their sessions: who is in drain and has no place in the catalog
   * or is held so, and who is in maintenance and may be deleted.
   */
  leaving(wanted: Membership, deletesDrained: boolean): ReadonlyMap<string, readonly ReportedServer[]> {
    const leaving = new Map<string, readonly ReportedServer[]>();
    for (const [backend, members] of wanted) {
      const present = this.#backends.get(backend);
      if (present === undefined || present.every(({ state }) => state === 'ready')) continue;
      const states = new Map<string, ServerState>(members.map(({ name, state }) => [name, state]));
      const going = present.filter(({ name, state }) => {
        const wish = states.get(name) ?? 'gone';
        if (state === 'drain') return wish === 'gone' || wish === 'drain';
        return state === 'maint' && wish === 'gone' && deletesDrained;
      });
      if (going.length > 0) leaving.set(backend, going);
    }
    return leaving;
  }

  /** Counts who was found without sessions, in a row. Says whether something may be done with one of them now. */
  sample(
    leaving: ReadonlyMap<string, readonly ReportedServer[]>,
    isQuiet: (backend: string, name: string) => boolean,
    now: number,
  ): boolean {
    const samples = new Map(this.#samples);
    const drainedAt = new Map(this.#drainedAt);
    this.#samples.clear();
    this.#drainedAt.clear();
    this.#overdue.clear();
    let isAny = false;
    for (const [backend, servers] of leaving) {
      for (const { name, state } of servers) {
        const address = addressOf(backend, name);
        const count = isQuiet(backend, name) ? (samples.get(address) ?? 0) + 1 : 0;
        if (count > 0) this.#samples.set(address, count);
        if (state === 'drain') {
          const since = drainedAt.get(address) ?? now;
          this.#drainedAt.set(address, since);
          if (now - since >= DRAIN_DEADLINE_MS) this.#overdue.add(address);
        }
        if (count < QUIET_SAMPLES && !this.#overdue.has(address)) continue;
        this.#settled.delete(backend);
        isAny = true;
      }
    }
    return isAny;
  }
}
