// The network swallows everything on the way to one server: how long until the client has left it for another one,
// with its session? Beside the floor: the same after a reset, which it is told of. Exits with 1 when over the budget.
import { silentLog } from '@tandem/core';
import { openSession, type Session } from '@tandem/registry/testing';
import { setTimeout as sleep } from 'node:timers/promises';

import { type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts';
import { startRealZooKeeper } from '../support/real-zookeeper.ts';
import { HEADER, row } from './statistics.ts';

const SESSION_TIMEOUT_MS = 6_000;
const ROUNDS = 6;
const BUDGET_MS = (SESSION_TIMEOUT_MS * 2) / 3;

const server = await startRealZooKeeper();
const proxies = await Promise.all([startFaultProxy(server.port), startFaultProxy(server.port)]);
const session = openSession({
  servers: proxies.map(({ port }) => ({ host: '127.0.0.1', port })),
  sessionTimeoutMs: SESSION_TIMEOUT_MS,
  log: silentLog,
});

/** Milliseconds from a fault until the session is connected again. */
async function recovery(session: Session, strike: (proxy: FaultProxy) => void): Promise<number> {
  const id = await session.connected(AbortSignal.timeout(30_000));
  const used = proxies.find(({ open }) => open > 0);
  if (used === undefined) throw new Error('the session has no connection');
  // Stable for a while, as in real life.
  await sleep(2_500);
  const startedAt = performance.now();
  const again = new Promise<number>((resolve, reject) => {
    const end = session.subscribe((state) => {
      if (state.state !== 'connected') return;
      end();
      if (state.id === id) resolve(performance.now() - startedAt);
      else reject(new Error('the session was lost'));
    });
  });
  strike(used);
  const ms = await again;
  used.kill();
  used.pass();
  return ms;
}

const silent: number[] = [];
const told: number[] = [];
try {
  for (let round = 0; round < ROUNDS; round += 1) {
    silent.push(await recovery(session, (proxy) => proxy.blackhole()));
    told.push(await recovery(session, (proxy) => proxy.reset()));
  }
} finally {
  await session.close({ keepSession: false });
  await Promise.all(proxies.map((proxy) => proxy.close()));
  await server.stop();
}
console.log(HEADER);
console.log(row('floor: after a reset', told));
console.log(row('after a blackhole', silent));
const worst = Math.max(...silent);
const isOver = worst > BUDGET_MS;
console.log(
  `${isOver ? 'OVER' : 'ok  '}  worst ${(worst / SESSION_TIMEOUT_MS).toFixed(2)} of the session timeout (budget 0.67), session kept`,
);
process.exitCode = isOver ? 1 : 0;
