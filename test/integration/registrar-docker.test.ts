// A registrar that finds its services on the Docker API, with a ZooKeeper that it announces them in. That API is a recorded
// one here, in two dialects; `registrar-podman.test.ts` has a real one.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import type { Instance } from '@tandem/core';
import { type EmbeddedZooKeeper, startEmbeddedZooKeeper } from '@tandem/embedded-zookeeper';
import {
  createFinders,
  createRegistrar,
  followAllServices,
  RegisterSection,
  RegistrarSection,
  type ServiceRegistration,
} from '@tandem/registrar';

import {
  type Containers,
  type ContainerSetup,
  type Dialect,
  startContainers,
} from '../support/containers.ts';
import { eventually } from '../support/eventually.ts';
import { type LogEntry, recordingLog } from '../support/haproxy.ts';
import { answerJson } from '../support/http-backend.ts';
import { idOf } from '../support/docker-api.ts';
import { startHttpOrigin } from '../support/origin.ts';
import { noSurprises, openTestRegistry } from '../support/registries.ts';

let zookeeper: EmbeddedZooKeeper;
let scenes = 0;
before(async () => {
  zookeeper = await startEmbeddedZooKeeper();
});
after(() => zookeeper.close());
noSurprises();

/** A probe succeeds at once, and the next one never comes within a test. */
const RARELY = '1h';

interface Scene {
  readonly containers: Containers;
  readonly entries: readonly LogEntry[];
  /** The services of the service files. */
  readonly takeFiles: (registrations: readonly ServiceRegistration[]) => void;
  /** Resolves when just these ports of `web` are announced. */
  readonly announces: (...ports: readonly number[]) => Promise<void>;
  /** Every set of ports that was ever announced, in order. */
  readonly history: readonly string[];
  readonly latest: () => readonly Instance[];
  readonly pathOf: (service: string) => string;
  readonly status: ReturnType<typeof createRegistrar>['status'];
}

async function withRegistrar(
  dialect: Dialect,
  run: (scene: Scene) => Promise<void>,
  docker: Record<string, unknown> = {},
): Promise<void> {
  scenes += 1;
  const root = `/docker/${scenes}`;
  const pathOf = (service: string) => `${root}/${service}`;
  const containers = await startContainers(dialect);
  const { log, entries } = recordingLog();
  const registry = await openTestRegistry(zookeeper.port);
  const host = { name: 'i-1', address: '127.0.0.1', labels: {} };
  const registrar = createRegistrar({ host, registry, log });
  const settings = RegistrarSection.parse({
    docker: { api: containers.api.origin, resync: '10m', ...docker },
  });
  const controller = new AbortController();
  const { signal } = controller;
  const all = followAllServices({
    finders: createFinders(settings, { address: host.address, pathOf, log }),
    update: (services, options) => registrar.update(services, options),
    log,
  });
  const takeFiles = (registrations: readonly ServiceRegistration[]) =>
    all.takeFiles(registrations, { isComplete: true });
  takeFiles([]);
  const observer = await openTestRegistry(zookeeper.port);
  const history: string[] = [];
  let latest: readonly Instance[] = [];
  const observed = (async () => {
    for await (const { instances } of observer.watch(pathOf('web'), signal)) {
      latest = instances;
      history.push(portsOf(instances));
    }
  })();
  try {
    await run({
      containers,
      entries,
      takeFiles,
      history,
      latest: () => latest,
      pathOf,
      status: () => registrar.status(),
      announces: (...ports) =>
        eventually(() => assert.equal(portsOf(latest), ports.toSorted((a, b) => a - b).join(' '))),
    });
  } finally {
    controller.abort();
    await all.end();
    await observed;
    await registrar.stop();
    await registry.close();
    await observer.close();
    await eventually(() => assert.equal(containers.api.open(), 0));
    await containers.api.close();
  }
}

function portsOf(instances: readonly Instance[]): string {
  return instances
    .map(({ port }) => port)
    .toSorted((a, b) => a - b)
    .join(' ');
}

function web(published: number, more: Partial<ContainerSetup> = {}): ContainerSetup {
  return {
    ports: { 80: published },
    ...more,
    labels: { 'tandem.service': 'web', 'tandem.port': '80', ...more.labels },
  };
}

const LISTENING = (containers: Containers) => eventually(() => assert.equal(containers.api.listeners(), 1));

