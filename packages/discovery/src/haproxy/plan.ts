import type { Membership, ReportedServer, Server, ServerState } from './membership.ts';
import { checksOf, staticLine } from './server-options.ts';
import type { Proxy, Structure } from './structure.ts';
import { type Abilities, abilitiesOf, staticOption } from './versions.ts';

/** One change of a running HAProxy. */
export type Step =
  | {
      readonly kind: 'add';
      readonly backend: string;
      readonly server: Server;
      /** Those of its backend. */
      readonly serverOptions: string;
      /** What it becomes now: `maint` is how HAProxy adds every server. */
      readonly state: ServerState;
    }
  | { readonly kind: 'weight'; readonly backend: string; readonly server: string; readonly weight: number }
  /** Weight 0 for one that serves: new requests go to others from now on. */
  | { readonly kind: 'idle'; readonly backend: string; readonly server: string }
  | { readonly kind: ServerState; readonly backend: string; readonly server: string }
  /** HAProxy may refuse it as long as a connection is left: then the server stays, in maintenance. */
  | { readonly kind: 'delete'; readonly backend: string; readonly server: string };

/** Why HAProxy has to start a new worker. Never for membership that can be changed at run time. */
export type ReloadReason =
  | { readonly kind: 'structure-changed'; readonly running: string; readonly wanted: string }
  | {
      readonly kind: 'option-not-dynamic';
      readonly option: string;
      readonly backend: string;
      readonly version: string;
    }
  | { readonly kind: 'backend-not-dynamic'; readonly line: string; readonly backend: string }
  | { readonly kind: 'server-moved'; readonly backend: string; readonly server: string }
  | { readonly kind: 'too-many-tombstones'; readonly backend: string; readonly count: number }
  | { readonly kind: 'update-refused'; readonly replies: readonly string[] }
  | { readonly kind: 'no-worker' };

/** The servers of every backend of a running HAProxy, its own records and those of the catalog mixed. */
export type RunningBackends = ReadonlyMap<string, readonly ReportedServer[]>;

export interface Plan {
  readonly steps: readonly Step[];
  /** The backends that were planned, as they are once every step is taken. Servers as wanted are the wanted objects. */
  readonly outcome: RunningBackends;
  /** Needed for what no step can do. Whatever a step can do does not wait for it. */
  readonly reload: ReloadReason | undefined;
  /** The backends that are not as wanted before a reload. */
  readonly unfinished: ReadonlySet<string>;
}

/** What is to be considered beside what runs and what is wanted: servers, each as `BACKEND/SERVER`. */
export interface Circumstances {
  /** Added, and waiting in maintenance for HAProxy's own first check. */
  readonly waiting: ReadonlySet<string>;
  /** Put into drain or maintenance by somebody else, whose will is respected. */
  readonly left: ReadonlySet<string>;
  /** Out of rotation, and without a session for long enough. */
  readonly quiet: ReadonlySet<string>;
  /** Drained for so long that whoever still sticks to it has to go elsewhere. */
  readonly overdue: ReadonlySet<string>;
  /** Whether a backend has been planned before, from these two, and nothing was left to do. */
  readonly isSettled: (
    backend: string,
    present: readonly ReportedServer[],
    wanted: readonly Server[],
  ) => boolean;
}

export const ORDINARY: Circumstances = {
  waiting: new Set(),
  left: new Set(),
  quiet: new Set(),
  overdue: new Set(),
  isSettled: () => false,
};

/** How steps and circumstances name a server. */
export function addressOf(backend: string, server: string): string {
  return `${backend}/${server}`;
}

/**
 * What brings a running HAProxy to the desired state. Equal states need no step. Whatever brings traffic comes before
 * whatever takes it away, so that a backend never passes through empty; backends that are not in `membership`, and
 * those that are not in the structure, are left alone.
 */
