// Fifty services of one host whose registrar is drained, reloaded, handed over and killed at random moments, on a real
// ZooKeeper. Runs 60 s by default; TANDEM_FUZZ_SECONDS makes it longer, TANDEM_FUZZ_SEED gives the choices another start.
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import type net from 'node:net';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { askControl } from '@tandem/core';

import { eventually } from '../support/eventually.ts';
import { createRandom } from '../support/random.ts';
import { startRealZooKeeper } from '../support/real-zookeeper.ts';
import { createRegistrarHostAt } from '../support/registrar-host.ts';
import { connectWire, type WireClient, zk } from '../support/zookeeper-wire.ts';

const SECONDS = Number(process.env['TANDEM_FUZZ_SECONDS'] ?? 60);
const SEED = Number(process.env['TANDEM_FUZZ_SEED'] ?? 1);
const SERVICES = 50;
const ANSWER_LIMIT_MS = 30_000;

/** What is meant for one service, whatever becomes of the registrar meanwhile. */
interface Meant {
  readonly name: string;
  readonly index: number;
  isConfigured: boolean;
  isDrained: boolean;
  isWell: boolean;
  port: number;
  weight: number;
}

/** The only record that may stand for a service, if any. */
function wanted({ isConfigured, isDrained, isWell, port, weight }: Meant): string[] {
  return isConfigured && isWell && !isDrained ? [`${port} weight ${weight}`] : [];
}

interface Standing {
  readonly records: readonly string[];
  readonly owners: readonly bigint[];
}

async function standing(client: WireClient, service: string): Promise<Standing> {
  const below = `/services/${service}`;
  const { children = [] } = await zk.getChildren(client, below).catch(() => ({ children: [] }));
  const nodes = await Promise.all(children.map((child) => zk.getData(client, `${below}/${String(child)}`)));
  return {
    records: nodes
      .map(({ data }) => JSON.parse(String(data)) as { port: number; weight: number })
      .map(({ port, weight }) => `${port} weight ${weight}`),
    owners: nodes.map(({ stat }) => stat?.ephemeralOwner ?? 0n),
  };
}

test(
  'drained, reloaded, handed over and killed at random: nothing stands twice, nothing is left over, nothing is missing',
  { timeout: (SECONDS + 180) * 1_000 },
  async (t) => {
    t.diagnostic(`TANDEM_FUZZ_SEED=${SEED} TANDEM_FUZZ_SECONDS=${SECONDS}`);
    const random = createRandom(SEED);
    const services = Array.from({ length: SERVICES }, (_, index): Meant => ({
      name: `service-${index}`,
      index,
      isConfigured: true,
      isDrained: false,
      isWell: true,
      port: 20_000 + index,
      weight: 10,
    }));
    const origin = http
      .createServer(({ url = '' }, response) => {
        const isWell = services[Number(url.slice(1))]?.isWell === true;
        response.writeHead(isWell ? 200 : 503).end();
      })
      .listen(0, '127.0.0.1');
    await once(origin, 'listening');
    const originPort = (origin.address() as net.AddressInfo).port;
    await using zookeeper = await startRealZooKeeper();
    const host = await createRegistrarHostAt(zookeeper, 'registrar: { control: registrar.sock }');
    const client = await connectWire(zookeeper.port);
    const pinger = setInterval(() => void client.ping(), 2_000);

    const write = (service: Meant) =>
      host.write(
        service.name,
        `service: ${service.name}
register:
  port: ${service.port}
  weight: ${service.weight}
  checks: [{ http: { path: /${service.index}, port: ${originPort}, interval: 200ms, timeout: 5s } }]
`,
      );
    /** Asks until somebody has answered: what a killed registrar has made of a question is not known. */
    const ask = async (service: Meant, method: 'PUT' | 'DELETE') => {
      const giveUpAt = performance.now() + ANSWER_LIMIT_MS;
      for (;;) {
        try {
          await askControl({
            file: path.join(host.directory, 'registrar.sock'),
            daemon: 'registrar',
            method,
            path: ['v1', 'services', service.name, 'drain'],
          });
          return;
        } catch (error) {
          if (performance.now() > giveUpAt) throw error;
          await sleep(50);
        }
      }
    };

    let daemon: ChildProcess = host.start();
    const restart = async (signal: NodeJS.Signals) => {
      await host.end(daemon, signal);
      daemon = host.start();
    };
    const done = new Map<string, number>();
    const acts: Readonly<Record<string, (service: Meant) => Promise<void> | void>> = {
      async drain(service) {
        if (!service.isConfigured) return;
        await ask(service, 'PUT');
        service.isDrained = true;
      },
      async undrain(service) {
        if (!service.isConfigured) return;
        await ask(service, 'DELETE');
        service.isDrained = false;
      },
      fail(service) {
        service.isWell = false;
      },
      recover(service) {
        service.isWell = true;
      },
      async weigh(service) {
        service.weight = 1 + random.below(256);
        if (service.isConfigured) await write(service);
      },
      async move(service) {
        service.port = service.port >= 30_000 ? 20_000 + service.index : 30_000 + service.index;
        if (service.isConfigured) await write(service);
      },
      async remove(service) {
        if (service.isConfigured) await host.remove(service.name);
        service.isConfigured = false;
      },
      async add(service) {
        service.isConfigured = true;
        await write(service);
      },
      async reload() {
        // A signal that comes before the daemon listens to it would end it, as it would anything.
        await answers();
        daemon.kill('SIGHUP');
      },
      kill: () => restart('SIGKILL'),
      resume: async () => {
        await answers();
        await restart('SIGUSR2');
      },
    };
    async function answers(): Promise<void> {
      const file = path.join(host.directory, 'registrar.sock');
      await eventually(
        () => askControl({ file, daemon: 'registrar', method: 'GET', path: ['v1', 'state'] }),
        {
          withinMs: ANSWER_LIMIT_MS,
        },
      );
    }
    const often = [
      'drain',
      'undrain',
      'undrain',
      'fail',
      'recover',
      'recover',
      'weigh',
      'move',
      'add',
      'add',
    ];
    const seldom = ['kill', 'resume', 'reload', 'remove', 'remove'];

    try {
      for (const service of services) await write(service);
      const endAt = performance.now() + SECONDS * 1_000;
      while (performance.now() < endAt) {
        const act = random.chance(0.15) ? random.pick(seldom) : random.pick(often);
        await acts[act]?.(random.pick(services));
        done.set(act, (done.get(act) ?? 0) + 1);
        await sleep(random.below(100));
      }
      t.diagnostic([...done].map(([act, times]) => `${act} ${times}`).join(', '));
      for (const act of Object.keys(acts)) assert.ok((done.get(act) ?? 0) > 0, `${act} never happened`);

      await eventually(
        async () => {
          const found = await Promise.all(services.map(({ name }) => standing(client, name)));
          assert.deepEqual(
            Object.fromEntries(services.map(({ name }, index) => [name, found[index]?.records])),
            Object.fromEntries(services.map((service) => [service.name, wanted(service)])),
          );
          const owners = new Set(found.flatMap((one) => one.owners));
          assert.ok(owners.size <= 1, `nodes of ${owners.size} sessions: some are left over`);
        },
        { withinMs: 60_000 },
      );
    } catch (error) {
      process.stderr.write(
        `${readFileSync(path.join(host.directory, 'register.log'), 'utf8').slice(-8_000)}\n`,
      );
      throw error;
    } finally {
      clearInterval(pinger);
      client.destroy();
      await host[Symbol.asyncDispose]();
      origin.close();
    }
  },
);
