// Two hundred hosts watch one service of a thousand instances, in path encoding; one instance after the other is
// replaced, five a second. What does each way of following it cost the network, and how long until every host knows?
// Exits with 1 when delta mode is over its budgets.
import { setMaxListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

import { codecFor } from '@tandem/core';
import type { Registry } from '@tandem/registry';

import { startRealZooKeeper } from '../support/real-zookeeper.ts';
import { openTestRegistry } from '../support/registries.ts';
import { connectWire, FLAGS, zk } from '../support/zookeeper-wire.ts';
import { announceAll, instance } from './nodes.ts';
import { meterSockets } from './sockets.ts';
import { HEADER, quantile, row } from './statistics.ts';

const HOSTS = 200;
const INSTANCES = 1_000;
const CHANGES = 20;
const EVERY_MS = 200;
const MAX_SHARE = 0.02;
const MAX_MEDIAN_MS = 30;
const PATH = '/services/web';
const CODEC = codecFor();
const SETTLE_MS = 60_000;

const server = await startRealZooKeeper();
const wire = await connectWire(server.port, { timeoutMs: 10_000 });

interface Outcome {
  readonly bytes: number;
  readonly delays: readonly number[];
  readonly cpuMs: number;
}

/** Who shows which instances by now. */
class Hosts {
  readonly registries: Registry[] = [];
  readonly #sizes: number[] = [];
  readonly delays: number[] = [];
  readonly #awaited = new Map<string, { at: number; hosts: Set<number> }>();

  async open(mirror: 'auto' | 'classic', signal: AbortSignal): Promise<void> {
    for (let host = 0; host < HOSTS; host += 1) {
      const registry = await openTestRegistry(server.port, { mirror, sessionTimeoutMs: 10_000 });
      this.registries.push(registry);
      void this.#follow(host, registry, signal);
    }
    await this.#until(() => this.#sizes.filter((size) => size === INSTANCES).length === HOSTS);
  }

  await(name: string): void {
    this.#awaited.set(name, { at: performance.now(), hosts: new Set(this.registries.keys()) });
  }

  settled(): Promise<void> {
    return this.#until(() => this.#awaited.size === 0);
  }

  async #follow(host: number, registry: Registry, signal: AbortSignal): Promise<void> {
    for await (const { instances } of registry.watch(PATH, signal)) {
      this.#sizes[host] = instances.length;
      if (this.#awaited.size === 0) continue;
      const now = performance.now();
      for (const [name, { at, hosts }] of this.#awaited) {
        // Snapshots are in order of names, and new ones are the highest: to look must not cost what is measured.
        const isShown = instances.findLast((each) => each.name <= name)?.name === name;
        if (!isShown || !hosts.delete(host)) continue;
        this.delays.push(now - at);
        if (hosts.size === 0) this.#awaited.delete(name);
      }
    }
  }

  async #until(isDone: () => boolean): Promise<void> {
    const giveUpAt = performance.now() + SETTLE_MS;
    while (!isDone()) {
      if (performance.now() > giveUpAt) throw new Error('not every host has seen everything');
      await sleep(20);
    }
  }
}

async function run(mirror: 'auto' | 'classic'): Promise<Outcome> {
  const meter = meterSockets();
  const controller = new AbortController();
  setMaxListeners(0, controller.signal);
  const hosts = new Hosts();
  await hosts.open(mirror, controller.signal);
  // What the hosts did to come up is over.
  await sleep(2_000);
  const before = meter.read();
  const cpu = process.cpuUsage();
  for (let change = 0; change < CHANGES; change += 1) {
    const next = instance(1_000_000 + change + (mirror === 'auto' ? 0 : 1_000));
    hosts.await(next.name);
    await zk.create(wire, {
      path: `${PATH}/${CODEC.namePrefix(next, { pathEncoding: true })}`,
      data: CODEC.encodeRecord(next),
      flags: FLAGS.sequential,
    });
    await sleep(EVERY_MS);
  }
  await hosts.settled();
  const { user, system } = process.cpuUsage(cpu);
  const after = meter.read();
  meter.end();
  controller.abort();
  await Promise.all(hosts.registries.map((registry) => registry.close()));
  return {
    bytes: after.received + after.sent - before.received - before.sent,
    delays: hosts.delays,
    cpuMs: (user + system) / 1_000,
  };
}

try {
  await zk.create(wire, { path: '/services' });
  await zk.create(wire, { path: PATH });
  const instances = Array.from({ length: INSTANCES }, (_, index) => instance(index));
  await announceAll(wire, PATH, instances, true);
  const delta = await run('auto');
  const { children = [] } = await zk.getChildren(wire, PATH);
  for (const child of children.slice(INSTANCES)) await zk.delete(wire, `${PATH}/${child}`);
  const classic = await run('classic');
  console.log(HEADER);
  console.log(row('delta: change to snapshot, every host', delta.delays));
  console.log(row('classic', classic.delays));
  const share = delta.bytes / classic.bytes;
  const median = quantile(delta.delays, 0.5);
  console.log(
    `delta   ${(delta.bytes / 1e6).toFixed(2)} MB, ${delta.cpuMs.toFixed(0)} ms CPU of all hosts together`,
  );
  console.log(`classic ${(classic.bytes / 1e6).toFixed(2)} MB, ${classic.cpuMs.toFixed(0)} ms CPU`);
  const isOver = !(share <= MAX_SHARE && median <= MAX_MEDIAN_MS);
  console.log(
    `${isOver ? 'OVER' : 'ok  '}  delta takes ${(share * 100).toFixed(2)} % of classic's bytes (budget ${MAX_SHARE * 100} %), median ${median.toFixed(1)} ms (budget ${MAX_MEDIAN_MS} ms)`,
  );
  process.exitCode = isOver ? 1 : 0;
} finally {
  wire.destroy();
  await server.stop();
}
