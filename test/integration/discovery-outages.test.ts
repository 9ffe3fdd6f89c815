// The registry goes away, comes back empty, or fills again one by one: nobody who talks to a service notices.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { open, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

import type { ServiceState } from '@tandem/discovery';

import {
  createHaproxyWorld,
  type Daemon,
  eventually,
  freePort,
  type HaproxyWorld,
  service,
} from '../support/haproxy.ts';
import { ask, type Load, startLoad } from '../support/load.ts';
import { type Origin, startHttpOrigin } from '../support/origin.ts';

const PER_SECOND = 100;
const NAMES = ['a', 'b', 'c', 'd'];
const WEB = '/services/web';
/** The very first start waits for five seconds, the others do not. */
const PATIENT_MS = 4_000;
let origins: Origin[];

before(async () => {
  origins = await Promise.all(NAMES.map(() => startHttpOrigin()));
});

after(async () => {
  await Promise.all(origins.map((origin) => origin.close()));
});

function fleet(names: string) {
  return names.split('').map((name) => {
    const origin = origins[NAMES.indexOf(name)];
    assert.ok(origin, name);
    return origin.instance(name);
  });
}

interface Scene {
  readonly world: HaproxyWorld;
  readonly port: number;
  readonly say: (names: string) => void;
  readonly becomes: (names: string) => Promise<void>;
  /** Starts a daemon with `web` and this guard. */
  readonly start: (section?: Record<string, unknown>, guard?: Record<string, unknown>) => Daemon;
  /** Sends requests until the end of the test, which fails with the first that does. */
  readonly load: () => void;
}

function scenario(name: string, body: (scene: Scene) => Promise<void>): void {
  test(name, { timeout: 90_000 }, async () => {
    const world = await createHaproxyWorld();
    const port = await freePort();
    let load: Load | undefined;
    try {
      await body({
        world,
        port,
        say: (names) => world.registry.say(WEB, fleet(names)),
        becomes: (names) => world.becomes('web', names.split('')),
        start: (section = {}, guard = { hold: '3s' }) =>
          world.start([service('web', `127.0.0.1:${port}`, section)], {}, { settings: { guard } }),
        load: () => {
          load = startLoad({ port, perSecond: PER_SECOND });
        },
      });
      await load?.stop();
      assert.deepEqual(load?.failures ?? [], []);
    } catch (error) {
      process.stderr.write(`${world.entries.map((entry) => JSON.stringify(entry)).join('\n')}\n`);
      throw error;
    } finally {
      await load?.stop();
      await world.end();
    }
  });
}

function stateOf(daemon: Daemon): ServiceState {
  const [state] = daemon.discovery.state().services;
  assert.ok(state);
  return state;
}

/** `a` for one that is offered, `(a)` for one that is not; `a!` for one that only the guard holds. */
function shown(daemon: Daemon): string {
  return stateOf(daemon)
    .instances.map(({ name, offered, guarded }) => `${offered ? name : `(${name})`}${guarded ? '!' : ''}`)
    .join(' ');
}

async function inRotation({ world }: Scene): Promise<string[]> {
  return (await world.servers('web')).map((server) => server.split('_')[0] ?? '');
}

async function killHaproxy({ world, port }: Scene): Promise<void> {
  process.kill(await world.masterPid(), 'SIGKILL');
  await eventually(() => assert.rejects(ask(port)));
}

describe('a registry that loses everything', () => {
  scenario('and gets it back one by one costs no request', async ({ world, say, becomes, start, load }) => {
    say('abcd');
    const daemon = start();
    await becomes('abcd');
    load();
    // A wiped ensemble shows up as a burst of small losses.
    for (const left of ['abc', 'ab', 'a', '']) {
      say(left);
      await sleep(50);
    }
    await eventually(() => assert.equal(shown(daemon), 'a! b! c! d!'));
    for (const back of ['b', 'bc', 'abc']) {
      await sleep(300);
      say(back);
    }
    await eventually(() => assert.equal(shown(daemon), 'a b c d!'));
    await becomes('abcd');
    assert.ok((stateOf(daemon).guardMs ?? 0) > 0);
    say('abcd');
    await eventually(() => assert.equal(stateOf(daemon).guardMs, undefined));
    assert.equal(world.logged('refused an implausible loss, holding on to what was there').length, 1);
    assert.equal(world.reloads(), 0);
  });

  scenario('is believed in the end, but for the last ones, which are kept', async (scene) => {
    const { world, say, becomes, start, load } = scene;
    say('abcd');
    const daemon = start({}, { hold: '1s' });
    await becomes('abcd');
    load();
    say('a');
    await eventually(() => assert.equal(shown(daemon), 'a b! c! d!'));
    await becomes('a');
    say('');
    await eventually(() => assert.equal(stateOf(daemon).use, 'kept'));
    await sleep(300);
    await becomes('a');
    say('bc');
    await becomes('bc');
    assert.equal(world.logged('the last instance is gone, keeping the last known ones').length, 1);
  });

  scenario('empties a service that may be empty, after the hold', async ({ say, becomes, start }) => {
    say('abc');
    const daemon = start({ allow_empty: true }, { hold: '1s' });
    await becomes('abc');
    say('');
    await eventually(() => assert.equal(shown(daemon), 'a! b! c!'));
    await eventually(() => assert.equal(shown(daemon), ''));
  });

  scenario('is covered by the fallback once the hold is over', async ({ say, becomes, start, port }) => {
    say('abc');
    const { port: fallbackPort } = origins[3]!;
    const fallback = [{ name: 'd', host: 'localhost', port: fallbackPort }];
    const daemon = start({ fallback }, { hold: '1s' });
    await becomes('abc');
    say('');
    await becomes('d');
    assert.equal(await ask(port), String(fallbackPort));
    assert.equal(stateOf(daemon).use, 'fallback');
    say('b');
    await becomes('b');
  });
});