export function planChanges(
  running: { mark: string; version: string; backends: RunningBackends },
  desired: { mark: string; structure: Structure; membership: Membership },
  circumstances: Circumstances = ORDINARY,
): Plan {
  if (running.mark !== desired.mark) {
    const reload = { kind: 'structure-changed', running: running.mark, wanted: desired.mark } as const;
    return { steps: [], outcome: new Map(), reload, unfinished: new Set() };
  }
  const abilities = abilitiesOf(running.version);
  const gains: Step[] = [];
  const losses: Step[] = [];
  const outcome = new Map<string, readonly ReportedServer[]>();
  const unfinished = new Set<string>();
  let reload: ReloadReason | undefined;
  for (const proxy of desired.structure.proxies) {
    const wanted = desired.membership.get(proxy.name);
    if (wanted === undefined) continue;
    const present = running.backends.get(proxy.name) ?? [];
    if (circumstances.isSettled(proxy.name, present, wanted)) continue;
    const plan = planBackend(proxy, { present, wanted, abilities, circumstances });
    gains.push(...plan.gains);
    losses.push(...plan.losses);
    outcome.set(proxy.name, plan.outcome);
    if (plan.reason === undefined) continue;
    unfinished.add(proxy.name);
    reload ??= versioned(plan.reason, running.version);
  }
  return { steps: [...gains, ...losses], outcome, reload, unfinished };
}

/** Whether a step takes traffic from a server, or the server itself away. */
export function isLoss(step: Step): boolean {
  switch (step.kind) {
    case 'add':
    case 'weight':
    case 'ready':
      return false;
    case 'idle':
    case 'drain':
    case 'maint':
    case 'delete':
      return true;
  }
}

/** Whether a server of this backend has to wait for its first check. */
export function isGated(proxy: Proxy, server: Server): boolean {
  return (
    proxy.firstCheckMs !== undefined &&
    checksOf(`${proxy.serverOptions} ${server.options}`).includes('health')
  );
}

/** Whether an agent beside the server has its say about its weight, and whether it serves. */
export function hasAgent(proxy: Proxy, server: Server): boolean {
  return checksOf(`${proxy.serverOptions} ${server.options}`).includes('agent');
}

interface BackendPlan {
  readonly gains: readonly Step[];
  readonly losses: readonly Step[];
  readonly outcome: readonly ReportedServer[];
  readonly reason: UnversionedReason | undefined;
}

type UnversionedReason =
  | Exclude<ReloadReason, { kind: 'option-not-dynamic' }>
  | Omit<Extract<ReloadReason, { kind: 'option-not-dynamic' }>, 'version'>;

function versioned(reason: UnversionedReason, version: string): ReloadReason {
  return reason.kind === 'option-not-dynamic' ? { ...reason, version } : reason;
}

interface BackendScene {
  readonly present: readonly ReportedServer[];
  readonly wanted: readonly Server[];
  readonly abilities: Abilities;
  readonly circumstances: Circumstances;
}

function planBackend(proxy: Proxy, scene: BackendScene): BackendPlan {
  const { wanted, abilities, circumstances } = scene;
  const planned = planMembers(proxy, scene);
  const { gains, losses, idling, weightToCome } = planned;
  let { members, reason } = planned;
  // Nobody else serves before those to come are there: who leaves stays until then, all of them, since one alone may
  // be the one that has died. Who shall have no weight any more keeps it as long.
  const canDrain = weightToCome === undefined || servesAnybody(members ?? wanted, weightToCome > 0);
  for (const [index, { steps, serving }] of idling) {
    if (canDrain) losses.push(...steps);
    else (members ??= [...wanted])[index] = serving;
  }
  const there = members?.filter((member) => member !== undefined) ?? wanted;
  const others = planOthers(proxy.name, planned.others, { canDrain, abilities, circumstances });
  const count = others.outcome.length;
  if (count > abilities.maxTombstones) reason ??= { kind: 'too-many-tombstones', backend: proxy.name, count };
  return {
    gains,
    losses: [...losses, ...others.losses],
    outcome: count === 0 ? there : [...there, ...others.outcome],
    reason,
  };
}

interface PlannedMembers {
  readonly gains: readonly Step[];
  readonly losses: Step[];
  /** By place, those that lose all of their weight, unless nobody else serves. */
  readonly idling: ReadonlyMap<number, { readonly steps: readonly Step[]; readonly serving: ReportedServer }>;
  /** As they are once the steps are taken; undefined when they are as wanted. */
  readonly members: (ReportedServer | undefined)[] | undefined;
  /** The greatest weight of those that are to come; undefined when nobody is. */
  readonly weightToCome: number | undefined;
  /** Those that have no place in the catalog. */
  readonly others: readonly ReportedServer[];
  readonly reason: UnversionedReason | undefined;
}

