// Registries on three real servers, which are killed, frozen and restarted while instances come, change and go.
// After every fault each instance stands exactly once, every watcher shows the truth, and none was shown less meanwhile.
// TANDEM_FUZZ_SECONDS makes the random faults longer, TANDEM_FUZZ_SEED gives them another start.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import type { Announcer, Registry } from '@tandem/registry';

import { type RealEnsemble, startRealEnsemble } from '../support/ensemble.ts';
import { eventually } from '../support/eventually.ts';
import { createRandom, type Random } from '../support/random.ts';
import type { RealZooKeeper } from '../support/real-zookeeper.ts';
import {
  endLater,
  type Follower,
  follow,
  instanceOf,
  label,
  labelOf,
  limit,
  listen,
  nodesOf,
  noSurprises,
  openTestRegistry,
  spawnRegistry,
} from '../support/registries.ts';

const SECONDS = Number(process.env['TANDEM_FUZZ_SECONDS'] ?? 10);
const SEED = Number(process.env['TANDEM_FUZZ_SEED'] ?? 1);
const TICK_MS = 500;
const SESSION_TIMEOUT_MS = 10 * TICK_MS;
const PATHS = ['/ensemble/web', '/ensemble/db', '/ensemble/api'] as const;
const RESUMED = '/ensemble/resumed';
/** For whatever has to come right again after a fault. */
const RECOVERY_MS = 90_000;

let ensemble: RealEnsemble;
let fleet: Fleet;

before(async () => {
  ensemble = await startRealEnsemble({ tickTimeMs: TICK_MS });
  fleet = await startFleet(ensemble, createRandom(SEED));
});
after(async () => {
  await fleet?.close();
  await ensemble?.stop();
});
noSurprises();

