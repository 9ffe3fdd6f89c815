// A thousand services of one host with checks of many kinds: a real registrar, a real ZooKeeper.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { askControl } from '@tandem/core';

import { eventually } from '../support/eventually.ts';
import { answerHealth, startGrpcServer } from '../support/grpc-health.ts';
import { startRealZooKeeper } from '../support/real-zookeeper.ts';
import { createRegistrarHostAt } from '../support/registrar-host.ts';
import { connectWire, zk } from '../support/zookeeper-wire.ts';

const SERVICES = 1_000;
const LIMIT = { withinMs: 90_000, everyMs: 100 };

const portOf = (server: net.Server) => (server.address() as net.AddressInfo).port;
const nameOf = (index: number) => `service-${index}`;

test(
  'a thousand services with mixed checks stand, and what happens to a few concerns nobody else',
  {
    timeout: 280_000,
  },
  async () => {
    const ill = new Set<string>();
    const web = http
      .createServer(({ url = '' }, response) => response.writeHead(ill.has(url) ? 503 : 200).end())
      .listen(0, '127.0.0.1');
    const listener = net
      .createServer((socket) => socket.on('error', () => {}).resume())
      .listen(0, '127.0.0.1');
    await Promise.all([once(web, 'listening'), once(listener, 'listening')]);
    const grpc = await startGrpcServer((stream) => answerHealth(stream, 1));
    await using zookeeper = await startRealZooKeeper();
    const host = await createRegistrarHostAt(zookeeper, 'registrar: { control: registrar.sock }');
    const client = await connectWire(zookeeper.port);
    const pinger = setInterval(() => void client.ping(), 2_000);

    /** Of every twenty: 9 http, 7 tcp, and one each of grpc, push, noop and a program. */
    const checkOf = (index: number): string => {
      const timing = 'interval: 2s, timeout: 10s';
      const kind = index % 20;
      if (kind < 9) return `http: { path: /${index}, port: ${portOf(web)}, ${timing} }`;
      if (kind < 16) return `tcp: { port: ${portOf(listener)}, ${timing} }`;
      if (kind === 16) return `grpc: { port: ${grpc.port}, ${timing} }`;
      if (kind === 17) return 'push: { ttl: 10m }';
      if (kind === 18) return 'noop: {}';
      return 'command: { command: ["true"], interval: 10s, timeout: 10s }';
    };
    const isPushed = (index: number) => index % 20 === 17;
    const write = (index: number, weight = 10) =>
      host.write(
        nameOf(index),
        `service: ${nameOf(index)}
register: { port: ${1 + index}, weight: ${weight}, checks: [{ ${checkOf(index)} }] }
`,
      );
    const report = (index: number) =>
      askControl({
        file: path.join(host.directory, 'registrar.sock'),
        daemon: 'registrar',
        method: 'POST',
        path: ['v1', 'services', nameOf(index), 'health'],
        body: { status: 'pass' },
      });
    /** Every node that stands, by its service. */
    const nodes = async (): Promise<ReadonlyMap<string, string>> => {
      const lists = await Promise.all(
        Array.from({ length: SERVICES }, async (_, index) => {
          const { children = [] } = await zk
            .getChildren(client, `/services/${nameOf(index)}`)
            .catch(() => ({ children: [] }));
          return [nameOf(index), children.map(String).join()] as const;
        }),
      );
      return new Map(lists.filter(([, children]) => children !== ''));
    };
    const changed = (before: ReadonlyMap<string, string>, after: ReadonlyMap<string, string>) =>
      [...before.keys()].filter((service) => before.get(service) !== after.get(service));

    try {
      for (let index = 0; index < SERVICES; index += 1) await write(index);
      const daemon = host.start();
      await eventually(() => report(17), LIMIT);
      for (let index = 0; index < SERVICES; index += 1) if (isPushed(index)) await report(index);
      const all = await eventually(async () => {
        const found = await nodes();
        assert.equal(found.size, SERVICES);
        return found;
      }, LIMIT);

      ill.add('/3');
      await eventually(async () => assert.deepEqual(changed(all, await nodes()), ['service-3']), LIMIT);
      ill.clear();
      const again = await eventually(async () => {
        const found = await nodes();
        assert.equal(found.size, SERVICES);
        return found;
      }, LIMIT);
      assert.deepEqual(changed(all, again), ['service-3']);

      const touched = Array.from({ length: 10 }, (_, index) => 100 * index + 5);
      for (const index of touched) await write(index, 20);
      const lighter = await eventually(async () => {
        const found = await nodes();
        assert.deepEqual(changed(again, found).toSorted(), touched.map(nameOf).toSorted());
        // The new node stands before the old one goes.
        assert.ok(![...found.values()].some((children) => children.includes(',')), 'some still stand twice');
        assert.equal(found.size, SERVICES);
        return found;
      }, LIMIT);

      await host.end(daemon, 'SIGKILL');
      const successor = host.start();
      await eventually(() => report(17), LIMIT);
      // Two rounds of probes.
      await sleep(5_000);
      assert.deepEqual(changed(lighter, await nodes()), []);

      await host.end(successor, 'SIGTERM');
      assert.equal((await nodes()).size, 0);
    } finally {
      clearInterval(pinger);
      client.destroy();
      await host[Symbol.asyncDispose]();
      await grpc.close();
      web.close();
      listener.close();
    }
  },
);
