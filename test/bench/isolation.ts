// Fifty services that are well, beside a broken one, a command that hangs, a name that does not resolve and a check that
// explodes: how late do the probes of the others start? The floor is the same without the bad ones. Exits with 1 when
// over a budget.
import { once } from 'node:events';
import dgram from 'node:dgram';
import http from 'node:http';
import type net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

import { createAddressResolver, silentLog } from '@tandem/core';
import {
  type Check,
  type CheckConfig,
  type CheckContext,
  createCheck,
  createRegistrar,
  RegisterSection,
  type ServiceRegistration,
} from '@tandem/registrar';
import { openRegistry, RegistrySection } from '@tandem/registry';

import { HEADER, quantile, row } from './statistics.ts';
import { judge } from './verdict.ts';

const GOOD = 50;
const SECONDS = 20;
const MAX_P99_MS = 20;

const origin = http.createServer((_, response) => response.end('ok')).listen(0, '127.0.0.1');
// A nameserver that never answers.
const nameserver = dgram.createSocket('udp4');
nameserver.bind(0, '127.0.0.1');
await Promise.all([once(origin, 'listening'), once(nameserver, 'listening')]);
const { port } = origin.address() as net.AddressInfo;

function service(name: string, place: number, check: Record<string, unknown>): ServiceRegistration {
  const config = RegisterSection.parse({ port: place, checks: [check] });
  return { service: name, path: `/services/${name}`, config };
}

const good = Array.from({ length: GOOD }, (_, index) =>
  service(`good-${index}`, 1_000 + index, { http: { path: '/health', port, interval: '200ms' } }),
);
const bad = [
  service('broken', 2_000, { http: { path: '/health', port: 1, interval: '50ms' } }),
  service('hanging', 2_001, { command: { command: ['sleep', '600'], interval: '100ms', timeout: '100ms' } }),
  service('nameless', 2_002, {
    tcp: { host: 'nobody.example', port: 80, interval: '100ms', timeout: '100ms' },
  }),
  service('exploding', 2_003, { tcp: { interval: '50ms' } }),
];

/** How late every probe of the good ones began: measured at the place where it begins. */
async function lateness(services: readonly ServiceRegistration[]): Promise<number[]> {
  const late: number[] = [];
  const registrar = createRegistrar({
    host: { name: 'bench', address: '127.0.0.1', labels: {} },
    registry: await openRegistry(RegistrySection.parse({ memory: {} }), { log: silentLog }),
    resolver: createAddressResolver({ nameservers: [`127.0.0.1:${nameserver.address().port}`] }),
    log: silentLog,
    clock: {
      now: () => performance.now(),
      wallNow: () => Date.now(),
      random: Math.random,
      after(ms, task) {
        const dueAt = performance.now() + ms;
        const timer = setTimeout(() => {
          beginsAfter = performance.now() - dueAt;
          task();
          beginsAfter = undefined;
        }, ms);
        return () => clearTimeout(timer);
      },
    },
    createCheck: (config, context) => observed(createCheckOrBomb(config, context), context, late),
  });
  registrar.update(services);
  await sleep(2_000);
  late.length = 0;
  await sleep(SECONDS * 1_000);
  const taken = [...late];
  await registrar.stop();
  return taken;
}

/** How late the timer was that is being run. */
let beginsAfter: number | undefined;

function createCheckOrBomb(config: CheckConfig, context: CheckContext): Check {
  if (context.service !== 'exploding') return createCheck(config, context);
  return {
    kind: 'exploding',
    probe() {
      throw new Error('boom');
    },
  };
}

function observed(check: Check, { service }: CheckContext, late: number[]): Check {
  if (!service.startsWith('good-')) return check;
  return {
    ...check,
    probe(signal) {
      if (beginsAfter !== undefined) late.push(beginsAfter);
      return check.probe(signal);
    },
  };
}

const alone = await lateness(good);
const beside = await lateness([...good, ...bad]);
console.log(HEADER);
console.log(row(`floor: a probe starts late, ${GOOD} good services alone`, alone));
console.log(row('a probe starts late, beside bad ones', beside));
console.log(`probes: ${alone.length} and ${beside.length}`);
judge('probe starts of the others, p99', quantile(beside, 0.99), MAX_P99_MS, 'ms');
origin.close();
nameserver.close();
