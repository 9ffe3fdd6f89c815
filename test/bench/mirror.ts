// What it costs to know who is there: the first look at a thousand services, a list of ten megabytes, and the quiet
// afterwards. Each beside the bare calls that cannot be avoided, in the same run. Exits with 1 when over a budget.
import { codecFor, silentLog } from '@tandem/core';
import { getChildren, getData, openSession } from '@tandem/registry/testing';
import { createRequire } from 'node:module';
import { setTimeout as sleep } from 'node:timers/promises';

import { startRealZooKeeper } from '../support/real-zookeeper.ts';
import { openTestRegistry } from '../support/registries.ts';
import { connectWire, zk } from '../support/zookeeper-wire.ts';
import { announceAll, instance } from './nodes.ts';
import { meterSockets } from './sockets.ts';
import { quantile } from './statistics.ts';
import { judge } from './verdict.ts';

const SERVICES = 1_000;
const INSTANCES = 20;
const ROUNDS = 15;
const MAX_RATIO = 1.5;
const LARGE_LIST = 50_000;
const MAX_LARGE_CPU_MS = 60;
const SESSION_TIMEOUT_MS = 6_000;
const QUIET_MS = 12_000;
const PING_BYTES = 12;

/** Wall time and this process's CPU time, in milliseconds. */
async function measured(task: () => Promise<unknown>): Promise<{ ms: number; cpuMs: number }> {
  const cpu = process.cpuUsage();
  const startedAt = performance.now();
  await task();
  const ms = performance.now() - startedAt;
  const { user, system } = process.cpuUsage(cpu);
  return { ms, cpuMs: (user + system) / 1_000 };
}

const server = await startRealZooKeeper();
const wire = await connectWire(server.port, { timeoutMs: 10_000 });
const session = openSession({
  servers: [{ host: '127.0.0.1', port: server.port }],
  sessionTimeoutMs: SESSION_TIMEOUT_MS,
  log: silentLog,
});
const CODEC = codecFor();
const onEvent = () => {};
interface RawClient {
  connect(): void;
  close(): void;
  once(event: 'connected', listener: () => void): void;
  getChildren(path: string, watcher: () => void, callback: (error: unknown) => void): void;
}
const library = createRequire(import.meta.url)('node-zookeeper-client') as {
  createClient(servers: string, options: { sessionTimeout: number }): RawClient;
};
const client = library.createClient(`127.0.0.1:${server.port}`, { sessionTimeout: SESSION_TIMEOUT_MS });
client.connect();
await new Promise<void>((resolve) => client.once('connected', resolve));
const never = new AbortController().signal;
const pings = setInterval(() => void wire.ping(), 2_000);
await session.connected(never);

/** Opens a registry and waits for the first snapshot of every path. Returns it, still watching. */
async function mirrorAll(paths: readonly string[]) {
  const registry = await openTestRegistry(server.port, { sessionTimeoutMs: SESSION_TIMEOUT_MS });
  // Connecting is not what is measured here.
  for await (const _ of registry.watch('/none', AbortSignal.timeout(5_000))) break;
  // Each with a signal of its own, as every service of a daemon has.
  const controllers = paths.map(() => new AbortController());
  const spent = await measured(() =>
    Promise.all(
      paths.map(async (path, index) => {
        const watch = registry.watch(path, controllers[index]?.signal ?? never)[Symbol.asyncIterator]();
        const { value } = await watch.next();
        if (value?.instances.length !== INSTANCES)
          throw new Error(`${path} has ${value?.instances.length} instances`);
        void watch.next();
      }),
    ),
  );
  const close = () => {
    for (const controller of controllers) controller.abort();
    return registry.close();
  };
  return { close, spent };
}

/** The raw calls: the lists alone, each with a watch, by the library as it is. */
function listAll(paths: readonly string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    let left = paths.length;
    for (const path of paths) {
      client.getChildren(path, onEvent, (error) => {
        left -= 1;
        if (error !== null) reject(error);
        else if (left === 0) resolve();
      });
    }
  });
}

