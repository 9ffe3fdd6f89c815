import { nearest, SocketPath } from '@tandem/core';

import type { DiscoveredService } from '../config/discover.ts';
import type { HaproxyConfig } from '../config/haproxy.ts';
import { placeService } from './ports.ts';
import { buildStructure, mapFilesOf } from './structure.ts';

/** Why a service cannot be routed to as its file asks for, told to the person who must mend it. */
export interface RoutingProblem {
  /** A key of the service file. */
  readonly path: readonly string[];
  readonly reason: string;
  readonly remedy: string;
}

/** What does not fit together between the `haproxy` section of the host file and one service. */
export function findRoutingProblems(
  config: HaproxyConfig,
  service: Pick<DiscoveredService, 'service' | 'config'>,
): RoutingProblem[] {
  return [
    ...reservedName(service),
    ...unknownFrontend(config, service),
    ...impossiblePlace(config, service),
    ...foreignSection(config, service),
  ];
}

/** Frontends and backends of Tandem's own. */
const RESERVED_NAME = /^tandem-/;

function reservedName({ service }: Pick<DiscoveredService, 'service'>): RoutingProblem[] {
  if (!RESERVED_NAME.test(service)) return [];
  const reason = 'names that start with tandem- are those of Tandem in haproxy.cfg';
  return [{ path: ['service'], reason, remedy: 'Choose another name' }];
}

function unknownFrontend(
  { sharedFrontends }: HaproxyConfig,
  { config: { sharedFrontend: name } }: Pick<DiscoveredService, 'config'>,
): RoutingProblem[] {
  if (name === undefined || Object.hasOwn(sharedFrontends, name)) return [];
  const known = Object.keys(sharedFrontends);
  const near = nearest(name, known);
  const remedy =
    known.length === 0
      ? 'Define it in the host file'
      : `Known: ${known.join(', ')}${near === undefined ? '' : `. Did you mean ${JSON.stringify(near)}?`}`;
  const reason = `${JSON.stringify(name)} is not one of haproxy.shared_frontends`;
  return [{ path: ['discover', 'shared_frontend'], reason, remedy }];
}

function impossiblePlace(
  config: HaproxyConfig,
  service: Pick<DiscoveredService, 'config'>,
): RoutingProblem[] {
  const place = placeService(config, service);
  if (place.kind !== 'impossible') return [];
  const { key, reason, remedy } = place;
  return [{ path: ['discover', key], reason, remedy }];
}

/** A frontend and a backend may have the same name, two of a kind may not, and a `listen` section is both. */
function foreignSection(
  config: HaproxyConfig,
  { service, config: discover }: Pick<DiscoveredService, 'service' | 'config'>,
): RoutingProblem[] {
  if (placeService(config, { config: discover }).kind !== 'own') return [];
  const hasFrontend = discover.listen !== undefined;
  const kinds = hasFrontend ? ['frontend', 'backend', 'listen'] : ['backend', 'listen'];
  const isRouted = hasFrontend || discover.hosts.length > 0;
  const title = Object.keys(config.extraSections).find((one) => {
    const [kind = '', name] = one.trim().split(/\s+/);
    return isRouted && name === service && kinds.includes(kind);
  });
  const remedy = 'Give one of them another name';
  const problems: RoutingProblem[] = [];
  if (title !== undefined) {
    const reason = `haproxy.extra_sections has a section ${JSON.stringify(title)}, which would be one of this service, too`;
    problems.push({ path: ['service'], reason, remedy });
  }
  if (hasFrontend && Object.hasOwn(config.sharedFrontends, service)) {
    const reason = `haproxy.shared_frontends has a frontend ${JSON.stringify(service)}, and a service that listens has one of its own name`;
    problems.push({ path: ['service'], reason, remedy });
  }
  return problems;
}

/** Paths of map files stand between brackets in haproxy.cfg, and on HAProxy's command line. */
const PLAIN_PATH = /^[A-Za-z0-9_./-]+$/;

/** What is wrong with the `haproxy` section once its paths are absolute. */
export function findPathProblems(config: HaproxyConfig): RoutingProblem[] {
  const remedy = 'Choose another path';
  const problems: RoutingProblem[] = [];
  if (!mapFilesOf(buildStructure(config, [])).every((file) => PLAIN_PATH.test(file))) {
    const reason = `${config.configFile} has map files beside it, whose paths may hold only letters, digits and _./-`;
    problems.push({ path: ['haproxy', 'config_file'], reason, remedy });
  }
  // Whoever writes a relative path chooses only its end.
  const sockets = [
    ['runtime_socket', config.runtimeSocket],
    ...(config.mode === 'managed' ? [['master_socket', config.masterSocket] as const] : []),
  ] as const;
  for (const [key, socket] of sockets) {
    const issue = SocketPath().safeParse(socket).error?.issues[0];
    if (issue === undefined) continue;
    problems.push({ path: ['haproxy', key], reason: `${JSON.stringify(socket)}: ${issue.message}`, remedy });
    // The other one lies beside it unless somebody has said otherwise.
    break;
  }
  return problems;
}
