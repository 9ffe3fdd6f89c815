import type { Rejection } from '@tandem/core';

import type { HaproxyConfig } from '../config/haproxy.ts';
import type { Offers } from '../output.ts';
import { createMembershipBuilder, type Membership } from './membership.ts';
import { withoutIdleOptions } from './server-options.ts';
import { buildStructure, type Structure } from './structure.ts';

/** What HAProxy shall be. */
export interface Desired {
  readonly structure: Structure;
  readonly membership: Membership;
}

/**
 * Turns offers into what HAProxy shall be, and says by service which instances it must never see. Pure but for its
 * memory: parts that come from equal input are the same objects again, so that whoever compares them sees at a glance
 * what has changed.
 */
export function createDesiredBuilder(config: HaproxyConfig): (offers: Offers) => {
  readonly desired: Desired;
  readonly rejected: ReadonlyMap<string, readonly Rejection[]>;
} {
  let services: readonly unknown[] = [];
  const buildMembership = createMembershipBuilder();
  let structure = buildStructure(config, []);
  return (offers) => {
    const wanted = [...offers.values()].map(({ service }) => service);
    if (wanted.length !== services.length || wanted.some((service, index) => service !== services[index])) {
      services = wanted;
      structure = withoutIdleOptions(buildStructure(config, wanted));
    }
    const { membership, rejected } = buildMembership(offers);
    return { desired: { structure, membership }, rejected };
  };
}
