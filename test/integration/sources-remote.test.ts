import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import type { Instance } from '@tandem/core';
import { createSource, type Source, SourceSection } from '@tandem/discovery/testing';

import { follow, sourceConformance, type SourceFollower, type SourceSubject } from '../conformance/source.ts';
import {
  type Container,
  containerOf,
  type DockerApi,
  eventOf,
  idOf,
  startDockerApi,
} from '../support/docker-api.ts';
import { eventually } from '../support/eventually.ts';
import {
  createFakeRegistry,
  createHaproxyWorld,
  freePort,
  type LogEntry,
  recordingLog,
  service,
} from '../support/haproxy.ts';
import { answerJson } from '../support/http-backend.ts';
import { type MarathonApi, startMarathonApi, taskOf } from '../support/marathon-api.ts';
import { startHttpOrigin } from '../support/origin.ts';

const directory = mkdtempSync(path.join(tmpdir(), 'tandem-remote-'));
after(() => rmSync(directory, { recursive: true, force: true }));
let files = 0;

function fileOf(ending: string): string {
  files += 1;
  return path.join(directory, `${files}.${ending}`);
}

/** A source as a service file has it, and what it says. */
function sourceOf(section: Record<string, unknown>): { source: Source; entries: LogEntry[] } {
  const { log, entries } = recordingLog();
  const registry = createFakeRegistry();
  const scene = {
    registry,
    path: '/services/web',
    format: { kind: 'nerve' },
    hostName: 'host-1',
    log,
  } as const;
  return { source: createSource(SourceSection.parse(section), scene), entries };
}

function dockerSourceOf(apis: readonly DockerApi[], more: Record<string, unknown> = {}) {
  const servers = apis.map(({ origin }, index) => ({ api: origin, host: `10.0.0.${index + 1}` }));
  return sourceOf({
    docker: { servers, image_name: 'team/web', container_port: 80, resync: '10m', ...more },
  });
}

function marathonSourceOf(url: string | readonly string[], more: Record<string, unknown> = {}) {
  return sourceOf({ marathon: { url, app: '/shop/web', resync: '10m', ...more } });
}

function dockerInstance(member: number, host = '10.0.0.1'): Instance {
  return { name: `web-${member}`, host, port: 32_000 + member, labels: { zone: 'a' } };
}

function marathonInstance(member: number): Instance {
  return { name: `10.0.0.${member}`, host: `10.0.0.${member}`, port: 31_000 + member };
}

/** The changes are told: nothing waits for a resync here. */
function subjectOf(
  api: Pick<DockerApi | MarathonApi, 'hide' | 'restore' | 'open' | 'close'> & {
    serve: (entries: readonly unknown[]) => void;
  },
  { source }: { source: Source },
  make: { entry: (member: number) => unknown; instance: (member: number) => Instance; broken: unknown },
): SourceSubject {
  return {
    source,
    instanceOf: make.instance,
    serve: (...members) => api.serve(members.map(make.entry)),
    hide: api.hide,
    restore: api.restore,
    serveWithBroken: (...members) =>
      api.serve([...members.slice(0, 1).map(make.entry), make.broken, ...members.slice(1).map(make.entry)]),
    leftovers: api.open,
    close: api.close,
  };
}

async function dockerSubject(
  place: { socketPath?: string },
  members: readonly number[],
): Promise<SourceSubject> {
  const api = await startDockerApi(place);
  api.serve(members.map((member) => containerOf(member)));
  if (members.length === 0) await api.hide();
  return subjectOf(api, dockerSourceOf([api]), {
    entry: (member) => containerOf(member),
    instance: (member) => dockerInstance(member),
    broken: containerOf(9, { Ports: 'nonsense' }),
  });
}

