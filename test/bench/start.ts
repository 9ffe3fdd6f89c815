// From nothing to a HAProxy that routes to a whole fleet: the daemon, with its ZooKeeper full of instances, started on an
// empty state directory. Beside it the floor of the same run: `node` alone. Exits with 1 when over a budget.
import { spawn } from 'node:child_process';
import { once } from 'node:events';

import { Fleet } from './fleet.ts';
import { judge } from './verdict.ts';

const SIZES = [
  { services: 100, instances: 100, limitMs: 1_000 },
  { services: 100, instances: 1_000, limitMs: 5_000 },
];
const MAX_MB = 250;

const startedAt = performance.now();
await once(spawn(process.execPath, ['-e', '0'], { stdio: 'ignore' }), 'exit');
console.log(`floor: an empty Node.js process ${Math.round(performance.now() - startedAt)} ms`);
for (const { services, instances, limitMs } of SIZES) {
  await using fleet = await Fleet.create({ services, instances });
  const ms = await fleet.start(services * instances);
  const { residentMb, peakMb, cpuMs } = fleet.usage();
  console.log(
    `${services} services x ${instances} instances: ${cpuMs} ms of CPU, ${residentMb.toFixed(0)} MB`,
  );
  judge('a correct running HAProxy after', ms, limitMs, 'ms');
  judge('memory at its worst', peakMb, MAX_MB, 'MB');
}