describe('registries on an ensemble', () => {
  test('the leader is killed: the others go on under another one, and it comes back', async () => {
    const { leader } = await ensemble.settled();
    await fleet.stir();
    await leader.kill();
    await fleet.goesOn();
    await leader.start();
    await fleet.isTrue();
    fleet.feltIt();
    fleet.sessionsLiveOn();
  });

  test('a follower is killed: its clients go on with another server', async () => {
    const { followers } = await ensemble.settled();
    const [killed] = followers;
    await fleet.stir();
    await killed?.kill();
    await fleet.goesOn();
    await killed?.start();
    await fleet.isTrue();
    fleet.feltIt();
    fleet.sessionsLiveOn();
  });

  test('the leader is frozen for longer than the session timeout: the others go on without it', async () => {
    const { leader } = await ensemble.settled();
    const since = performance.now();
    await fleet.stir();
    leader.signal('SIGSTOP');
    await fleet.goesOn();
    await sleep(SESSION_TIMEOUT_MS + 1_000 - (performance.now() - since));
    leader.signal('SIGCONT');
    await fleet.isTrue();
    fleet.feltIt();
    fleet.sessionsLiveOn();
  });

  test('a follower is frozen: its clients notice by themselves, and go on with another server', async () => {
    const { followers } = await ensemble.settled();
    const [frozen] = followers;
    const since = performance.now();
    await fleet.stir();
    frozen?.signal('SIGSTOP');
    await fleet.goesOn();
    await sleep(SESSION_TIMEOUT_MS + 1_000 - (performance.now() - since));
    frozen?.signal('SIGCONT');
    await fleet.isTrue();
    fleet.feltIt();
    fleet.sessionsLiveOn();
  });

  test('the quorum is lost for twice the session timeout: nothing moves, and then all sessions live on', async () => {
    const { leader, followers } = await ensemble.settled();
    const killed = [leader, ...followers.slice(1)];
    await fleet.stir();
    await Promise.all(killed.map((server) => server.kill()));
    await fleet.isCutOff();
    const before = fleet.seen();
    await sleep(2 * SESSION_TIMEOUT_MS);
    assert.deepEqual(fleet.seen(), before, 'nobody was shown anything');
    await Promise.all(killed.map((server) => server.start()));
    await fleet.isTrue();
    fleet.feltIt();
    fleet.sessionsLiveOn();
  });

  test('all servers are killed, and a client with them: its successor finds what it had', async () => {
    const directory = await mkdtemp(path.join(tmpdir(), 'tandem-ensemble-'));
    endLater(() => rm(directory, { recursive: true, force: true }));
    const resumeFile = path.join(directory, 'session.json');
    const doomed = spawnRegistry(ensemble.ports, { path: RESUMED, names: ['i-1', 'i-2'], resumeFile });
    const watcher = follow(fleet.registries[0] as Registry, RESUMED);
    await watcher.shows('i-1', 'i-2');
    const { leader } = await ensemble.settled();
    const before = await nodesOf(leader.port).children(RESUMED);
    await fleet.stir();
    await Promise.all(ensemble.servers.map((server) => server.kill()));
    doomed.kill('SIGKILL');
    await once(doomed, 'exit');

    const { log, said } = listen();
    const successor = await openTestRegistry(ensemble.ports, {
      log,
      resumeFile,
      sessionTimeoutMs: SESSION_TIMEOUT_MS,
    });
    const announcer = successor.announce(RESUMED, instanceOf('i-1'));
    announcer.set(instanceOf('i-1'));
    successor.withdrawUnclaimed();
    await fleet.isCutOff();
    await Promise.all(ensemble.servers.map((server) => server.start()));

    await announcer.agreed(limit(RECOVERY_MS));
    await watcher.shows('i-1');
    assert.deepEqual(
      await nodesOf((await ensemble.settled()).leader.port).children(RESUMED),
      before.filter((child) => child.startsWith('i-1_')),
      'adopted, not announced anew',
    );
    assert.equal(said('session has expired').length, 0);
    assert.ok(watcher.snapshots.slice(1).every(({ instances }) => instances.length > 0));
    await fleet.isTrue();
    fleet.feltIt();
    fleet.sessionsLiveOn();
    await watcher.stop();
    await successor.close();
  });

  test('all servers are restarted, one after the other: nobody notices', async () => {
    for (const server of ensemble.servers) {
      await fleet.stir();
      await server.kill('SIGTERM');
      await fleet.goesOn();
      await server.start();
      await ensemble.settled();
    }
    await fleet.isTrue();
    fleet.feltIt();
    fleet.sessionsLiveOn();
  });

  test(`${SECONDS} seconds of random faults end with the truth`, async (t) => {
    t.diagnostic(`TANDEM_FUZZ_SEED=${SEED} TANDEM_FUZZ_SECONDS=${SECONDS}`);
    const random = createRandom(SEED);
    const end = performance.now() + SECONDS * 1_000;
    while (performance.now() < end) {
      const fault = randomFault(ensemble.servers, random);
      t.diagnostic(fault.name);
      await fleet.stir();
      await fault.begin();
      await sleep(random.below(SESSION_TIMEOUT_MS * random.pick([0.2, 0.6, 1.5])));
      await fault.end();
      if (random.chance(0.5)) await fleet.isTrue();
      else await sleep(random.below(1_000));
    }
    // A leader that wakes up with its quorum after too long ends every session at once. What it ended is announced anew.
    await fleet.isTrue();
    t.diagnostic(`${fleet.endings()} sessions ended`);
  });
});

interface Fault {
  readonly name: string;
  begin(): Promise<unknown>;
  end(): Promise<unknown>;
}