describe('what every kind of source keeps', () => {
  sourceConformance('docker', (...members) => dockerSubject({}, members));
  sourceConformance('docker by a socket', (...members) =>
    dockerSubject({ socketPath: fileOf('sock') }, members),
  );
  sourceConformance('marathon', async (...members) => {
    const api = await startMarathonApi();
    api.serve(members.map((member) => taskOf(member)));
    if (members.length === 0) await api.hide();
    return subjectOf(api, marathonSourceOf(api.origin), {
      entry: (member) => taskOf(member),
      instance: marathonInstance,
      broken: taskOf(9, { ports: 'nonsense' }),
    });
  });
});

interface Scene<Api> {
  readonly api: Api;
  readonly watch: SourceFollower;
  readonly entries: LogEntry[];
  readonly warnings: () => string[];
}

/** A daemon, and one watch of it. */
async function withDocker(
  containers: readonly Container[],
  body: (scene: Scene<DockerApi>) => Promise<void>,
  more: Record<string, unknown> = {},
): Promise<void> {
  const api = await startDockerApi();
  api.serve(containers);
  const { source, entries } = dockerSourceOf([api], more);
  const watch = follow(source);
  try {
    await body({ api, watch, entries, warnings: () => reasonsOf(entries) });
  } finally {
    await watch.stop();
    await eventually(() => assert.equal(api.open(), 0));
    await api.close();
  }
}

async function withMarathon(
  tasks: readonly unknown[],
  body: (scene: Scene<MarathonApi>) => Promise<void>,
  more: Record<string, unknown> = {},
): Promise<void> {
  const api = await startMarathonApi();
  api.serve(tasks);
  const { source, entries } = marathonSourceOf(api.origin, more);
  const watch = follow(source);
  try {
    await body({ api, watch, entries, warnings: () => reasonsOf(entries) });
  } finally {
    await watch.stop();
    await eventually(() => assert.equal(api.open(), 0));
    await api.close();
  }
}

function reasonsOf(entries: readonly LogEntry[]): string[] {
  return entries
    .filter(({ message }) => message.startsWith('a remote cannot be read'))
    .map(({ facts }) => String(facts['reason']));
}

