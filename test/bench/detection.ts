// An instance dies by kill -9, or starts: how long until HAProxy follows? The promise is the check's interval times
// fall (or rise), and 100 ms on top. Real ZooKeeper, both daemons, no traffic. Exits with 1 when a median is over its
// promise.
import { CHECK, createWorld, watchRouting } from '@tandem/cli/testing';

import { startRealZooKeeper } from '../support/real-zookeeper.ts';
import { HEADER, quantile, row } from './statistics.ts';

const ROUNDS = 20;
const LIMIT_MS = 30_000;
const OUT_MS = CHECK.intervalMs * CHECK.fall + 100;
const IN_MS = CHECK.intervalMs * CHECK.rise + 100;

await using zookeeper = await startRealZooKeeper();
const world = await createWorld(zookeeper.connectString);
const routing = watchRouting({ socket: world.runtimeSocket, backend: 'web' });
const outs: number[] = [];
const ins: number[] = [];
try {
  for (const name of ['web-1', 'web-2']) {
    await world.startInstance(name);
    await world.writeInstanceFile(name);
  }
  await world.writeServiceFile({ balance: 'roundrobin' });
  world.startDaemon('register');
  world.startDaemon('discover');
  const port = world.portOf('web-2');
  const follow = async (isIn: boolean, since: number): Promise<number> => {
    const at = await routing.until(({ ports }) => ports.has(port) === isIn, LIMIT_MS);
    if (at === undefined) throw new Error(`HAProxy did not follow within ${LIMIT_MS} ms`);
    return at - since;
  };
  await follow(true, 0);
  const worker = routing.current?.worker;
  for (let round = 0; round < ROUNDS; round += 1) {
    // At any moment of the check's interval.
    await new Promise((resolve) => setTimeout(resolve, CHECK.intervalMs * Math.random()));
    const killedAt = performance.now();
    await world.signalInstance('web-2', 'SIGKILL');
    outs.push(await follow(false, killedAt));
    const startedAt = await world.startInstance('web-2');
    ins.push(await follow(true, startedAt));
  }
  console.log(`check every ${CHECK.intervalMs} ms, fall ${CHECK.fall}, rise ${CHECK.rise}; ${ROUNDS} rounds`);
  console.log(HEADER);
  console.log(row(`kill -9 of an instance -> out of rotation (promise ${OUT_MS})`, outs));
  console.log(row(`an instance listens -> in rotation (promise ${IN_MS})`, ins));
  const late = [...outs.filter((ms) => ms > OUT_MS), ...ins.filter((ms) => ms > IN_MS)].length;
  const reloads = routing.current?.worker === worker ? 0 : 1;
  console.log(`later than promised: ${late} of ${2 * ROUNDS}; reloads: ${reloads}`);
  if (quantile(outs, 0.5) > OUT_MS || quantile(ins, 0.5) > IN_MS || reloads > 0) process.exitCode = 1;
} finally {
  routing.stop();
  await world.end({ keepFiles: false });
}