async function benchInitial(kind: 'path-encoded' | 'plain'): Promise<void> {
  const root = `/${kind}`;
  await zk.create(wire, { path: root });
  const paths = Array.from({ length: SERVICES }, (_, index) => `${root}/service-${index}`);
  for (const [index, path] of paths.entries()) {
    await zk.create(wire, { path });
    const instances = Array.from({ length: INSTANCES }, (_, each) => instance(index * INSTANCES + each));
    await announceAll(wire, path, instances, kind === 'path-encoded');
  }
  const floors: number[] = [];
  const times: number[] = [];
  const cpus: [number[], number[]] = [[], []];
  for (let round = 0; round < ROUNDS; round += 1) {
    const floor = await measured(async () => {
      if (kind === 'path-encoded') {
        await listAll(paths);
        return;
      }
      const listings = await Promise.all(paths.map((path) => session.run(getChildren(path))));
      const names = listings.flatMap((listing, index) =>
        (listing?.children ?? []).map((child) => `${paths[index]}/${child}`),
      );
      await Promise.all(names.map((name) => session.run(getData(name))));
    });
    const { close, spent } = await mirrorAll(paths);
    await close();
    // The first round warms up.
    if (round === 0) continue;
    floors.push(floor.ms);
    cpus[0].push(floor.cpuMs);
    times.push(spent.ms);
    cpus[1].push(spent.cpuMs);
  }
  const [floor, time] = [quantile(floors, 0.5), quantile(times, 0.5)];
  const [floorCpu, cpu] = [quantile(cpus[0], 0.5), quantile(cpus[1], 0.5)];
  if (kind === 'path-encoded') await benchDecoding(root);
  console.log(
    `      ${kind}: floor ${floor.toFixed(0)} ms (${floorCpu.toFixed(0)} ms CPU), mirror ${time.toFixed(0)} ms (${cpu.toFixed(0)} ms CPU)`,
  );
  judge(
    `first look at ${SERVICES} x ${INSTANCES}, ${kind}, against the bare reads`,
    time / floor,
    MAX_RATIO,
    'x',
  );
}

/** What no reader of encoded names can do without, whatever else it does: how much of the mirror's time that is. */
async function benchDecoding(root: string): Promise<void> {
  const names: string[] = [];
  for (let index = 0; index < SERVICES; index += 1) {
    const listing = await session.run(getChildren(`${root}/service-${index}`));
    names.push(...(listing?.children ?? []));
  }
  const samples: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const { ms } = await measured(() => {
      for (const name of names)
        if (CODEC.decodeName(name)?.ok !== true) throw new Error(`cannot decode ${name}`);
      return Promise.resolve();
    });
    samples.push(ms);
  }
  console.log(`      to decode ${names.length} names: ${quantile(samples, 0.5).toFixed(0)} ms`);
}

async function benchLargeList(): Promise<void> {
  const path = '/large';
  await zk.create(wire, { path });
  const instances = Array.from({ length: LARGE_LIST }, (_, index) =>
    instance(index, { version: '1.4.2-20261101' }),
  );
  await announceAll(wire, path, instances, true);
  const samples: number[] = [];
  let bytes = 0;
  for (let round = 0; round < ROUNDS; round += 1) {
    const { cpuMs } = await measured(async () => {
      const listing = await session.run(getChildren(path));
      bytes = (listing?.children ?? []).reduce((sum, child) => sum + child.length + 4, 0);
    });
    if (round > 0) samples.push(cpuMs);
  }
  const floors: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1)
    floors.push((await measured(() => receive(path, bytes))).cpuMs);
  const megabytes = (bytes / 1e6).toFixed(1);
  console.log(`      to receive the same bytes and drop them: ${quantile(floors, 0.5).toFixed(1)} ms CPU`);
  judge(`CPU for a list of ${megabytes} MB`, quantile(samples, 0.5), MAX_LARGE_CPU_MS, 'ms');
}

/** Asks for a list on a bare socket, and counts what comes. */
async function receive(path: string, bytes: number): Promise<void> {
  const client = await connectWire(server.port, { timeoutMs: 10_000 });
  const { socket } = client;
  socket.removeAllListeners('data');
  let received = 0;
  const whole = new Promise<void>((resolve) => {
    socket.on('data', (chunk) => {
      received += chunk.length;
      if (received >= bytes) resolve();
    });
  });
  void client.request(8, (body) => body.text(path).boolean(false)).catch(() => {});
  await whole;
  client.destroy();
}

async function benchQuiet(): Promise<void> {
  const paths = Array.from({ length: SERVICES }, (_, index) => `/plain/service-${index}`);
  const meter = meterSockets();
  const { close } = await mirrorAll(paths);
  await sleep(1_000);
  const before = meter.read();
  const { cpuMs } = await measured(() => sleep(QUIET_MS));
  const after = meter.read();
  meter.end();
  const sent = after.sent - before.sent;
  console.log(`      ${sent} bytes sent in ${QUIET_MS / 1_000} s, ${cpuMs.toFixed(0)} ms CPU`);
  if (sent % PING_BYTES !== 0) throw new Error(`${sent} bytes are not pings alone`);
  const mostPings = Math.ceil(QUIET_MS / (SESSION_TIMEOUT_MS / 3)) + 2;
  judge(
    `pings while ${SERVICES} services are watched and nothing happens`,
    sent / PING_BYTES,
    mostPings,
    'pings',
  );
  await close();
}

try {
  await benchInitial('path-encoded');
  await benchInitial('plain');
  await benchQuiet();
  await benchLargeList();
} finally {
  clearInterval(pings);
  client.close();
  wire.destroy();
  await session.close({ keepSession: false });
  await server.stop();
}