describe('docker', () => {
  test('an unhealthy container leaves when its check says so, and is back when it is well', () =>
    withDocker(
      [containerOf(1, { Status: 'Up 1 minute (healthy)' }), containerOf(2)],
      async ({ api, watch }) => {
        await watch.shows(dockerInstance(1), dockerInstance(2));
        api.serveSilently([containerOf(1, { Status: 'Up 1 minute (unhealthy)' }), containerOf(2)]);
        api.emit(eventOf('health_status: unhealthy'));
        await watch.shows(dockerInstance(2));
        api.serveSilently([containerOf(1, { Status: 'Up 1 minute (healthy)' }), containerOf(2)]);
        api.emit(eventOf('health_status: healthy'));
        await watch.shows(dockerInstance(1), dockerInstance(2));
      },
    ));

  test('checks of health and containers of others do not make it ask', () =>
    withDocker([containerOf(1)], async ({ api, watch }) => {
      await watch.shows(dockerInstance(1));
      await eventually(() => assert.equal(api.listeners(), 1));
      await eventually(() => assert.equal(api.lists(), 2));
      for (let round = 0; round < 20; round += 1) {
        api.emit(eventOf('exec_start: /bin/check'));
        api.emit(eventOf('start', { image: 'other:1' }));
        api.emitRaw(`${JSON.stringify({ Type: 'network', Action: 'start' })}\n\n`);
        await sleep(10);
      }
      assert.equal(api.lists(), 2);
    }));

  test('events that cannot be read, and those of the first daemons, make it ask', () =>
    withDocker([containerOf(1)], async ({ api, watch }) => {
      await watch.shows(dockerInstance(1));
      await eventually(() => assert.equal(api.listeners(), 1));
      const said = [
        '{"status":"start","id":"abc","from":"team/web:1","time":1}\n',
        'garbage\n',
        `{"Type":"container","Action":"start","Actor":{"Attributes":{"x":"${'y'.repeat(100_000)}"}}}\n`,
      ];
      for (const [index, bytes] of said.entries()) {
        api.serveSilently([containerOf(index + 2)]);
        api.emitRaw(bytes);
        await watch.shows(dockerInstance(index + 2));
      }
    }));

  test('a burst of events costs few questions', () =>
    withDocker([containerOf(1)], async ({ api, watch }) => {
      await watch.shows(dockerInstance(1));
      await eventually(() => assert.equal(api.listeners(), 1));
      const before = api.lists();
      for (let index = 0; index < 1_000; index += 1) api.emit(eventOf('die'));
      api.serve([containerOf(2)]);
      await watch.shows(dockerInstance(2));
      assert.ok(api.lists() - before <= 20, `${api.lists() - before} questions`);
    }));

  test('what nobody has told of is found by the resync', () =>
    withDocker(
      [containerOf(1)],
      async ({ api, watch }) => {
        await watch.shows(dockerInstance(1));
        await eventually(() => assert.equal(api.lists() >= 2, true));
        api.serveSilently([containerOf(1), containerOf(2)]);
        await watch.shows(dockerInstance(1), dockerInstance(2));
      },
      { resync: '1s' },
    ));

  test('changes during a cut of the stream are found when it stands again', () =>
    withDocker([containerOf(1)], async ({ api, watch }) => {
      await watch.shows(dockerInstance(1));
      await eventually(() => assert.equal(api.listeners(), 1));
      api.cut();
      api.serveSilently([containerOf(2)]);
      await watch.shows(dockerInstance(2));
    }));

  test('nonsense is not believed: what was known stays, and is told once', () =>
    withDocker([containerOf(1)], async ({ api, watch, warnings }) => {
      await watch.shows(dockerInstance(1));
      const asks = async (reason: string) => {
        api.emit(eventOf('die'));
        await eventually(() => assert.equal(warnings().at(-1), reason));
      };
      api.answerWith((response) => answerJson(response, { message: 'server error' }, 500));
      await asks('status 500');
      api.answerWith((response) => response.end('[{"Id":'));
      await asks('the answer is not a list of containers');
      api.answerWith((response) => {
        response.setHeader('content-length', 64 << 20);
        response.write('[');
      });
      await asks('an answer of more than 33554432 bytes');
      api.answerWith((response) => {
        response.write('[');
        setTimeout(() => response.destroy(), 10);
      });
      await asks('the connection was cut');
      assert.equal(new Set(warnings()).size, warnings().length);
      assert.equal(watch.snapshots.length, 1);
      api.answerWith(undefined);
      api.serve([containerOf(2)]);
      await watch.shows(dockerInstance(2));
    }));

  test('a pull of a newer image does not take running containers away', () =>
    withDocker([containerOf(1), containerOf(2)], async ({ api, watch }) => {
      await watch.shows(dockerInstance(1), dockerInstance(2));
      api.madeOf.set(idOf(1), 'team/web:1.2');
      api.madeOf.set(idOf(3), 'other:1');
      const Image = `sha256:${'ab'.repeat(32)}`;
      // The fourth has gone by the time that its image is asked for.
      api.serve([
        containerOf(1, { Image }),
        containerOf(2),
        ...[3, 4].map((member) => containerOf(member, { Image })),
        containerOf(5),
      ]);
      await watch.shows(dockerInstance(1), dockerInstance(2), dockerInstance(5));
      const asked = () => api.requests.filter(({ line }) => line.includes(idOf(1))).length;
      assert.equal(asked(), 1);
      api.serve([containerOf(1, { Image })]);
      await watch.shows(dockerInstance(1));
      assert.equal(asked(), 1, 'what it was made of never changes');
    }));

  test('of several daemons, one that is away keeps its part', async () => {
    const apis = await Promise.all([startDockerApi(), startDockerApi()]);
    const [first, second] = apis;
    first.serve([containerOf(1)]);
    second.serve([containerOf(2)]);
    const { source } = dockerSourceOf(apis);
    const watch = follow(source);
    try {
      await watch.shows(dockerInstance(1), dockerInstance(2, '10.0.0.2'));
      assert.equal(watch.snapshots[0]?.instances.length, 2, 'the first one is whole');
      await second.hide();
      first.serve([containerOf(1), containerOf(3)]);
      await watch.shows(dockerInstance(1), dockerInstance(3), dockerInstance(2, '10.0.0.2'));
      second.serveSilently([containerOf(4)]);
      await second.restore();
      await watch.shows(dockerInstance(1), dockerInstance(3), dockerInstance(4, '10.0.0.2'));
    } finally {
      await watch.stop();
      for (const api of apis) await api.close();
    }
  });
});