for (const dialect of ['docker', 'podman'] as const) {
  describe(`services of containers, as ${dialect} tells of them`, () => {
    test('a container that starts is probed and announced, and is gone as soon as it dies', async () => {
      const origin = await startHttpOrigin();
      try {
        await withRegistrar(dialect, async ({ containers, announces, latest, status }) => {
          await announces();
          await LISTENING(containers);
          const labels = {
            'tandem.weight': '7',
            'tandem.labels.version': '1.4.2',
            'tandem.check.http.path': '/',
            'tandem.check.http.interval': RARELY,
          };
          containers.start(1, web(origin.port, { labels }));
          await announces(origin.port);
          assert.deepEqual(latest(), [
            { name: 'i-1', host: '127.0.0.1', port: origin.port, weight: 7, labels: { version: '1.4.2' } },
          ]);
          assert.match(String(status()[0]?.origin), /^container web-1 \(0{12}\)$/);
          containers.die(1);
          await announces();
          containers.start(2, web(origin.port, { labels, ports: {}, onHost: true }));
          await eventually(() => assert.equal(status().length, 1));
          assert.equal(status()[0]?.port, 80, 'on the network of the host');
        });
      } finally {
        await origin.close();
      }
    });

    test('one that is unhealthy is withdrawn until it is well again; one that is starting is not announced yet', () =>
      withRegistrar(dialect, async ({ containers, announces, history, status }) => {
        await LISTENING(containers);
        containers.start(1, web(32_001, { health: 'starting' }));
        await eventually(() => assert.equal(status()[0]?.health, 'unknown'));
        assert.ok(history.every((ports) => ports === ''));
        containers.turn(1, 'healthy');
        await announces(32_001);
        containers.turn(1, 'unhealthy');
        await announces();
        assert.deepEqual(status()[0]?.checks, [
          { check: 'container', health: 'down', reason: 'the container is unhealthy' },
        ]);
        containers.turn(1, 'healthy');
        await announces(32_001);
      }));

    test('two containers of one service stand side by side, and one that dies waits for nobody', () =>
      withRegistrar(dialect, async ({ containers, announces }) => {
        await LISTENING(containers);
        containers.start(1, web(32_001));
        containers.start(2, web(32_002));
        await announces(32_001, 32_002);
        containers.start(3, web(32_003, { health: 'starting' }));
        containers.die(1);
        await announces(32_002);
        containers.die(2);
        await announces();
      }));

    test('one container that takes the place of another is announced there', () =>
      withRegistrar(dialect, async ({ containers, announces, history }) => {
        await LISTENING(containers);
        containers.start(1, web(32_001, { health: 'healthy' }));
        await announces(32_001);
        containers.die(1);
        containers.start(2, web(32_001, { health: 'starting' }));
        await announces();
        containers.turn(2, 'healthy');
        await announces(32_001);
        assert.deepEqual(history.slice(-3), ['32001', '', '32001']);
      }));

    test('while the daemon is away everything stays, and what has changed meanwhile is found', () =>
      withRegistrar(
        dialect,
        async ({ containers, announces, entries }) => {
          containers.start(1, web(32_001));
          containers.start(2, web(32_002));
          await announces(32_001, 32_002);
          await LISTENING(containers);
          await containers.api.hide();
          await eventually(() =>
            assert.ok(entries.some(({ message }) => message.startsWith('a remote cannot be read'))),
          );
          await announces(32_001, 32_002);
          containers.silently(() => {
            containers.die(1);
            containers.start(3, web(32_003));
          });
          await containers.api.restore();
          await announces(32_001, 32_002, 32_003);
          await announces(32_002, 32_003);
        },
        { hold: '1s' },
      ));

    test('a daemon that has just come back and knows nothing yet takes nothing away', () =>
      withRegistrar(
        dialect,
        async ({ containers, announces, history, entries }) => {
          containers.start(1, web(32_001));
          containers.start(2, web(32_002));
          await announces(32_001, 32_002);
          await LISTENING(containers);
          const before = history.length;
          containers.api.answerWith((response) => answerJson(response, []));
          containers.api.cut();
          await eventually(() =>
            assert.ok(entries.some(({ message }) => message.startsWith('containers are missing'))),
          );
          await LISTENING(containers);
          containers.api.answerWith(undefined);
          containers.start(3, web(32_003));
          await announces(32_001, 32_002, 32_003);
          containers.die(2);
          await announces(32_001, 32_003);
          assert.deepEqual(history.slice(before), ['32001 32002 32003', '32001 32003']);
        },
        { hold: '1h' },
      ));

    test('what died while the daemon went down is gone at once, although no list has said so', () =>
      withRegistrar(
        dialect,
        async ({ containers, announces }) => {
          containers.start(1, web(32_001));
          containers.start(2, web(32_002));
          await announces(32_001, 32_002);
          await LISTENING(containers);
          containers.api.answerWith((response) => response.destroy());
          containers.die(1);
          await announces(32_002);
        },
        { hold: '1h' },
      ));

    test('what nobody has told of is found by the resync', () =>
      withRegistrar(
        dialect,
        async ({ containers, announces }) => {
          await LISTENING(containers);
          containers.start(1, web(32_001));
          await announces(32_001);
          containers.silently(() => containers.start(2, web(32_002)));
          await announces(32_001, 32_002);
          containers.silently(() => containers.die(1));
          await announces(32_002);
        },
        { resync: '1s' },
      ));

    test('a service file wins a place over a container, and a container with a mistake costs itself only', () =>
      withRegistrar(dialect, async ({ containers, announces, takeFiles, entries, pathOf, status }) => {
        const file = { service: 'web', path: pathOf('web'), config: RegisterSection.parse({ port: 32_001 }) };
        containers.start(1, web(32_001));
        containers.start(2, web(32_002, { labels: { 'tandem.weight': 'heavy' } }));
        containers.start(3, web(32_003));
        await announces(32_001, 32_003);
        takeFiles([file]);
        await announces(32_001, 32_003);
        assert.deepEqual(
          status().map(({ port, origin }) => [port, origin !== undefined]),
          [
            [32_001, false],
            [32_003, true],
          ],
        );
        const told = entries
          .filter(({ level }) => level === 'error')
          .map(({ message, facts }) => ({ message, ...facts }));
        assert.deepEqual(told, [
          {
            message: 'set a service of a container aside',
            container: 'web-2',
            label: 'tandem.weight',
            reason: 'must be a number, found "heavy"',
          },
          {
            message: 'place is taken, service set aside',
            service: 'web',
            origin: 'container web-1 (000000000000)',
            path: pathOf('web'),
            port: 32_001,
            takenBy: 'the service file of web',
          },
        ]);
        takeFiles([]);
        await eventually(() => assert.ok(status().every(({ origin }) => origin !== undefined)));
        await announces(32_001, 32_003);
      }));

    test('a storm of events of foreign containers costs no questions, one of our own a few', () =>
      withRegistrar(dialect, async ({ containers, announces }) => {
        await LISTENING(containers);
        containers.start(1, web(32_001));
        await announces(32_001);
        await eventually(() => assert.ok(containers.api.lists() >= 2));
        const before = containers.api.lists();
        for (let round = 0; round < 200; round += 1) {
          containers.start(100 + round, { labels: { foreign: 'yes' } });
          containers.die(100 + round);
        }
        const own = performance.now();
        for (let round = 0; round < 200; round += 1)
          containers.turn(1, round % 2 === 0 ? 'unhealthy' : 'healthy');
        await announces(32_001);
        const asked = containers.api.lists() - before;
        const most = 3 + (performance.now() - own) / 100;
        assert.ok(asked <= most, `${asked} questions`);
      }));
  });
}