describe('a start', () => {
  scenario('without the registry serves the saved catalog at once', async (scene) => {
    const { world, say, becomes, start, port } = scene;
    say('abc');
    const first = start();
    await becomes('abc');
    await first.stop();
    await killHaproxy(scene);
    world.registry.hush(WEB);
    const startedAt = performance.now();
    const daemon = start();
    await eventually(() => ask(port));
    const tookMs = performance.now() - startedAt;
    assert.ok(tookMs < PATIENT_MS, `served after ${Math.round(tookMs)} ms`);
    await becomes('abc');
    assert.equal(stateOf(daemon).use, 'saved');
    say('ab');
    await becomes('ab');
    assert.equal(stateOf(daemon).use, 'source');
  });

  scenario('with a registry that has come back empty holds on to the saved catalog', async (scene) => {
    const { say, becomes, start, load } = scene;
    say('abcd');
    const first = start();
    await becomes('abcd');
    await first.stop();
    await killHaproxy(scene);
    say('');
    const daemon = start();
    await becomes('abcd');
    load();
    assert.equal(shown(daemon), 'a! b! c! d!');
    say('ad');
    await eventually(() => assert.equal(shown(daemon), 'a b! c! d'));
    await becomes('ad');
    assert.equal(stateOf(daemon).guardMs, undefined);
  });

  for (const [what, names] of [
    ['empty', ''],
    ['with members still to come', 'b'],
  ] as const) {
    scenario(
      `that adopts a HAProxy, with a registry that has come back ${what}, changes nothing`,
      async (scene) => {
        const { world, say, becomes, start, load } = scene;
        say('abcd');
        const first = start();
        await becomes('abcd');
        load();
        await first.stop();
        const updates = world.logged('updated HAProxy').length;
        say(names);
        const daemon = start();
        await eventually(() => assert.ok(daemon.discovery.state().haproxy.applied));
        await eventually(() => assert.ok((stateOf(daemon).guardMs ?? 0) > 0));
        await becomes('abcd');
        say('abcd');
        await eventually(() => assert.equal(stateOf(daemon).guardMs, undefined));
        await becomes('abcd');
        assert.deepEqual([world.reloads(), world.logged('updated HAProxy').length - updates], [0, 0]);
      },
    );
  }

  scenario('serves what was saved although another service was never heard of', async (scene) => {
    const { world, say, becomes, start, port } = scene;
    say('abc');
    const first = start();
    await becomes('abc');
    await first.stop();
    await killHaproxy(scene);
    world.registry.hush(WEB);
    const startedAt = performance.now();
    world.start([service('web', `127.0.0.1:${port}`), service('new', `127.0.0.1:${await freePort()}`)]);
    await eventually(() => ask(port));
    const tookMs = performance.now() - startedAt;
    assert.ok(tookMs < PATIENT_MS, `served after ${Math.round(tookMs)} ms`);
    await becomes('abc');
  });

  for (const [what, isSaved] of [
    ['a HAProxy that runs', true],
    ['nothing', false],
  ] as const) {
    scenario(`with ${what} follows each source, whoever else is silent`, async (scene) => {
      const { world, say, becomes, start, port } = scene;
      if (isSaved) {
        say('ab');
        const first = start();
        await becomes('ab');
        await first.stop();
      }
      say('bc');
      const startedAt = performance.now();
      const silent = service('silent', `127.0.0.1:${await freePort()}`);
      world.start([silent, service('web', `127.0.0.1:${port}`)]);
      await becomes('bc');
      const tookMs = performance.now() - startedAt;
      assert.ok(tookMs < PATIENT_MS, `followed after ${Math.round(tookMs)} ms`);
      world.registry.say(silent.path, fleet('d'));
      await world.becomes('silent', ['d']);
    });
  }

  scenario('with nothing but living sources begins with one correct file', async ({ world }) => {
    const services = await Promise.all(
      Array.from({ length: 20 }, async (_, index) =>
        service(`service-${index}`, `127.0.0.1:${await freePort()}`),
      ),
    );
    world.start(services);
    for (const { path } of services) {
      await sleep(20);
      world.registry.say(path, fleet('abcd'));
    }
    for (const { service: name } of services) await world.becomes(name, NAMES);
    assert.deepEqual([world.reloads(), world.logged('updated HAProxy').length], [0, 0]);
  });

  scenario('that has lost its catalog guards what the running HAProxy has', async (scene) => {
    const { world, say, becomes, start, load } = scene;
    say('abcd');
    const first = start();
    await becomes('abcd');
    load();
    await first.stop();
    await rm(path.join(world.stateDir, 'catalog.json'));
    const updates = world.logged('updated HAProxy').length;
    say('');
    const daemon = start();
    await eventually(() => assert.ok((stateOf(daemon).guardMs ?? 0) > 0));
    assert.equal(shown(daemon), 'a! b! c! d!');
    await eventually(() => assert.ok(daemon.discovery.state().haproxy.applied));
    await becomes('abcd');
    say('abcd');
    await eventually(() => assert.equal(stateOf(daemon).guardMs, undefined));
    await becomes('abcd');
    assert.deepEqual([world.reloads(), world.logged('updated HAProxy').length - updates], [0, 0]);
  });

  scenario('that adopts a HAProxy leaves it as it is while the registry is silent', async (scene) => {
    const { world, say, becomes, start, load } = scene;
    say('ab');
    const first = start();
    await becomes('ab');
    load();
    await first.stop();
    world.registry.hush(WEB);
    const daemon = start();
    await eventually(() => assert.equal(daemon.discovery.state().phase, 'serving'));
    assert.equal(stateOf(daemon).use, 'unknown');
    assert.equal(shown(daemon), '(a) (b)');
    await eventually(() => assert.ok(daemon.discovery.state().haproxy.applied));
    await becomes('ab');
    say('abc');
    await becomes('abc');
  });
});

