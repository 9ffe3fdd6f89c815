import type { DiscoveredService } from '../config/discover.ts';
import type { HaproxyConfig } from '../config/haproxy.ts';
import { buildRoutes, type Routes } from './maps.ts';
import {
  type Assignment,
  assignSpares,
  noSpares,
  type Placement,
  placementOf,
  placeService,
  SPARE_REST_MS,
  type Spares,
} from './ports.ts';
import type { Allowance } from './render.ts';
import { fullestOptions, withoutIdleOptions } from './server-options.ts';
import { buildStructure, type Structure } from './structure.ts';

/** Everything that follows from which services there are, whatever their instances. */
export interface Layout {
  readonly structure: Structure;
  readonly assignment: Assignment;
  /** By service; nothing for those that no backend serves. */
  readonly placements: ReadonlyMap<string, Placement>;
  /** What servers may look like, for every service that a backend serves. */
  readonly allowances: readonly Allowance[];
  readonly routes: Routes;
  /** The routes without those that lead to these services. */
  readonly routesWithout: (services: ReadonlySet<string>) => Routes;
  /** Services that are served nowhere, with the reason and what to do about it. */
  readonly unplaced: ReadonlyMap<string, string>;
  /** When a service without a place may get one: nothing else has to change for it. */
  readonly reviseAt: number | undefined;
}

/**
 * Lays services out. Pure but for its memory of which spare serves which service, and since when the others are free;
 * the same services give the same object again, until it is to be revised.
 * @param previous what an earlier daemon has left (`readSpares`)
 */
export function createLayout(
  config: HaproxyConfig,
  previous: Spares = noSpares,
  now: () => number = () => performance.now(),
): (services: readonly DiscoveredService[]) => Layout {
  let spares = previous;
  let known: readonly DiscoveredService[] = [];
  let layout: Layout | undefined;
  // Nobody knows how long ago that was.
  let freedAt: ReadonlyMap<string, number> = new Map(previous.freed.map((spare) => [spare, now()]));
  return (services) => {
    const isKnown =
      services.length === known.length && services.every((service, index) => service === known[index]);
    const at = now();
    if (layout !== undefined && isKnown && at < (layout.reviseAt ?? Infinity)) return layout;
    known = services;
    const rested = at - SPARE_REST_MS;
    const resting = new Set([...freedAt].filter(([, since]) => since > rested).map(([spare]) => spare));
    const assignment = assignSpares(config, services, spares, resting);
    const before = freedAt;
    freedAt = new Map(assignment.spares.freed.map((spare) => [spare, before.get(spare) ?? at]));
    spares = assignment.spares;
    const placements = findPlacements(config, services, assignment);
    layout = {
      structure: withoutIdleOptions(buildStructure(config, services)),
      assignment,
      placements,
      allowances: findAllowances(services, placements),
      routes: buildRoutes(config, services, assignment),
      routesWithout: (absent) =>
        buildRoutes(
          config,
          services.filter(({ service }) => !absent.has(service)),
          assignment,
        ),
      unplaced: findUnplaced(config, services, assignment),
      reviseAt: assignment.isWaiting ? reviseAt(freedAt, at) : undefined,
    };
    return layout;
  };
}

/** When the first of those that rest now has rested. */
function reviseAt(freedAt: ReadonlyMap<string, number>, at: number): number {
  const ends = [...freedAt.values()].map((since) => since + SPARE_REST_MS).filter((end) => end > at);
  return Math.min(...ends);
}

function findPlacements(
  config: HaproxyConfig,
  services: readonly DiscoveredService[],
  assignment: Assignment,
): ReadonlyMap<string, Placement> {
  return new Map(
    services.flatMap((service) => {
      const placement = placementOf(service, placeService(config, service), assignment);
      return placement === undefined ? [] : [[service.service, placement] as const];
    }),
  );
}

function findAllowances(
  services: readonly DiscoveredService[],
  placements: ReadonlyMap<string, Placement>,
): Allowance[] {
  return services.flatMap(({ service, config: { instanceOptions } }) => {
    const placement = placements.get(service);
    return placement === undefined ? [] : [{ service, ...placement, own: fullestOptions(instanceOptions) }];
  });
}

function findUnplaced(
  config: HaproxyConfig,
  services: readonly DiscoveredService[],
  { homeless }: Assignment,
): ReadonlyMap<string, string> {
  const unplaced = new Map(homeless);
  for (const service of services) {
    const place = placeService(config, service);
    if (place.kind === 'impossible') unplaced.set(service.service, `${place.reason}. ${place.remedy}`);
  }
  return unplaced;
}
