// A znode changes: how long until HAProxy has it? A hundred changes in fleets of three sizes, beside two floors of the
// same run: the bare write to ZooKeeper, and a bare runtime command on the same socket. `npm run bench -- propagation`
// Exits with 1 when a figure is over its budget, or HAProxy was reloaded.
import { setTimeout as sleep } from 'node:timers/promises';

import { ask, Fleet } from './fleet.ts';
import { HEADER, quantile, row } from './statistics.ts';
import { judge } from './verdict.ts';

const CHANGES = 100;
const SIZES = [
  { services: 10, instances: 10, medianMs: 10, p99Ms: 50 },
  { services: 100, instances: 100, medianMs: 15, p99Ms: 80 },
  { services: 100, instances: 1_000, medianMs: 25, p99Ms: 150 },
];
const PAUSE_MS = 50;

async function timed(task: Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  await task;
  return performance.now() - startedAt;
}

for (const { services, instances, medianMs, p99Ms } of SIZES) {
  await using fleet = await Fleet.create({ services, instances });
  await fleet.start(services * instances);
  await sleep(3_000);
  const worker = await fleet.worker();
  const writes: number[] = [];
  const changes: number[] = [];
  const commands: number[] = [];
  for (let change = 0; change < CHANGES / 2; change += 1) {
    const service = fleet.services[change % services] ?? '';
    const index = 1_000_000 + change;

    let startedAt = performance.now();
    const node = await fleet.announce(service, index);
    writes.push(performance.now() - startedAt);
    changes.push((await fleet.untilRouted(service, index, true)) - startedAt);
    await sleep(PAUSE_MS);

    startedAt = performance.now();
    await fleet.withdraw(node);
    writes.push(performance.now() - startedAt);
    changes.push((await fleet.untilRouted(service, index, false)) - startedAt);
    await sleep(PAUSE_MS);
    commands.push(await timed(ask(fleet.socket, `show servers state ${service}`)));
  }
  console.log(`${services} services x ${instances} instances, ${changes.length} changes`);
  console.log(HEADER);
  console.log(row('floor: to ask HAProxy for the servers of one service', commands));
  console.log(row('floor: the write to ZooKeeper alone', writes));
  console.log(row('znode created or deleted -> HAProxy has it', changes));
  const floor = quantile(commands, 0.5) + quantile(writes, 0.5);
  console.log(`median as a ratio to both floors: ${(quantile(changes, 0.5) / floor).toFixed(1)}`);
  judge('median', quantile(changes, 0.5), medianMs, 'ms');
  judge('p99', quantile(changes, 0.99), p99Ms, 'ms');
  judge('reloads', (await fleet.worker()) === worker ? 0 : 1, 0, '');
}
