// A port opens at any moment of an HTTP check's interval: how long until its node stands in ZooKeeper? The floor is half
// of the interval, and what a node takes from its creation to a watcher. Exits with 1 when over a budget.
import { once } from 'node:events';
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

import { codecFor, type Instance, silentLog } from '@tandem/core';
import { openRegistry, RegistrySection } from '@tandem/registry';

import { freePorts, startRealZooKeeper } from '../support/real-zookeeper.ts';
import { connectWire, FLAGS, zk } from '../support/zookeeper-wire.ts';
import { RegistrarHost } from './registrar-host.ts';
import { HEADER, quantile, row } from './statistics.ts';
import { judge } from './verdict.ts';

const INTERVAL_MS = 500;
const ROUNDS = 60;
const MAX_MEDIAN_MS = INTERVAL_MS / 2 + 10;
const LIMIT_MS = 30_000;

await using zookeeper = await startRealZooKeeper();
const registrySection = `{ zookeeper: { servers: ['${zookeeper.connectString}'], session_timeout: 10s } }`;
const registry = await openRegistry(
  RegistrySection.parse({ zookeeper: { servers: [zookeeper.connectString], session_timeout: '10s' } }),
  { log: silentLog },
);
const watching = new AbortController();

/** What stands below a path, as a watcher of its own sees it. */
function watch(path: string): (count: number) => Promise<number> {
  let seen = -1;
  let wake = () => {};
  void (async () => {
    for await (const { instances } of registry.watch(path, watching.signal)) {
      seen = instances.length;
      wake();
    }
  })();
  return async (count) => {
    const giveUpAt = performance.now() + LIMIT_MS;
    for (;;) {
      if (seen === count) return performance.now();
      if (performance.now() > giveUpAt) throw new Error(`${path} has ${seen} instances, not ${count}`);
      await Promise.race([new Promise<void>((resolve) => (wake = resolve)), sleep(1_000)]);
    }
  };
}

const [port = 0] = await freePorts(1);
await using host = await RegistrarHost.create({
  registry: registrySection,
  services: new Map([
    ['web', `{ port: ${port}, checks: [{ http: { path: /health, interval: ${INTERVAL_MS}ms } }] }`],
  ]),
});
await host.start(0);
const becomes = watch('/services/web');
await becomes(0);

async function open(): Promise<http.Server> {
  const server = http.createServer((_, response) => response.end('ok')).listen(port, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

const times: number[] = [];
// Every part of the interval once, in no particular order: chance alone would move the median by a tenth.
const moments = Array.from({ length: ROUNDS }, (_, index) => (((index * 37) % ROUNDS) + 0.5) / ROUNDS);
let server = await open();
await becomes(1);
for (const moment of moments) {
  server.close();
  server.closeAllConnections();
  const probedAt = await becomes(0);
  await sleep(Math.max(0, probedAt + moment * INTERVAL_MS - performance.now()));
  server = await open();
  const openedAt = performance.now();
  times.push((await becomes(1)) - openedAt);
}
server.close();

const client = await connectWire(zookeeper.port);
const floors: number[] = [];
const floorBecomes = watch('/services/floor');
await zk.create(client, { path: '/services/floor', data: '' });
const instance: Instance = { name: 'i-1', host: '10.0.0.1', port: 80 };
const codec = codecFor();
for (let round = 0; round < ROUNDS; round += 1) {
  const startedAt = performance.now();
  const { path: node } = await zk.create(client, {
    path: `/services/floor/${codec.namePrefix(instance, { pathEncoding: false })}`,
    data: codec.encodeRecord(instance),
    flags: FLAGS.ephemeralSequential,
  });
  floors.push((await floorBecomes(1)) - startedAt);
  await zk.delete(client, String(node));
  await floorBecomes(0);
}
client.destroy();
watching.abort();
await registry.close();

console.log(HEADER);
console.log(row('floor: a node is created -> a watcher has it', floors));
console.log(row(`a port opens -> its node stands, checked every ${INTERVAL_MS} ms`, times));
judge('a port opens -> its node stands, p50', quantile(times, 0.5), MAX_MEDIAN_MS, 'ms');
