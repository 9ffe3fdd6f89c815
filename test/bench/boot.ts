// From the start of the daemon to the first answered request while ZooKeeper is away, with nothing running and one service
// that nothing is known of: HAProxy serves from what was saved. Beside the floor of the same run: `node` alone. Exits with
// 1 when over the budget.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { freePort } from '../support/haproxy.ts';
import { ask } from '../support/load.ts';
import { createSavedHost, serviceFile } from '../support/saved-host.ts';
import { root } from '../support/tandem.ts';
import { HEADER, quantile, row } from './statistics.ts';
import { judge } from './verdict.ts';

const SERVICES = 10;
const INSTANCES = 10;
const ROUNDS = 10;
const BUDGET_MS = 1_000;
const LIMIT_MS = 30_000;
/** What the systemd unit runs. */
const BUNDLE = [path.join(root, 'bundle', 'tandem-discovery.mjs')];

async function untilAnswered(port: number): Promise<void> {
  const giveUpAt = performance.now() + LIMIT_MS;
  for (;;) {
    try {
      await ask(port);
      return;
    } catch (error) {
      if (performance.now() > giveUpAt) throw error;
    }
    await sleep(2);
  }
}

await using saved = await createSavedHost({ services: SERVICES, members: INSTANCES });
const { host, services } = saved;
await host.write('new', serviceFile('new', await freePort()));
const floors: number[] = [];
const boots: number[] = [];
for (let round = 0; round < ROUNDS; round += 1) {
  const emptyAt = performance.now();
  await once(spawn(process.execPath, ['-e', '0'], { stdio: 'ignore' }), 'exit');
  floors.push(performance.now() - emptyAt);

  const startedAt = performance.now();
  const daemon = host.start(host.config, BUNDLE);
  await Promise.all(services.map(({ listen }) => untilAnswered(listen)));
  boots.push(performance.now() - startedAt);

  await host.end(daemon, 'SIGKILL');
  await host.killHaproxy();
}
console.log(HEADER);
console.log(row('floor: an empty Node.js process', floors));
console.log(row('every service answers', boots));
judge('every service answers, p50', quantile(boots, 0.5), BUDGET_MS, 'ms');