describe('an instance', () => {
  scenario('is announced by the name of its host, and reached by its address', async (scene) => {
    const { world, becomes, start, port } = scene;
    const [origin] = origins;
    assert.ok(origin);
    world.registry.say(WEB, [
      { name: 'a', host: 'localhost', port: origin.port },
      { name: 'b', host: 'nobody.invalid;', port: 1 },
    ]);
    const daemon = start();
    await becomes('a');
    assert.equal(await ask(port), String(origin.port));
    assert.deepEqual(stateOf(daemon).rejected, [
      {
        place: 'b_nobody.invalid;:1',
        reason: 'the host is neither an address nor the name of a host',
      },
    ]);
  });

  scenario('is followed only with the labels that are asked for', async ({ world, becomes, start, port }) => {
    const labelled = (name: string, version: string) => ({ ...fleet(name)[0]!, labels: { version } });
    world.registry.say(WEB, [labelled('a', '1'), labelled('b', '2'), labelled('c', '2')]);
    const daemon = start({ filter: { version: '2' } });
    await becomes('bc');
    daemon.discovery.update([service('web', `127.0.0.1:${port}`, { filter: { version: '1' } })]);
    await becomes('a');
    assert.equal(stateOf(daemon).guardMs, undefined);
  });

  scenario('serves a host only when it is near, until too few are', async ({ world, becomes }) => {
    const port = await freePort();
    const zoned = (names: string, zone: string) =>
      fleet(names).map((instance) => ({ ...instance, labels: { zone } }));
    const web = service('web', `127.0.0.1:${port}`, { locality: { prefer: ['zone'], spill_below: 2 } });
    world.registry.say(WEB, [...zoned('ab', 'here'), ...zoned('cd', 'there')]);
    world.start([web], {}, { host: { name: 'host-1', labels: { zone: 'here' } } });
    await becomes('ab');
    world.registry.say(WEB, [...zoned('b', 'here'), ...zoned('cd', 'there')]);
    await becomes('bcd');
    world.registry.say(WEB, [...zoned('ab', 'here'), ...zoned('cd', 'there')]);
    await becomes('ab');
    assert.equal(world.reloads(), 0);
  });

  scenario('that is held gets no request, also after a restart', async (scene) => {
    const { say, becomes, start, port } = scene;
    say('ab');
    const first = start();
    await becomes('ab');
    assert.deepEqual(await first.discovery.hold('web', 'a', 'drain'), {
      ok: true,
      instance: `a_127.0.0.1:${origins[0]?.port}`,
      remembered: true,
    });
    await eventually(async () => assert.deepEqual(await inRotation(scene), ['b']));
    for (let count = 0; count < 10; count += 1) assert.equal(await ask(port), String(origins[1]?.port));
    await first.stop();
    await killHaproxy(scene);
    const daemon = start();
    await eventually(() => ask(port));
    for (let count = 0; count < 10; count += 1) assert.equal(await ask(port), String(origins[1]?.port));
    await daemon.discovery.release('web', 'a');
    await becomes('ab');
  });
});

