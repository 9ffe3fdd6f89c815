// One service of a thousand instances changes ten times a second: what does it cost the daemon and ZooKeeper, and how
// far behind is HAProxy at the end? Beside the floors of the same run: what the daemon costs when nothing changes, and the
// bare writes and questions. Then ten thousand changes: is the memory flat? Exits with 1 when over a budget.
import { setTimeout as sleep } from 'node:timers/promises';

import { ask, Fleet } from './fleet.ts';
import { HEADER, row } from './statistics.ts';
import { judge } from './verdict.ts';

const INSTANCES = 1_000;
const CHANGES = 300;
const EVERY_MS = 100;
const QUIET_MS = 10_000;
const MAX_CPU_MS = 1_000;
const MAX_PACKETS = 1_000;
const MAX_LAG_MS = 100;
const LONG = { rounds: 10, changes: 1_000, batch: 20 };
const MAX_GROWTH = 1.15;

await using fleet = await Fleet.create({ services: 1, instances: INSTANCES });
const service = fleet.services[0] ?? '';
await fleet.start(INSTANCES);
await sleep(3_000);

const worker = await fleet.worker();
const idle = { ...fleet.usage(), packets: await fleet.packets() };
await sleep(QUIET_MS);
const share = (CHANGES * EVERY_MS) / QUIET_MS;
const idleCpuMs = (fleet.usage().cpuMs - idle.cpuMs) * share;
const idlePackets = ((await fleet.packets()) - idle.packets) * share;
console.log(
  `floor: nothing changes for as long: ${idleCpuMs.toFixed(0)} ms of CPU, ${idlePackets.toFixed(0)} ZooKeeper packets; ${fleet.usage().residentMb.toFixed(0)} MB`,
);

const packets = await fleet.packets();
const before = fleet.usage();
const nodes: string[] = [];
const writes: number[] = [];
const startedAt = performance.now();
for (let change = 0; change < CHANGES; change += 1) {
  await sleep(Math.max(0, startedAt + change * EVERY_MS - performance.now()));
  const oldest = change % 2 === 1 ? nodes.shift() : undefined;
  const at = performance.now();
  if (oldest === undefined) nodes.push(await fleet.announce(service, 1_000_000 + change));
  else await fleet.withdraw(oldest);
  writes.push(performance.now() - at);
}
const last = performance.now();
const index = 2_000_000;
nodes.push(await fleet.announce(service, index));
const lagMs = (await fleet.untilRouted(service, index, true)) - last;
const cpuMs = fleet.usage().cpuMs - before.cpuMs;
const usedPackets = (await fleet.packets()) - packets;
const questions: number[] = [];
for (let count = 0; count < 100; count += 1) {
  const at = performance.now();
  await ask(fleet.socket, `show servers state ${service}`);
  questions.push(performance.now() - at);
}
console.log(HEADER);
console.log(row('floor: the write to ZooKeeper alone', writes));
console.log(row('floor: to ask HAProxy for the servers of the service', questions));
judge(`CPU for ${CHANGES} changes, watching included`, cpuMs, MAX_CPU_MS, 'ms');
judge('ZooKeeper packets', usedPackets, MAX_PACKETS, '');
judge('lag after the last change', lagMs, MAX_LAG_MS, 'ms');

let first: number | undefined;
let next = 3_000_000;
for (let round = 0; round < LONG.rounds; round += 1) {
  for (let done = 0; done < LONG.changes; done += 2 * LONG.batch) {
    // The same names come round again, as they do when a fleet is deployed over and over.
    const base = 3_000_000;
    const made = await Promise.all(
      Array.from({ length: LONG.batch }, (_, at) => fleet.announce(service, base + at)),
    );
    await sleep(20);
    await Promise.all(made.map((node) => fleet.withdraw(node)));
    await sleep(20);
  }
  next += 1;
  const node = await fleet.announce(service, next);
  await fleet.untilRouted(service, next, true);
  await fleet.withdraw(node);
  await sleep(1_000);
  const { residentMb } = fleet.usage();
  console.log(`after ${(round + 1) * LONG.changes} changes: ${residentMb.toFixed(0)} MB`);
  // What the collector lets grow at first is not a leak.
  if (round === 2) first = residentMb;
}
judge(
  'memory after 10,000 changes, of that after 3,000',
  fleet.usage().residentMb / (first ?? NaN),
  MAX_GROWTH,
  '',
);
judge('reloads', (await fleet.worker()) === worker ? 0 : 1, 0, '');