/** Some servers are killed, ended or frozen at once, most often only one of them. */
function randomFault(servers: readonly RealZooKeeper[], random: Random): Fault {
  const count = random.pick([1, 1, 1, 1, 2, 2, 3]);
  const first = random.below(servers.length);
  const hit = [...servers, ...servers].slice(first, first + count);
  const kind = random.pick(['SIGKILL', 'SIGTERM', 'SIGSTOP'] as const);
  const name = `${kind} to ${hit.map((server) => servers.indexOf(server) + 1).join(' and ')}`;
  if (kind === 'SIGSTOP') {
    const signal = (name: NodeJS.Signals) =>
      Promise.resolve().then(() => hit.forEach((server) => server.signal(name)));
    return { name, begin: () => signal('SIGSTOP'), end: () => signal('SIGCONT') };
  }
  const all = (task: (server: RealZooKeeper) => Promise<void>) => () => Promise.all(hit.map(task));
  return { name, begin: all((server) => server.kill(kind)), end: all((server) => server.start()) };
}

/** What registries want, and what they were told. */
interface Fleet {
  readonly registries: readonly Registry[];
  /** Changes everything that changes, so that what happens next happens in the middle of it. */
  stir(): Promise<void>;
  /** Every registry gets a new wish through, whatever is broken. */
  goesOn(): Promise<void>;
  isCutOff(): Promise<void>;
  /** How many snapshots every watcher was shown. */
  seen(): number[];
  /** Holds all wishes until everything is as they say, past the registries and through them. */
  isTrue(): Promise<void>;
  /** Somebody has lost a connection since the last time. */
  feltIt(): void;
  /** How many sessions the servers have ended. */
  endings(): number;
  /** Nobody has ever had another session than the first. */
  sessionsLiveOn(): void;
  close(): Promise<void>;
}

interface Wish {
  readonly path: string;
  readonly name: string;
  readonly announcer: Announcer;
  /** `steady` ones never change, `changing` ones are always there, `fickle` ones come and go; the pulse is for `goesOn`. */
  readonly manner: 'steady' | 'changing' | 'fickle' | 'pulse';
  weight: number;
  isWanted: boolean;
}

const MANNERS: readonly Wish['manner'][] = [
  ...Array<'steady'>(4).fill('steady'),
  ...Array<'changing'>(8).fill('changing'),
  ...Array<'fickle'>(2).fill('fickle'),
];

/** Four registries that announce and watch, and four that only watch, all connected to every server. */
async function startFleet(ensemble: RealEnsemble, random: Random): Promise<Fleet> {
  const logs = Array.from({ length: 8 }, () => listen());
  const registries = await Promise.all(
    logs.map(({ log }) => openTestRegistry(ensemble.ports, { log, sessionTimeoutMs: SESSION_TIMEOUT_MS })),
  );
  const wishes = registries.slice(0, 4).flatMap((registry, index) => makeWishes(registry, `r${index}`));
  await agreed(wishes);
  const watchers = registries.flatMap((registry) => PATHS.map((path) => watch(registry, path, wishes)));
  const churn = startChurn(wishes, random);
  await Promise.all(watchers.map((watcher) => watcher.isTrue()));

  let felt = 0;
  let knownEndings = 0;
  const count = (part: string) => logs.reduce((sum, { said }) => sum + said(part).length, 0);
  const endings = () => count('session has expired');
  return {
    registries,
    endings,
    async stir() {
      for (const wish of wishes) if (wish.manner === 'changing') express(wish, wish.weight + 1);
      await sleep(random.below(30));
    },
    async goesOn() {
      const pulses = wishes.filter(({ manner }) => manner === 'pulse');
      for (const wish of pulses) express(wish, wish.weight + 1);
      await agreed(pulses);
    },
    isCutOff: () =>
      eventually(
        () => {
          for (const { status } of registries) assert.equal(status.state, 'suspended');
        },
        { withinMs: RECOVERY_MS },
      ),
    seen: () => watchers.map(({ follower }) => follower.snapshots.length),
    async isTrue() {
      churn.pause();
      const { leader } = await ensemble.settled();
      await agreed(wishes);
      // The leader is never behind.
      const nodes = nodesOf(leader.port);
      for (const path of PATHS)
        assert.deepEqual((await nodes.records(path)).map(labelOf).toSorted(), wanted(wishes, path));
      await Promise.all(watchers.map((watcher) => watcher.isTrue()));
      const missing = watchers.flatMap((watcher) => watcher.missing());
      // What went with its session was really gone for a moment.
      if (endings() === knownEndings) assert.deepEqual(missing, []);
      knownEndings = endings();
      churn.resume();
    },
    feltIt() {
      const losses = count('lost the connection');
      assert.ok(losses > felt, 'nobody has noticed anything');
      felt = losses;
    },
    sessionsLiveOn() {
      assert.equal(endings(), 0);
      for (const { said } of logs)
        assert.equal(new Set(said('connected to ZooKeeper').map(({ facts }) => facts['session'])).size, 1);
    },
    async close() {
      await churn.stop();
      await Promise.all(watchers.map(({ follower }) => follower.stop()));
      await Promise.all(registries.map((registry) => registry.close()));
    },
  };
}