describe('marathon', () => {
  test('asks by the path of the app, and listens to what concerns it', () =>
    withMarathon([taskOf(1)], async ({ api, watch }) => {
      await watch.shows(marathonInstance(1));
      await eventually(() => assert.equal(api.listeners(), 1));
      await eventually(() => assert.equal(api.lists(), 2));
      for (let round = 0; round < 10; round += 1) {
        api.emit('status_update_event', { appId: '/shop/other' });
        api.emit('api_post_event', { appId: '/shop/web' });
        api.emitRaw(': a comment, as a heartbeat\r\n\r\n');
        await sleep(20);
      }
      await sleep(600);
      assert.equal(api.lists(), 2);
      const events: [string, Record<string, unknown>][] = [
        ['health_status_changed_event', { appId: '/shop/web', alive: false }],
        ['instance_changed_event', { runSpecId: '/shop/web' }],
        ['deployment_success', { id: 'x' }],
      ];
      for (const [index, [type, event]] of events.entries()) {
        api.serveSilently([taskOf(index + 2)]);
        api.emit(type, event);
        await watch.shows(marathonInstance(index + 2));
      }
      const [listened] = api.requests.filter(({ line }) => line.includes('/v2/events'));
      assert.match(listened?.line ?? '', /event_type=status_update_event&/);
    }));

  test('an app that was deleted has no instances; a path that leads nowhere says nothing', () =>
    withMarathon([taskOf(1)], async ({ api, watch, warnings }) => {
      await watch.shows(marathonInstance(1));
      api.answerWith((request, response) => {
        if (request.url?.includes('/events') === true) return false;
        answerJson(response, { message: 'no such page' }, 404);
        return true;
      });
      api.emit('app_terminated_event', { appId: '/shop/web' });
      await eventually(() => assert.deepEqual(warnings(), ['status 404']));
      assert.equal(watch.snapshots.length, 1);
      api.answerWith(undefined);
      api.serve(undefined);
      await watch.shows();
    }));

  test('where events are not to be had, the resync finds what has changed', () =>
    withMarathon(
      [taskOf(1)],
      async ({ api, watch, entries }) => {
        api.answerWith((request, response) => {
          if (request.url?.includes('/events') !== true) return false;
          answerJson(response, {}, 405);
          return true;
        });
        api.cut();
        await watch.shows(marathonInstance(1));
        await eventually(() =>
          assert.ok(
            entries.some(
              ({ message, facts }) => message.startsWith('no word') && facts['reason'] === 'status 405',
            ),
          ),
        );
        api.serve([taskOf(2)]);
        await watch.shows(marathonInstance(2));
      },
      { resync: '1s' },
    ));

  test('the next master is asked when one is away, and a redirect leads to the leader', async () => {
    const [first, second, leader] = await Promise.all([
      startMarathonApi(),
      startMarathonApi(),
      startMarathonApi(),
    ]);
    leader.serve([taskOf(1)]);
    second.answerWith((request, response) => {
      response.writeHead(302, { location: `${leader.origin}${request.url}` });
      response.end();
      return true;
    });
    await first.hide();
    const { source } = marathonSourceOf([first.origin, second.origin]);
    const watch = follow(source);
    try {
      await watch.shows(marathonInstance(1));
      await eventually(() => assert.equal(leader.listeners(), 1));
      leader.serve([taskOf(2)]);
      await watch.shows(marathonInstance(2));
    } finally {
      await watch.stop();
      for (const api of [first, second, leader]) await api.close();
    }
  });

  test('credentials are read anew for every request, and are in no log', async () => {
    const file = fileOf('auth');
    writeFileSync(file, 'tandem:s3cr3t-word\n', { mode: 0o644 });
    const expected = (password: string) => `Basic ${Buffer.from(`tandem:${password}`).toString('base64')}`;
    const accepted = { password: 's3cr3t-word' };
    const api = await startMarathonApi();
    api.serve([taskOf(1)]);
    api.answerWith((request, response) => {
      if (request.headers.authorization === expected(accepted.password)) return false;
      answerJson(response, { message: 'not authorized' }, 401);
      return true;
    });
    const { source, entries } = marathonSourceOf(api.origin, { credentials_file: file, resync: '1s' });
    const watch = follow(source);
    try {
      await watch.shows(marathonInstance(1));
      assert.deepEqual(
        entries
          .filter(({ message }) => message.startsWith('others may read'))
          .map(({ facts }) => facts['mode']),
        ['0644'],
      );
      accepted.password = 'other-word';
      await eventually(() => assert.deepEqual(reasonsOf(entries), ['status 401']));
      writeFileSync(file, 'half a line');
      await eventually(() =>
        assert.equal(reasonsOf(entries).at(-1), `${file} does not hold user:password on its only line`),
      );
      rmSync(file);
      await eventually(() => assert.equal(reasonsOf(entries).at(-1), `${file} cannot be read: ENOENT`));
      writeFileSync(file, 'tandem:other-word\n');
      api.serve([taskOf(2)]);
      await watch.shows(marathonInstance(2));
      assert.doesNotMatch(JSON.stringify(entries), /s3cr3t|other-word|half a|Basic|dGFuZGVt/);
    } finally {
      await watch.stop();
      await api.close();
    }
  });
});