describe('a daemon that talks nonsense', () => {
  test('is not believed, and one container that it does not want to tell of costs nobody else', () =>
    withRegistrar('podman', async ({ containers, announces, entries }) => {
      const reasons = () =>
        entries
          .filter(({ message }) => /^a (remote|container) cannot be/.test(message))
          .map(({ facts }) => String(facts['reason']));
      await LISTENING(containers);
      containers.start(1, web(32_001));
      await announces(32_001);
      for (const [answer, reason] of [
        ['{"message":"no"}', 'the answer is not a list of containers'],
        ['[{"Id":', 'the answer is not a list of containers'],
      ] as const) {
        containers.api.answerWith((response) => response.end(answer));
        containers.start(1, web(32_001));
        await eventually(() => assert.equal(reasons().at(-1), reason));
      }
      containers.api.answerWith((response) =>
        answerJson(response, [
          null,
          7,
          {},
          { Id: 'x', State: 'running', Labels: { 'tandem.service': 'web' } },
          ...containers.list(),
        ]),
      );
      const second = '0'.repeat(63) + '2';
      containers.silently(() => containers.start(2, web(32_002)));
      containers.api.inspected.set(second, 'nothing of use');
      containers.start(3, web(32_003));
      containers.api.inspected.set(second, 'nothing of use');
      await announces(32_001, 32_003);
      assert.equal(reasons().at(-1), 'the answer does not tell of a container');
      containers.api.answerWith(undefined);
      containers.start(2, web(32_002));
      await announces(32_001, 32_002, 32_003);
    }));

  test('one container over which it hangs holds up the others for a moment only', () =>
    withRegistrar('podman', async ({ containers, announces, history }) => {
      await LISTENING(containers);
      containers.start(1, web(32_001, { health: 'healthy' }));
      await announces(32_001);
      containers.api.hangOver(`/containers/${idOf(1)}/json`);
      containers.start(2, web(32_002));
      await announces(32_001, 32_002);
      containers.die(2);
      await announces(32_001);
      containers.die(1);
      await announces();
      assert.deepEqual(history.slice(-4), ['32001', '32001 32002', '32001', '']);
    }));
});
