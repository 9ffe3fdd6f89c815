// What it costs to probe: a hundred HTTP checks beside a bare loop of the same requests, a thousand tcp checks, and the
// heap after tens of thousands of probes. Exits with 1 when over a budget.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { fileURLToPath } from 'node:url';

import { silentLog } from '@tandem/core';
import { createRegistrar, RegisterSection } from '@tandem/registrar';
import { openRegistry, RegistrySection } from '@tandem/registry';

import { eventually } from '../support/eventually.ts';
import { RegistrarHost } from './registrar-host.ts';
import { usageOf } from './usage.ts';
import { judge } from './verdict.ts';

const HTTP = { checks: 100, intervalMs: 500, seconds: 20, maxRatio: 1.5 };
const TCP = { checks: 1_000, intervalMs: 2_000, seconds: 30, maxShare: 10, maxMb: 120 };
const HEAP = { services: 200, intervalMs: 50, probes: 40_000, maxGrowthMb: 2 };
const WARM_UP_MS = 5_000;

const origin = http.createServer((_, response) => response.end('ok')).listen(0, '127.0.0.1');
const listener = net.createServer((socket) => socket.on('error', () => {}).resume()).listen(0, '127.0.0.1');
await Promise.all([once(origin, 'listening'), once(listener, 'listening')]);

const portOf = (server: net.Server) => (server.address() as net.AddressInfo).port;

/** Service files with one check each, on ports of their own for the announcement and one port for all to knock at. */
function services(count: number, check: string): ReadonlyMap<string, string> {
  return new Map(
    Array.from({ length: count }, (_, index) => [
      `service-${index}`,
      `{ port: ${1 + index}, checks: [${check}] }`,
    ]),
  );
}

async function cpuWhile(pid: number, seconds: number): Promise<number> {
  const before = usageOf(pid).cpuMs;
  await sleep(seconds * 1_000);
  return usageOf(pid).cpuMs - before;
}

async function bareLoop(): Promise<number> {
  const file = fileURLToPath(new URL('bare-loop.js', import.meta.url));
  const child = spawn(
    process.execPath,
    [file, String(HTTP.checks), String(HTTP.intervalMs), String(portOf(origin))],
    { stdio: 'ignore' },
  );
  await sleep(WARM_UP_MS);
  const cpuMs = await cpuWhile(child.pid ?? 0, HTTP.seconds);
  child.kill('SIGKILL');
  await once(child, 'exit');
  return cpuMs;
}

async function httpChecks(): Promise<number> {
  const check = `{ http: { path: /health, port: ${portOf(origin)}, interval: ${HTTP.intervalMs}ms } }`;
  await using host = await RegistrarHost.create({
    registry: '{ memory: {} }',
    services: services(HTTP.checks, check),
  });
  await host.start();
  await sleep(WARM_UP_MS);
  const before = host.usage().cpuMs;
  await sleep(HTTP.seconds * 1_000);
  return host.usage().cpuMs - before;
}

// In turn, so that a machine that becomes slower does so for both.
const floors: number[] = [];
const costs: number[] = [];
for (let round = 0; round < 2; round += 1) {
  floors.push(await bareLoop());
  costs.push(await httpChecks());
}
const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
console.log(
  `${HTTP.checks} HTTP checks every ${HTTP.intervalMs} ms for ${HTTP.seconds} s: floor ${floors.join(' and ')} ms of CPU, ` +
    `registrar ${costs.join(' and ')} ms`,
);
judge('CPU of HTTP checks, of that of a bare loop', sum(costs) / sum(floors), HTTP.maxRatio, '');

{
  const check = `{ tcp: { port: ${portOf(listener)}, interval: ${TCP.intervalMs}ms } }`;
  await using host = await RegistrarHost.create({
    registry: '{ memory: {} }',
    services: services(TCP.checks, check),
  });
  await host.start();
  await sleep(WARM_UP_MS);
  const before = host.usage().cpuMs;
  await sleep(TCP.seconds * 1_000);
  const { cpuMs, residentMb, peakMb } = host.usage();
  console.log(
    `${TCP.checks} tcp checks: ${residentMb.toFixed(0)} MB now, ${peakMb.toFixed(0)} MB at its worst`,
  );
  judge('CPU of 1,000 tcp checks, of one core', (cpuMs - before) / (TCP.seconds * 10), TCP.maxShare, '%');
  judge('memory with 1,000 tcp checks', peakMb, TCP.maxMb, 'MB');
}

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;
let probes = 0;
listener.on('connection', () => {
  probes += 1;
});
const registrar = createRegistrar({
  host: { name: 'bench', address: '127.0.0.1', labels: {} },
  registry: await openRegistry(RegistrySection.parse({ memory: {} }), { log: silentLog }),
  log: silentLog,
});
registrar.update(
  Array.from({ length: HEAP.services }, (_, index) => ({
    service: `service-${index}`,
    path: `/services/service-${index}`,
    config: RegisterSection.parse({
      port: 1 + index,
      checks: [{ tcp: { port: portOf(listener), interval: `${HEAP.intervalMs}ms` } }],
    }),
  })),
);
const heapAfter = async (count: number) => {
  await eventually(() => assert.ok(probes >= count), { withinMs: 120_000 });
  // What ends a probe in this process comes a little later.
  for (let round = 0; round < 3; round += 1) {
    await sleep(200);
    collect();
  }
  return process.memoryUsage().heapUsed / (1 << 20);
};
const first = await heapAfter(HEAP.probes / 4);
const last = await heapAfter(HEAP.probes / 4 + HEAP.probes);
console.log(
  `heap after ${HEAP.probes / 4} probes ${first.toFixed(1)} MB, ${HEAP.probes} probes later ${last.toFixed(1)} MB`,
);
judge(`growth of the heap over ${HEAP.probes} probes`, last - first, HEAP.maxGrowthMb, 'MB');
await registrar.stop();
origin.close();
listener.close();
