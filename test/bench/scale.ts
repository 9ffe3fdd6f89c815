// Work follows the change, not the fleet: what one change costs with 10,000 instances in 100 services, as a ratio to
// the same with 100 instances. What the daemon does anyway is measured first and taken off. Exits with 1 when over.
import { setTimeout as sleep } from 'node:timers/promises';

import { Fleet } from './fleet.ts';
import { quantile } from './statistics.ts';
import { judge } from './verdict.ts';

const SERVICES = 100;
const CHANGES = 300;
const EVERY_MS = 33;
const QUIET_MS = 10_000;
const MAX_RATIO = 2;

/** Of one change: CPU of the daemon, and the time until HAProxy has it. */
async function cost(instances: number): Promise<{ cpuMs: number; medianMs: number }> {
  await using fleet = await Fleet.create({ services: SERVICES, instances });
  await fleet.start(SERVICES * instances);
  await sleep(3_000);
  const idle = fleet.usage();
  await sleep(QUIET_MS);
  const idleShare = (fleet.usage().cpuMs - idle.cpuMs) / QUIET_MS;

  const before = fleet.usage();
  const startedAt = performance.now();
  const nodes: string[] = [];
  for (let change = 0; change < CHANGES; change += 1) {
    await sleep(Math.max(0, startedAt + change * EVERY_MS - performance.now()));
    const oldest = change % 2 === 1 ? nodes.shift() : undefined;
    const service = fleet.services[change % SERVICES] ?? '';
    if (oldest === undefined) nodes.push(await fleet.announce(service, 1_000_000 + change));
    else await fleet.withdraw(oldest);
  }
  const elapsedMs = performance.now() - startedAt;
  const busyMs = fleet.usage().cpuMs - before.cpuMs - idleShare * elapsedMs;

  const delays: number[] = [];
  for (let change = 0; change < 30; change += 1) {
    const service = fleet.services[change] ?? '';
    const at = performance.now();
    await fleet.announce(service, 2_000_000 + change);
    delays.push((await fleet.untilRouted(service, 2_000_000 + change, true)) - at);
    await sleep(50);
  }
  const medianMs = quantile(delays, 0.5);
  const perChange = busyMs / CHANGES;
  console.log(
    `${SERVICES * instances} instances: ${perChange.toFixed(2)} ms of CPU a change, seen after ${medianMs.toFixed(1)} ms; idle ${(idleShare * 1_000).toFixed(1)} ms of CPU a second`,
  );
  return { cpuMs: perChange, medianMs };
}

const small = await cost(1);
const large = await cost(100);
judge('CPU of a change, ratio', large.cpuMs / small.cpuMs, MAX_RATIO, '');
judge('time until HAProxy has it, ratio', large.medianMs / small.medianMs, MAX_RATIO, '');
