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
  /** Needed for what no step can do. */
  readonly reload: ReloadReason | undefined;
}

/** What is to be considered beside what runs and what is wanted: servers, each as `BACKEND/SERVER`. */
export interface Circumstances {
  /** Added, and waiting in maintenance for HAProxy's own first check. */
  readonly waiting: ReadonlySet<string>;
  /** Put into drain or maintenance by somebody else, whose will is respected. */
  readonly left: ReadonlySet<string>;
  /** Out of rotation, and without a session for long enough. */
  readonly quiet: ReadonlySet<string>;
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
    return { steps: [], outcome: new Map(), reload };
  }
  const abilities = abilitiesOf(running.version);
  const gains: Step[] = [];
  const losses: Step[] = [];
  const outcome = new Map<string, readonly ReportedServer[]>();
  let reload: ReloadReason | undefined;
  for (const proxy of desired.structure.proxies) {
    const wanted = desired.membership.get(proxy.name);
    if (wanted === undefined) continue;
    const present = running.backends.get(proxy.name) ?? [];
    if (circumstances.isSettled(proxy.name, present, wanted)) continue;
    const plan = planBackend(proxy, { present, wanted, abilities, circumstances });
    if (plan.kind === 'reload') reload ??= reasonFor(plan, running.version);
    else {
      gains.push(...plan.gains);
      losses.push(...plan.losses);
      outcome.set(proxy.name, plan.outcome);
    }
  }
  return { steps: [...gains, ...losses], outcome, reload };
}

/** Whether a step takes traffic from a server, or the server itself away. */
export function isLoss(step: Step): boolean {
  return step.kind === 'drain' || step.kind === 'maint' || step.kind === 'delete';
}

/** Whether a server of this backend has to wait for its first check. */
export function isGated(proxy: Proxy, server: Server): boolean {
  return (
    proxy.firstCheckMs !== undefined &&
    checksOf(`${proxy.serverOptions} ${server.options}`).includes('health')
  );
}

type BackendPlan =
  | {
      readonly kind: 'update';
      readonly gains: readonly Step[];
      readonly losses: readonly Step[];
      readonly outcome: readonly ReportedServer[];
    }
  | { readonly kind: 'reload'; readonly reason: UnversionedReason };

type UnversionedReason =
  | Exclude<ReloadReason, { kind: 'option-not-dynamic' }>
  | Omit<Extract<ReloadReason, { kind: 'option-not-dynamic' }>, 'version'>;

function reasonFor({ reason }: { reason: UnversionedReason }, version: string): ReloadReason {
  return reason.kind === 'option-not-dynamic' ? { ...reason, version } : reason;
}

interface BackendScene {
  readonly present: readonly ReportedServer[];
  readonly wanted: readonly Server[];
  readonly abilities: Abilities;
  readonly circumstances: Circumstances;
}

function planBackend(proxy: Proxy, scene: BackendScene): BackendPlan {
  const { present, wanted, abilities, circumstances } = scene;
  const { open, others } = compare(present, wanted);
  const gains: Step[] = [];
  const losses: Step[] = [];
  let members: ReportedServer[] | undefined;
  let isAnyWaiting = false;
  for (const index of open) {
    const server = wanted[index] as Server;
    const found = others.get(server.name);
    others.delete(server.name);
    const planned = planMember(proxy, found, server, scene);
    if (planned.reason !== undefined) return { kind: 'reload', reason: planned.reason };
    for (const step of planned.steps) (isLoss(step) ? losses : gains).push(step);
    isAnyWaiting ||= planned.isWaiting === true;
    if (planned.state === undefined || planned.state === server.state) continue;
    members ??= [...wanted];
    members[index] = { ...server, state: planned.state };
  }
  // Nobody else serves before the first check of those that wait: who leaves stays until then.
  const canDrain = !isAnyWaiting || members?.some(({ state }) => state === 'ready') === true;
  const rest = planOthers(proxy.name, [...others.values()], { canDrain, abilities, circumstances });
  const count = rest.outcome.length;
  if (count > abilities.maxTombstones)
    return { kind: 'reload', reason: { kind: 'too-many-tombstones', backend: proxy.name, count } };
  return {
    kind: 'update',
    gains,
    losses: [...losses, ...rest.losses],
    outcome: count === 0 ? (members ?? wanted) : [...(members ?? wanted), ...rest.outcome],
  };
}

/**
 * The places of the wanted servers that are not there as they are wanted, and those that are there beside the others.
 * Both lists are mostly in the same order, and the same objects.
 */
function compare(
  present: readonly ReportedServer[],
  wanted: readonly Server[],
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
    if (wanted[index] === found) index += 1;
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
    const isQuiet = abilities.deletesDrained && circumstances.quiet.has(addressOf(backend, server.name));
    if (server.state !== 'ready' && isQuiet) {
      losses.push({ kind: 'delete', backend, server: server.name });
    } else if (server.state === 'ready' && canDrain) {
      losses.push({ kind: 'drain', backend, server: server.name });
      outcome.push({ ...server, state: 'drain' });
    } else outcome.push(server);
  }
  return { losses, outcome };
}

interface PlannedMember {
  readonly steps: readonly Step[];
  /** What it is for the time being, unless what is wanted of it. */
  readonly state?: ServerState;
  /** For its first check. */
  readonly isWaiting?: boolean;
  readonly reason?: UnversionedReason;
}

function planMember(
  proxy: Proxy,
  found: ReportedServer | undefined,
  server: Server,
  { abilities, circumstances }: BackendScene,
): PlannedMember {
  const backend = proxy.name;
  if (found === undefined) {
    const reason = whyNotAdded(proxy, server, abilities);
    if (reason !== undefined) return { steps: [], reason };
    const state = server.state === 'ready' && isGated(proxy, server) ? 'maint' : server.state;
    return {
      steps: [{ kind: 'add', backend, server, serverOptions: proxy.serverOptions, state }],
      state,
      isWaiting: state !== server.state,
    };
  }
  if (found.address !== server.address || found.port !== server.port)
    return { steps: [], reason: { kind: 'server-moved', backend, server: server.name } };
  const steps: Step[] = [];
  if (found.weight !== server.weight) {
    const line = staticLine(proxy);
    if (line !== undefined) return { steps, reason: { kind: 'backend-not-dynamic', backend, line } };
    steps.push({ kind: 'weight', backend, server: server.name, weight: server.weight });
  }
  if (found.state === server.state) return { steps };
  if (server.state === 'ready') {
    const address = addressOf(backend, server.name);
    const isWaiting = found.state === 'maint' && circumstances.waiting.has(address);
    if (isWaiting || circumstances.left.has(address)) return { steps, state: found.state, isWaiting };
  }
  return { steps: [...steps, { kind: server.state, backend, server: server.name }] };
}

/** What keeps a server from being added at run time, known without having tried. */
function whyNotAdded(proxy: Proxy, server: Server, abilities: Abilities): UnversionedReason | undefined {
  const backend = proxy.name;
  const line = staticLine(proxy);
  if (line !== undefined) return { kind: 'backend-not-dynamic', backend, line };
  const option = staticOption(`${proxy.serverOptions} ${server.options}`.trim(), abilities);
  return option === undefined ? undefined : { kind: 'option-not-dynamic', backend, option };
}