function makeWishes(registry: Registry, prefix: string): Wish[] {
  const manners = PATHS.flatMap((path) => MANNERS.map((manner) => ({ path, manner })));
  return [...manners, { path: PATHS[0], manner: 'pulse' as const }].map(({ path, manner }, index) => {
    const name = `${prefix}-${index}`;
    const announcer = registry.announce(path, instanceOf(name));
    const wish: Wish = { path, name, manner, announcer, weight: 0, isWanted: false };
    express(wish, 0);
    return wish;
  });
}

/** Says what is wanted from now on; without a weight the instance shall go. */
function express(wish: Wish, weight: number | undefined): void {
  wish.isWanted = weight !== undefined;
  wish.weight = weight ?? wish.weight;
  wish.announcer.set(weight === undefined ? undefined : instanceOf(wish.name, weight));
}

async function agreed(wishes: readonly Wish[]): Promise<void> {
  await Promise.all(wishes.map(({ announcer }) => announcer.agreed(limit(RECOVERY_MS))));
}

function wanted(wishes: readonly Wish[], path: string): string[] {
  return wishes
    .filter((wish) => wish.path === path && wish.isWanted)
    .map(({ name, weight }) => `${name}:${weight}`)
    .toSorted();
}

/** Changes its mind about something some twenty times a second. */
function startChurn(wishes: readonly Wish[], random: Random) {
  const restless = wishes.filter(({ manner }) => manner === 'changing' || manner === 'fickle');
  const controller = new AbortController();
  let isPaused = false;
  const done = (async () => {
    while (!controller.signal.aborted) {
      await sleep(50);
      const wish = random.pick(restless);
      const isGoing = wish.manner === 'fickle' && wish.isWanted;
      if (!isPaused) express(wish, isGoing ? undefined : wish.weight + 1);
    }
  })();
  return {
    pause: () => void (isPaused = true),
    resume: () => void (isPaused = false),
    stop: () => {
      controller.abort();
      return done;
    },
  };
}

interface Watcher {
  readonly follower: Follower;
  isTrue(): Promise<void>;
  /** What was not in every snapshot since the last look, though it has been there all the time. */
  missing(): string[];
}

function watch(registry: Registry, path: string, wishes: readonly Wish[]): Watcher {
  const follower = follow(registry, path);
  const lasting = wishes.filter((wish) => wish.path === path && wish.manner !== 'fickle');
  let looked = 0;
  return {
    follower,
    isTrue: () =>
      eventually(() => assert.deepEqual(label(follower.latest), wanted(wishes, path)), {
        withinMs: RECOVERY_MS,
      }),
    missing() {
      const shown = follower.snapshots.slice(looked).map(({ instances }) => new Set(instances.map(nameOf)));
      looked = follower.snapshots.length;
      return lasting.map(nameOf).filter((name) => shown.some((names) => !names.has(name)));
    },
  };
}

function nameOf({ name }: { name: string }): string {
  return name;
}