function planMembers(proxy: Proxy, scene: BackendScene): PlannedMembers {
  const { wanted } = scene;
  const { open, others } = compare(proxy.name, scene);
  const gains: Step[] = [];
  const losses: Step[] = [];
  const idling = new Map<number, { steps: readonly Step[]; serving: ReportedServer }>();
  let reason: UnversionedReason | undefined;
  let members: (ReportedServer | undefined)[] | undefined;
  let weightToCome: number | undefined;
  for (const index of open) {
    const server = wanted[index] as Server;
    const { steps, member, serving, ...planned } = planMember(proxy, others.get(server.name), server, scene);
    // What has its name and not its address is another one, which goes as whoever has no place here.
    if (member !== undefined) others.delete(server.name);
    reason ??= planned.reason;
    if (serving !== undefined) idling.set(index, { steps, serving });
    else for (const step of steps) (isLoss(step) ? losses : gains).push(step);
    if (planned.isToCome) weightToCome = Math.max(weightToCome ?? 0, server.weight);
    if (member !== server) (members ??= [...wanted])[index] = member;
  }
  return { gains, losses, idling, members, weightToCome, others: [...others.values()], reason };
}

/** Whether one of them is in rotation; a weight of 0 counts only where nobody has more. */
function servesAnybody(members: readonly (ReportedServer | undefined)[], needsWeight: boolean): boolean {
  return members.some((member) => member?.state === 'ready' && (member.weight > 0 || !needsWeight));
}

/**
 * The places of the wanted servers that are not there as they shall be, and those that are there beside the others.
 * Both lists are mostly in the same order, and the same objects.
 */
function compare(
  backend: string,
  { present, wanted, circumstances }: BackendScene,
): { readonly open: readonly number[]; readonly others: Map<string, ReportedServer> } {
  const open: number[] = [];
  const others = new Map<string, ReportedServer>();
  let index = 0;
  for (const found of present) {
    for (let next = wanted[index]; next !== undefined && next !== found && next.name < found.name;) {
      open.push(index);
      index += 1;
      next = wanted[index];
    }
    if (wanted[index] === found && !isDrained(backend, found, circumstances)) index += 1;
    else others.set(found.name, found);
  }
  for (; index < wanted.length; index += 1) open.push(index);
  return { open, others };
}

/** What becomes of servers that have no place in the catalog. */
function planOthers(
  backend: string,
  others: readonly ReportedServer[],
  {
    canDrain,
    abilities,
    circumstances,
  }: { canDrain: boolean; abilities: Abilities; circumstances: Circumstances },
): { readonly losses: readonly Step[]; readonly outcome: readonly ReportedServer[] } {
  const losses: Step[] = [];
  const outcome: ReportedServer[] = [];
  for (const server of others) {
    const isServing = server.state === 'ready';
    const isQuiet = circumstances.quiet.has(addressOf(backend, server.name));
    if (!isServing && isQuiet && abilities.deletesDrained) {
      losses.push({ kind: 'delete', backend, server: server.name });
    } else if (isServing && canDrain) {
      losses.push({ kind: 'drain', backend, server: server.name });
      outcome.push({ ...server, state: 'drain' });
    } else if (isDrained(backend, server, circumstances)) {
      losses.push({ kind: 'maint', backend, server: server.name });
      outcome.push({ ...server, state: 'maint' });
    } else outcome.push(server);
  }
  return { losses, outcome };
}

/**
 * Whether a drain has done its service. HAProxy goes on sending to a drained server whoever is bound to it by a cookie
 * or a stick table, and goes on checking it; maintenance lets sessions finish and takes no new ones.
 */
function isDrained(backend: string, { name, state }: ReportedServer, circumstances: Circumstances): boolean {
  if (state !== 'drain') return false;
  const address = addressOf(backend, name);
  return circumstances.quiet.has(address) || circumstances.overdue.has(address);
}