describe('an operator', () => {
  scenario('who reads a service in another way sees what is there, without a hold', async (scene) => {
    const { world, say, becomes, start, port, load } = scene;
    say('abcd');
    const daemon = start();
    await becomes('abcd');
    load();
    const elsewhere = { ...service('web', `127.0.0.1:${port}`), path: '/services/silent' };
    daemon.discovery.update([elsewhere]);
    await eventually(() => assert.equal(world.registry.watches('/services/silent'), 1));
    await sleep(300);
    assert.equal(shown(daemon), 'a b c d', 'what is silent changes nothing');
    world.registry.say('/services/silent', fleet('a'));
    await becomes('a');
    assert.equal(stateOf(daemon).guardMs, undefined);
    world.registry.say('/services/silent', []);
    await eventually(() => assert.equal(stateOf(daemon).use, 'kept'));
  });

  scenario('may switch the guard off while it holds', async ({ say, becomes, start, port }) => {
    say('abcd');
    const daemon = start({}, { hold: '1h' });
    await becomes('abcd');
    say('a');
    await eventually(() => assert.equal(shown(daemon), 'a b! c! d!'));
    daemon.discovery.update([service('web', `127.0.0.1:${port}`, { guard: { max_lost_percent: 100 } })]);
    await becomes('a');
  });

  scenario('gets answers to a hold, and a restart remembers it', async ({ say, becomes, start }) => {
    say('abc');
    const first = start();
    await becomes('abc');
    const { discovery } = first;
    const a = `a_127.0.0.1:${origins[0]?.port}`;
    assert.deepEqual(await discovery.hold('nobody', 'a', 'drain'), {
      ok: false,
      reason: 'unknown-service',
      candidates: ['web'],
    });
    const ids = stateOf(first).instances.map(({ id }) => id);
    assert.deepEqual(await discovery.hold('web', 'x', 'drain'), {
      ok: false,
      reason: 'unknown-instance',
      candidates: ids,
    });
    assert.deepEqual(await discovery.hold('web', '127.0.0.1', 'drain'), {
      ok: false,
      reason: 'ambiguous-instance',
      candidates: ids,
    });
    assert.deepEqual(await discovery.release('web', 'a'), { ok: false, reason: 'not-held', candidates: [] });
    assert.deepEqual(await discovery.hold('web', 'a', 'maint'), { ok: true, instance: a, remembered: true });
    await first.stop();
    say('bc');
    const daemon = start({}, { max_lost_percent: 100 });
    await becomes('bc');
    const held = () => stateOf(daemon).instances.filter(({ held }) => held !== undefined);
    assert.deepEqual(
      held().map(({ id, held, offered }) => ({ id, held, offered })),
      [{ id: a, held: 'maint', offered: false }],
    );
    assert.deepEqual(await daemon.discovery.release('web', 'a'), {
      ok: true,
      instance: a,
      remembered: true,
    });
    assert.deepEqual(held(), []);
  });
});

describe('an output that is stuck', () => {
  scenario('does not keep the daemon from ending, nor from saving what it knows', async (scene) => {
    const { world, say, port } = scene;
    // Whoever reads from a pipe waits for somebody who writes.
    const template = path.join(world.directory, 'nginx.conf.hbs');
    await promisify(execFile)('mkfifo', [template]);
    const settings = { templates: [{ template, target: path.join(world.directory, 'nginx.conf') }] };
    say('ab');
    const daemon = world.start([service('web', `127.0.0.1:${port}`)], {}, { settings });
    // Without a reader it cannot be opened like this.
    const writer = await eventually(() => open(template, constants.O_WRONLY | constants.O_NONBLOCK));
    try {
      await scene.becomes('ab');
      say('abc');
      await scene.becomes('abc');
      await daemon.stop();
      assert.equal(world.logged('an output or the disk is stuck, ending without it').length, 1);
      const saved = await readFile(path.join(world.stateDir, 'catalog.json'), 'utf8');
      assert.deepEqual([...saved.matchAll(/"name":"(\w)"/g)].map(([, name = '']) => name).toSorted(), [
        'a',
        'b',
        'c',
      ]);
    } finally {
      await writer.close();
    }
  });
});