describe('a discovery daemon', () => {
  test('routes to containers without a reload, and goes on while Docker is away', async () => {
    const api = await startDockerApi({ socketPath: fileOf('sock') });
    const origins = await Promise.all([startHttpOrigin(), startHttpOrigin()]);
    const [first, second] = origins.map(({ port }, index) =>
      containerOf(index + 1, { Ports: [{ IP: '0.0.0.0', PrivatePort: 80, PublicPort: port, Type: 'tcp' }] }),
    );
    const world = await createHaproxyWorld();
    const listen = await freePort();
    const ask = async () => (await fetch(`http://127.0.0.1:${listen}/`)).text();
    try {
      api.serve([first]);
      const docker = { servers: [{ api: api.origin }], image_name: 'team/web', container_port: 80 };
      const daemon = world.start([service('web', `127.0.0.1:${listen}`, { source: { docker } })]);
      await world.becomes('web', ['web-1']);
      assert.equal(await ask(), String(origins[0].port));

      api.serve([first, second]);
      await world.becomes('web', ['web-1', 'web-2']);
      const reloads = world.reloads();
      api.serve([second]);
      await world.becomes('web', ['web-2']);
      assert.equal(await ask(), String(origins[1].port));

      await api.hide();
      await eventually(() =>
        assert.ok(world.entries.some(({ message }) => message.startsWith('no word of changes'))),
      );
      assert.equal(await ask(), String(origins[1].port));
      api.serveSilently([first]);
      await api.restore();
      await world.becomes('web', ['web-1']);
      assert.equal(await ask(), String(origins[0].port));
      assert.equal(world.reloads(), reloads, world.reloadReasons());
      await daemon.stop();
      await eventually(() => assert.equal(api.open(), 0));
    } finally {
      await world.end();
      await api.close();
      for (const origin of origins) await origin.close();
    }
  });
});
