import { isDeepStrictEqual } from 'node:util';

import type { AddressResolver, HostConfig, Instance, Log } from '@tandem/core';
import type { Announcer } from '@tandem/registry';

import { announcementOf } from './announcement.ts';
import type { Check, CheckContext } from './check.ts';
import { type CheckConfig, createCheck, scheduleOf } from './checks/kinds.ts';
import type { ServiceRegistration } from './config.ts';
import { combineHealth, type Health } from './health.ts';
import { type Clock, createProbeLoop, type ProbeLoop } from './probe-loop.ts';

export interface CheckStatus {
  /** Where it stands in the configuration, such as `checks[0].http`. */
  readonly check: string;
  readonly health: Health;
  /** Why the last probe failed. */
  readonly reason?: string;
}

/** Turns a configured check into one that can be probed. */
export type CheckFactory = (config: CheckConfig, context: CheckContext) => Check;

export interface ServiceDeps {
  readonly host: HostConfig;
  readonly announcer: Announcer;
  readonly log: Log;
  readonly clock: Clock;
  readonly resolver: AddressResolver;
  readonly createCheck?: CheckFactory;
  /** Called after an instance was given to the announcer. */
  readonly onAnnounced?: () => void;
}

/** One service of this host: its checks, its health, and what stands in the registry because of them. */
export interface Service {
  /**
   * The registration has changed, its place has not. Checks that stayed the same go on with what they know. An announcer
   * that takes over from another one is told what the service knows.
   */
  update(registration: ServiceRegistration, successor?: Announcer): void;
  readonly health: Health;
  /** Whether the last word to the registry was an instance. */
  readonly isAnnounced: boolean;
  checks(): CheckStatus[];
  /** Ends all probing. What stands in the registry stays. */
  stop(): Promise<void>;
}

interface RunningCheck {
  readonly config: CheckConfig;
  readonly loop: ProbeLoop;
}

export function createService(deps: ServiceDeps, registration: ServiceRegistration): Service {
  const makeCheck = deps.createCheck ?? createCheck;
  let current = registration;
  let running: RunningCheck[] = [];
  let ended: Promise<unknown> = Promise.resolve();
  let stopped = false;
  let { announcer } = deps;
  /** The last word to the announcer; undecided while there was none. */
  let said: Instance | undefined | 'undecided' = 'undecided';

  function health(): Health {
    const { finding } = current;
    const found = finding === undefined ? [] : [finding.health];
    return combineHealth([...running.map(({ loop }) => loop.health), ...found]);
  }

  function decide(): void {
    if (stopped) return;
    const wanted = announcementOf(health(), current.config, deps.host);
    if (wanted === 'undecided' || isDeepStrictEqual(wanted, said)) return;
    said = wanted;
    announcer.set(wanted);
    if (wanted !== undefined) deps.onAnnounced?.();
  }

  function start(config: CheckConfig): RunningCheck {
    const loop = createProbeLoop({
      check: makeCheck(config, {
        service: current.service,
        port: current.config.port,
        resolver: deps.resolver,
      }),
      schedule: scheduleOf(config),
      clock: deps.clock,
      onHealth: (health, reason) => {
        const facts = { ...factsOf(check), health, ...(reason === undefined ? {} : { reason }) };
        deps.log.info(facts, 'health changed');
        decide();
      },
      onBroken: (error) => deps.log.error({ ...factsOf(check), err: error }, 'check is broken'),
    });
    const check = { config, loop };
    return check;
  }

  /** The names of now: a check that goes on may have got another place or another service. */
  function factsOf(check: RunningCheck): { service: string; check: string } {
    return { service: current.service, check: nameOf(check.config, running.indexOf(check)) };
  }

  function apply(): void {
    const spare = [...running];
    running = current.config.checks.map((config) => {
      const at = spare.findIndex((candidate) => isDeepStrictEqual(candidate.config, config));
      return spare.splice(at, at === -1 ? 0 : 1)[0] ?? start(config);
    });
    ended = Promise.all([ended, ...spare.map(({ loop }) => loop.stop())]);
    decide();
  }

  apply();
  return {
    update(registration, successor) {
      tellFinding(deps.log, current, registration);
      current = registration;
      if (successor !== undefined) {
        announcer = successor;
        said = 'undecided';
      }
      apply();
    },
    get health() {
      return health();
    },
    get isAnnounced() {
      return said !== undefined && said !== 'undecided';
    },
    checks: () => [
      ...running.map(({ config, loop }, index) => statusOf(config, index, loop)),
      ...(current.finding === undefined ? [] : [current.finding]),
    ],
    async stop() {
      stopped = true;
      await Promise.all([ended, ...running.map(({ loop }) => loop.stop())]);
    },
  };
}

/** Like the results of checks, it is told when it changes. */
function tellFinding(
  log: Log,
  before: ServiceRegistration,
  { service, origin, finding }: ServiceRegistration,
): void {
  if (finding === undefined || before.finding?.health === finding.health) return;
  log.info({ service, origin, ...finding }, 'health changed');
}

function statusOf(config: CheckConfig, index: number, loop: ProbeLoop): CheckStatus {
  const { health, reason } = loop;
  return { check: nameOf(config, index), health, ...(reason === undefined ? {} : { reason }) };
}

function nameOf(config: CheckConfig, index: number): string {
  return `checks[${index}].${config.kind}`;
}
