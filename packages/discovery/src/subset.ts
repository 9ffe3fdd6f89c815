import { type Instance, instanceId } from '@tandem/core';

/**
 * At most `size` instances, chosen by rendezvous hashing: every host ranks all instances in an order of its own, which
 * depends on nothing else, and takes the first. So the hosts of a fleet spread evenly, and when one instance comes or
 * goes at most one member changes. Those that do not count fill places that nobody else wants.
 */
export function chooseSubset(
  instances: readonly Instance[],
  size: number,
  hostName: string,
  counts: (instance: Instance) => boolean,
): readonly Instance[] {
  if (instances.length <= size) return instances;
  const ranked = instances.map((instance, index) => ({
    index,
    group: counts(instance) ? 0 : 1,
    rank: hash(`${hostName}\n${instanceId(instance)}`),
  }));
  // Where two hashes meet, the order of the snapshot decides, which is the same everywhere.
  ranked.sort((a, b) => a.group - b.group || a.rank - b.rank || a.index - b.index);
  const chosen = new Set(ranked.slice(0, size).map(({ index }) => index));
  return instances.filter((_, index) => chosen.has(index));
}

/**
 * The one instance that leads: the first in the order of snapshots that counts. It depends on the instances alone, so
 * that all hosts agree, also one that has just started. That an instance which joins may come before the one that led
 * is the price: a host that stuck to its leader would disagree with those that never knew it.
 */
export function chooseLeader(
  instances: readonly Instance[],
  counts: (instance: Instance) => boolean,
): readonly Instance[] {
  const leader = instances.find(counts) ?? instances[0];
  return leader === undefined ? [] : [leader];
}

/** FNV-1a with the last mixing steps of MurmurHash3: alike texts must not end up alike. */
function hash(text: string): number {
  let value = 2_166_136_261;
  for (let index = 0; index < text.length; index += 1) {
    value = Math.imul(value ^ text.charCodeAt(index), 16_777_619);
  }
  value = Math.imul(value ^ (value >>> 16), 0x85eb_ca6b);
  value = Math.imul(value ^ (value >>> 13), 0xc2b2_ae35);
  return (value ^ (value >>> 16)) >>> 0;
}
