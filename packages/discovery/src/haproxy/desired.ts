import type { Rejection } from '@tandem/core';

import type { HaproxyConfig } from '../config/haproxy.ts';
import type { Offer, Offers } from '../output.ts';
import { createLayout } from './layout.ts';
import type { Routes } from './maps.ts';
import { createMembershipBuilder, type Holds, type Membership } from './membership.ts';
import { placeMembership, type Spares } from './ports.ts';
import type { Allowance } from './render.ts';
import type { Structure } from './structure.ts';
import type { Limits } from './vet.ts';

/** What HAProxy shall be. */
export interface Desired {
  readonly structure: Structure;
  readonly membership: Membership;
  readonly routes: Routes;
  /** Who is held of services of which nothing else is known, by backend. */
  readonly holds?: Holds;
  /** What servers may look like: to be vetted with the structure. */
  readonly allowances: readonly Allowance[];
  /** The same as far as HAProxy can have it. */
  readonly within: (limits: Limits) => Pick<Desired, 'membership' | 'routes'>;
}

/**
 * Turns offers into what HAProxy shall be, and says by service which instances it must never see. Pure but for its
 * memory: parts that come from equal input are the same objects again, so that whoever compares them sees at a glance
 * what has changed.
 * @param spares which spare backend serves which service so far
 */
export function createDesiredBuilder(
  config: HaproxyConfig,
  spares?: Spares,
): (offers: Offers) => {
  readonly desired: Desired;
  readonly rejected: ReadonlyMap<string, readonly Rejection[]>;
  /** Services that are served nowhere, with the reason and what to do about it. */
  readonly unplaced: ReadonlyMap<string, string>;
  /** By backend: the service that it serves. */
  readonly serviceOf: ReadonlyMap<string, string>;
  /** When the same offers may make something else, as time passes. */
  readonly reviseAt: number | undefined;
} {
  const layOut = createLayout(config, spares);
  const buildMembership = createMembershipBuilder();
  const buildPlain = createMembershipBuilder();
  return (offers) => {
    const services = [...offers.values()].map(({ service }) => service);
    const layout = layOut(services);
    const { structure, assignment, placements, routes, allowances, unplaced, reviseAt } = layout;
    const { membership, rejected } = buildMembership(offers, placements);
    const placed = placeMembership(membership, structure.portRanges, assignment);
    const serviceOf = new Map([...placements].map(([service, { backend }]) => [backend, service]));
    const holds = new Map(
      [...offers].flatMap(([name, offer]): [string, Offer['holds']][] =>
        offer.instances === undefined ? [[placements.get(name)?.backend ?? name, offer.holds]] : [],
      ),
    );
    const within = ({ plain, unserved }: Limits) => {
      if (plain.size === 0 && unserved.size === 0) return { membership: placed, routes };
      const limited = new Map(placed);
      const plainOffers = new Map([...offers].filter(([name]) => plain.has(name)).map(withoutOwnOptions));
      for (const [backend, servers] of buildPlain(plainOffers, placements).membership)
        limited.set(backend, servers);
      for (const name of unserved) {
        const backend = placements.get(name)?.backend;
        if (backend !== undefined) limited.set(backend, NOBODY);
      }
      return {
        membership: limited,
        routes: unserved.size === 0 ? routes : layout.routesWithout(unserved),
      };
    };
    const desired = { structure, membership: placed, routes, allowances, within, holds };
    return { desired, rejected, unplaced, serviceOf, reviseAt };
  };
}

const NOBODY: readonly never[] = [];

/** A weight is no option of the line: it changes nothing of what HAProxy takes. */
function withoutOwnOptions([name, offer]: [string, Offer]): [string, Offer] {
  const { service } = offer;
  const instanceOptions = service.config.instanceOptions.filter((option) => option === 'weight');
  return [name, { ...offer, service: { ...service, config: { ...service.config, instanceOptions } } }];
}