interface PlannedMember {
  readonly steps: readonly Step[];
  /** As it is once the steps are taken: the wanted object if it is as wanted, undefined when it is not there. */
  readonly member: ReportedServer | undefined;
  /** As it is without the steps, which take all of its weight: they have to wait until somebody else serves. */
  readonly serving?: ReportedServer;
  /** Not in rotation before its first check, or a reload. */
  readonly isToCome: boolean;
  /** What no step can do. */
  readonly reason?: UnversionedReason;
}

function planMember(
  proxy: Proxy,
  found: ReportedServer | undefined,
  server: Server,
  { abilities, circumstances }: BackendScene,
): PlannedMember {
  const backend = proxy.name;
  const isServing = server.state === 'ready';
  const later = (reason: UnversionedReason) => ({
    steps: [],
    member: undefined,
    isToCome: isServing,
    reason,
  });
  if (found === undefined) {
    const reason = whyNotAdded(proxy, server, abilities);
    if (reason !== undefined) return later(reason);
    const state = isServing && isGated(proxy, server) ? 'maint' : server.state;
    return {
      steps: [{ kind: 'add', backend, server, serverOptions: proxy.serverOptions, state }],
      member: inState(server, state),
      isToCome: state !== server.state,
    };
  }
  if (found.address !== server.address || found.port !== server.port)
    return later({ kind: 'server-moved', backend, server: server.name });
  const { state, isToCome } = stateOfMember(backend, found, server, circumstances);
  const turn: Step[] = state === found.state ? [] : [{ kind: state, backend, server: server.name }];
  if (found.weight === server.weight) return { steps: turn, member: inState(server, state), isToCome };
  const asFound = { ...server, weight: found.weight, state };
  if (hasAgent(proxy, server)) return { steps: turn, member: asFound, isToCome };
  const line = staticLine(proxy);
  if (line === undefined) {
    const member = inState(server, state);
    if (server.weight === 0 && found.state === 'ready')
      return {
        steps: [...turn, { kind: 'idle', backend, server: server.name }],
        member,
        isToCome,
        ...(state === 'ready' ? { serving: asFound } : {}),
      };
    const weigh: Step = { kind: 'weight', backend, server: server.name, weight: server.weight };
    return { steps: [weigh, ...turn], member, isToCome };
  }
  return { steps: turn, member: asFound, isToCome, reason: { kind: 'backend-not-dynamic', backend, line } };
}

/** What a member that is there becomes now. */
function stateOfMember(
  backend: string,
  found: ReportedServer,
  server: Server,
  circumstances: Circumstances,
): { readonly state: ServerState; readonly isToCome: boolean } {
  const address = addressOf(backend, server.name);
  switch (server.state) {
    case 'ready': {
      const isToCome = found.state === 'maint' && circumstances.waiting.has(address);
      const isLeft = isToCome || circumstances.left.has(address);
      return { state: isLeft ? found.state : 'ready', isToCome };
    }
    case 'drain':
      // Who is held to drain and has nothing left to finish is as well off in maintenance.
      return {
        state: found.state === 'maint' || isDrained(backend, found, circumstances) ? 'maint' : 'drain',
        isToCome: false,
      };
    case 'maint':
      return { state: 'maint', isToCome: false };
  }
}

function inState(server: Server, state: ServerState): Server {
  return state === server.state ? server : { ...server, state };
}

/** What keeps a server from being added at run time, known without having tried. */
function whyNotAdded(proxy: Proxy, server: Server, abilities: Abilities): UnversionedReason | undefined {
  const backend = proxy.name;
  const line = staticLine(proxy);
  if (line !== undefined) return { kind: 'backend-not-dynamic', backend, line };
  const option = staticOption(`${proxy.serverOptions} ${server.options}`.trim(), abilities);
  return option === undefined ? undefined : { kind: 'option-not-dynamic', backend, option };
}

/** In words, such as `add web/a_10.0.0.1:80`. */
export function describeStep(step: Step): string {
  const name = step.kind === 'add' ? step.server.name : step.server;
  return `${step.kind} ${step.backend}/${name}`;
}
