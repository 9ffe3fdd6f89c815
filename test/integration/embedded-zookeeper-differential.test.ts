// The same operations against the embedded server and a real ZooKeeper: same results, codes, stats and events.
// TANDEM_FUZZ_OPS makes the random runs longer, TANDEM_FUZZ_SEED gives them another start.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { startEmbeddedZooKeeper, type EmbeddedZooKeeper } from '@tandem/embedded-zookeeper';
import { createRandom, type Random } from '../support/random.ts';
import { startRealZooKeeper, type RealZooKeeper } from '../support/real-zookeeper.ts';
import {
  askWord,
  connectWire,
  FLAGS,
  OPEN_ACL,
  WireWriter,
  zk,
  type MultiStep,
  type WireClient,
  type WireResult,
  type WireStat,
} from '../support/zookeeper-wire.ts';

const OPERATIONS = Number(process.env['TANDEM_FUZZ_OPS'] ?? 2000);
const FIRST_SEED = Number(process.env['TANDEM_FUZZ_SEED'] ?? 1);
const TICK_MS = 500;
/** Long enough for any machine; a reply or a hang-up that never comes must not stop the whole test run. */
const timeout = Math.max(60_000, OPERATIONS * 30);
const SESSION_TIMEOUT_MS = 20 * TICK_MS;

let real: RealZooKeeper;
let embedded: EmbeddedZooKeeper;

before(async () => {
  real = await startRealZooKeeper({ tickTimeMs: TICK_MS });
  embedded = await startEmbeddedZooKeeper({ tickTimeMs: TICK_MS });
});

after(async () => {
  await Promise.all([real?.stop(), embedded?.close()]);
});

/** One server's half of a run: two clients, and what is needed to make the two servers' answers comparable. */
interface Half {
  readonly port: number;
  readonly clients: WireClient[];
  /** Sessions in the order of their making: ids differ between servers, this order does not. */
  readonly sessionIds: bigint[];
  /** For each client, the zxid of an earlier moment that is the same moment in both halves. */
  readonly marks: bigint[];
}

async function openSession(half: Half, slot: number): Promise<void> {
  const client = await connectWire(half.port, { timeoutMs: SESSION_TIMEOUT_MS });
  half.sessionIds.push(client.sessionId);
  half.clients[slot] = client;
  half.marks[slot] = 0n;
}

async function createHalf(port: number, root: string): Promise<Half> {
  const half: Half = { port, clients: [], sessionIds: [], marks: [] };
  for (const slot of [0, 1]) await openSession(half, slot);
  assert.equal((await zk.create(clientOf(half, 0), { path: root })).code, 0);
  return half;
}

function clientOf(half: Half, slot: number): WireClient {
  const client = half.clients[slot];
  assert.ok(client);
  return client;
}

function comparableStat(stat: WireStat, half: Half) {
  const { version, cversion, aversion, dataLength, numChildren, czxid, mzxid, pzxid } = stat;
  const owner = stat.ephemeralOwner === 0n ? 'nobody' : half.sessionIds.indexOf(stat.ephemeralOwner);
  const order = [mzxid > czxid, pzxid > czxid, pzxid > mzxid];
  return { version, cversion, aversion, dataLength, numChildren, owner, order };
}

/** Without times, zxids, session ids and the order of children, which the protocol leaves open. */
function comparable(result: WireResult, half: Half): unknown {
  return {
    ...result,
    ...(result.stat && { stat: comparableStat(result.stat, half) }),
    ...(result.children && { children: result.children.map(String).toSorted() }),
    ...(result.results && { results: result.results.map((part) => comparable(part, half)) }),
  };
}

/** One operation with all its arguments chosen, to be run in both halves. */
interface Action {
  readonly name: string;
  run(half: Half, slot: number): Promise<unknown>;
  /** The server may tell several events of this action in any order. */
  readonly isUnordered?: boolean;
}

const NAMES = ['/a', '/b', '/c', '/a/x', '/a/y', '/a/x/1', '/a/x/1/deep', '/b/z', '/c/d', ''];

type WatchStyle = 'one-shot' | 'persistent';

function asking(name: string, ask: (client: WireClient) => Promise<WireResult>): Action {
  return { name, run: async (half, slot) => comparable(await ask(clientOf(half, slot)), half) };
}

function chooseStep(random: Random, root: string): MultiStep {
  const path = root + random.pick(NAMES);
  const version = random.chance(0.8) ? -1 : random.below(3);
  const data = `m${random.below(100)}`;
  switch (random.below(6)) {
    case 0:
      return { op: 'create', path, data, flags: random.below(4) };
    case 1:
      return { op: 'create2', path: `${path}/m-`, data, flags: FLAGS.sequential };
    case 2:
      return { op: 'delete', path, version };
    case 3:
      return { op: 'check', path, version };
    case 4:
      return { op: 'createContainer', path: `${path}/k`, flags: FLAGS.container };
    default:
      return { op: 'setData', path, data, version };
  }
}

/** Steps that fit together, so that enough multis succeed as a whole. */
function goodSteps(path: string, data: string): MultiStep[] {
  return [
    { op: 'create', path: `${path}/g`, data },
    { op: 'setData', path: `${path}/g`, data: 'second', version: 0 },
    { op: 'create', path: `${path}/g/s-`, flags: FLAGS.ephemeralSequential },
    { op: 'check', path: `${path}/g`, version: 1 },
  ];
}

function chooseCreate(random: Random, path: string, data: string): Action {
  const flags = random.pick([0, 0, 0, 1, 1, 2, 3, 4]);
  const sequential = flags === FLAGS.sequential || flags === FLAGS.ephemeralSequential;
  const wanted = { path: sequential ? `${path}/s-` : path, data: random.chance(0.05) ? null : data, flags };
  const kind = random.pick(['create', 'create2', 'createContainer'] as const);
  const name = `${kind} ${wanted.path} ${flags}`;
  if (kind === 'create') return asking(name, (client) => zk.create(client, wanted));
  return asking(name, (client) => zk.create2(client, wanted, kind));
}

function chooseWrite(random: Random, root: string): Action {
  const path = root + random.pick(NAMES);
  const version = random.chance(0.6) ? -1 : random.below(4);
  const data = `d${random.below(1000)}`;
  switch (random.below(9)) {
    case 0:
    case 1:
    case 2:
    case 3:
      return chooseCreate(random, path, data);
    case 4:
    case 5:
      return asking(`delete ${path} ${version}`, (client) => zk.delete(client, path, version));
    case 6:
      return asking(`setData ${path} ${version}`, (client) => zk.setData(client, path, data, version));
    case 7: {
      const acl = random.pick([OPEN_ACL, [], [{ permissions: 31, scheme: 'ip', id: '127.0.0.1' }], null]);
      return asking(`setAcl ${path} ${version}`, (client) => zk.setAcl(client, path, acl, version));
    }
    default: {
      const steps = random.chance(0.4)
        ? goodSteps(path, data)
        : Array.from({ length: 1 + random.below(4) }, () => chooseStep(random, root));
      return asking(`multi ${JSON.stringify(steps)}`, (client) => zk.multi(client, steps));
    }
  }
}

function chooseRead(random: Random, root: string, watchStyle: WatchStyle): Action {
  const path = root + random.pick(NAMES);
  const isWatched = watchStyle === 'one-shot' && random.chance(0.6);
  const name = `${path}${isWatched ? ' watched' : ''}`;
  switch (random.below(9)) {
    case 0:
      return asking(`getData ${name}`, (client) => zk.getData(client, path, isWatched));
    case 1:
      return asking(`exists ${name}`, (client) => zk.exists(client, path, isWatched));
    case 2:
      return asking(`getChildren ${name}`, (client) => zk.getChildren(client, path, isWatched));
    case 3:
      return asking(`getChildren2 ${name}`, (client) => zk.getChildren2(client, path, isWatched));
    case 4:
      return asking(`getAcl ${path}`, (client) => zk.getAcl(client, path));
    case 5:
      return asking(`sync ${path}`, (client) => zk.sync(client, path));
    case 6:
      return asking(`getEphemerals ${path}`, (client) => zk.getEphemerals(client, path));
    case 7:
      return asking(`getAllChildrenNumber ${path}`, (client) => zk.getAllChildrenNumber(client, path));
    default: {
      const reads = Array.from({ length: random.below(4) }, () => ({
        type: random.pick([4, 8]),
        path: root + random.pick(NAMES),
      }));
      return asking(`multiRead ${JSON.stringify(reads)}`, (client) => zk.multiRead(client, reads));
    }
  }
}

/**
 * ZooKeeper 3.6 to 3.8 keep one watch mode per connection and path (ZOOKEEPER-4466; 3.9 and this server do not).
 * So a run has either one-shot or persistent watches, and a path always the same persistent mode.
 */
function chooseWatch(random: Random, root: string, watchStyle: WatchStyle): Action {
  const pickPath = () => random.pick(NAMES);
  if (watchStyle === 'one-shot') {
    if (random.chance(0.3)) {
      const [path, type] = [root + pickPath(), 1 + random.below(3)];
      return asking(`removeWatches ${path} ${type}`, (client) => zk.removeWatches(client, path, type));
    }
    const lists = [0, 1, 2].map(() => Array.from({ length: random.below(3) }, () => root + pickPath()));
    return {
      name: `setWatches ${JSON.stringify(lists)}`,
      run: async (half, slot) => zk.setWatches(clientOf(half, slot), half.marks[slot] ?? 0n, lists),
    };
  }
  const modeOf = (name: string) => NAMES.indexOf(name) % 2;
  const name = pickPath();
  if (random.chance(0.3)) {
    return asking(`removeWatches ${name}`, (client) => zk.removeWatches(client, root + name, 3));
  }
  if (random.chance(0.3)) {
    const lists = [
      [],
      [],
      [],
      modeOf(name) === 0 ? [root + name] : [],
      modeOf(name) === 1 ? [root + name] : [],
    ];
    return asking(`setWatches2 ${JSON.stringify(lists)}`, (client) => zk.setWatches(client, 0n, lists));
  }
  return asking(`addWatch ${name} ${modeOf(name)}`, (client) =>
    zk.addWatch(client, root + name, modeOf(name)),
  );
}

const rememberZxid: Action = {
  name: 'remember the zxid',
  async run(half, slot) {
    await clientOf(half, slot).ping();
    half.marks[slot] = clientOf(half, slot).lastZxid;
  },
};

const closeAndOpen: Action = {
  name: 'close the session and open another',
  isUnordered: true,
  async run(half, slot) {
    const client = clientOf(half, slot);
    const { code } = await zk.closeSession(client);
    await client.closed;
    const events = client.events.map(({ type, path }) => `${type} ${path}`).toSorted();
    await openSession(half, slot);
    return { code, events };
  },
};

const resume: Action = {
  name: 'resume the session on a new connection',
  async run(half, slot) {
    const old = clientOf(half, slot);
    const { sessionId, password, lastZxid } = old;
    const next = await connectWire(half.port, {
      sessionId,
      password,
      lastZxidSeen: lastZxid,
      timeoutMs: SESSION_TIMEOUT_MS,
    });
    half.clients[slot] = next;
    await old.closed;
    return { timeoutMs: next.timeoutMs, isSame: next.sessionId === sessionId, events: old.events };
  },
};

function chooseAction(random: Random, root: string, watchStyle: WatchStyle): Action {
  const dice = random.below(1000);
  if (dice < 5) return closeAndOpen;
  if (dice < 10) return resume;
  if (dice < 20) return rememberZxid;
  if (dice < 120) return chooseWatch(random, root, watchStyle);
  return dice < 600 ? chooseWrite(random, root) : chooseRead(random, root, watchStyle);
}

/** The events since the last call, of both clients. A ping each makes sure that all have arrived. */
async function takeEvents(half: Half, isUnordered: boolean): Promise<string[][]> {
  await Promise.all(half.clients.map((client) => client.ping()));
  return half.clients.map((client) => {
    const events = client.events.splice(0).map(({ type, path }) => `${type} ${path}`);
    return isUnordered ? events.toSorted() : events;
  });
}

async function step(half: Half, slot: number, action: Action) {
  const result = await action.run(half, slot);
  return { result, events: await takeEvents(half, action.isUnordered ?? false) };
}

async function runSeed(seed: number, watchStyle: WatchStyle) {
  const random = createRandom(seed);
  const root = `/run-${watchStyle}-${seed}`;
  const realHalf = await createHalf(real.port, root);
  const embeddedHalf = await createHalf(embedded.port, root);
  const seen = { succeeded: 0, events: 0 };
  try {
    for (let index = 0; index < OPERATIONS; index++) {
      const slot = random.below(2);
      const action = chooseAction(random, root, watchStyle);
      const [expected, actual] = await Promise.all([
        step(realHalf, slot, action),
        step(embeddedHalf, slot, action),
      ]);
      assert.deepEqual(actual, expected, `seed ${seed}, operation ${index}, client ${slot}: ${action.name}`);
      seen.events += actual.events.flat().length;
      if ((actual.result as WireResult | undefined)?.code === 0) seen.succeeded++;
    }
  } catch (error) {
    throw new Error(`failed with TANDEM_FUZZ_SEED=${seed} TANDEM_FUZZ_OPS=${OPERATIONS}`, { cause: error });
  } finally {
    for (const client of [...realHalf.clients, ...embeddedHalf.clients]) client.destroy();
  }
  return seen;
}

const RUNS = [
  { seed: FIRST_SEED, watchStyle: 'one-shot' },
  { seed: FIRST_SEED + 1, watchStyle: 'one-shot' },
  { seed: FIRST_SEED + 2, watchStyle: 'persistent' },
] as const;

for (const { seed, watchStyle } of RUNS) {
  test(
    `random operations with ${watchStyle} watches have the same outcome, seed ${seed}`,
    { timeout },
    async (context) => {
      const seen = await runSeed(seed, watchStyle);
      context.diagnostic(`${OPERATIONS} operations, ${seen.succeeded} successful, ${seen.events} events`);
      // A comparison of nothing but refusals would prove little.
      assert.ok(seen.succeeded > OPERATIONS / 4, `only ${seen.succeeded} operations were successful`);
      assert.ok(seen.events > OPERATIONS / 50, `only ${seen.events} events`);
    },
  );
}

/** Runs the same conversation with both servers, each on a session of its own. */
async function assertSame(
  name: string,
  talk: (client: WireClient, port: number) => Promise<unknown>,
): Promise<void> {
  const outcomes = [real, embedded].map(async ({ port }) => {
    const client = await connectWire(port, { timeoutMs: SESSION_TIMEOUT_MS });
    try {
      const outcome = await talk(client, port);
      return { outcome, events: client.events };
    } finally {
      client.destroy();
    }
  });
  const [expected, actual] = await Promise.all(outcomes);
  assert.deepEqual(actual, expected, name);
}

const ODD_PATHS = [
  '',
  'relative',
  '/bad//path',
  '/trailing/',
  '/.',
  '/..',
  '/a..b',
  '/...',
  '/nul\0',
  '/tab\t',
  '/\uE000',
  '/zookeeper',
  null,
];

test('paths that are no paths are refused alike', { timeout }, async () => {
  for (const path of ODD_PATHS) {
    const acts: Readonly<Record<string, (client: WireClient) => Promise<WireResult>>> = {
      exists: (client) => zk.exists(client, path),
      getData: (client) => zk.getData(client, path),
      getChildren2: (client) => zk.getChildren2(client, path),
      getAcl: (client) => zk.getAcl(client, path),
      setData: (client) => zk.setData(client, path, 'x', 77),
      setAcl: (client) => zk.setAcl(client, path, OPEN_ACL, 77),
      createUnder: (client) => zk.create(client, { path: path === null ? null : `${path}/no/parent` }),
      delete: (client) => zk.delete(client, path, 77),
      sync: (client) => zk.sync(client, path),
      multi: (client) =>
        zk.multi(client, [{ op: 'create', path: '/never' }, { op: 'create', path }, ...goodSteps('/', '')]),
    };
    for (const [name, act] of Object.entries(acts)) {
      await assertSame(`${name} ${JSON.stringify(path)}`, async (client) => {
        const { code, results } = await act(client);
        return { code, results: results?.map(({ type, code, path }) => ({ type, code, path })) };
      });
    }
  }
});

const KNOWN_OPCODES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 14, 15, 17, 18, 19, 21, 22, 101, 103, 104, 105, 106];
const BROKEN_BODIES = ['', 'ff', 'ffffff0000aa', 'fffffffefffffffefffffffe', '7fffffff', '000000012f'];

test('bodies that cannot be read are answered alike, and the connection goes on', { timeout }, async () => {
  for (const opcode of KNOWN_OPCODES) {
    for (const body of BROKEN_BODIES) {
      await assertSame(`opcode ${opcode} with body ${body}`, async (client) => {
        const { code } = await client.request(opcode, (writer) => writer.raw(Buffer.from(body, 'hex')));
        return { code, next: (await client.ping()).code };
      });
    }
  }
});

test('unknown operations are answered and then the server hangs up, in both', { timeout }, async () => {
  for (const opcode of [0, 10, 23, 99, 108, 1000]) {
    await assertSame(`opcode ${opcode}`, async (client) => {
      const { code } = await client.request(opcode);
      await client.closed;
      return code;
    });
  }
});

test('frames beyond the limits end the connection in both', { timeout }, async () => {
  const create = new WireWriter().int(7).int(1).text('/too-large').int(2_000_000).bytes();
  for (const size of [1_048_575, 1_048_576]) {
    await assertSame(`a request of ${size} bytes`, (client) => {
      client.sendFrame(Buffer.concat([create, Buffer.alloc(size - create.length)]));
      return client.ping().then(
        ({ code }) => code,
        () => 'hung up',
      );
    });
  }
  for (const header of ['ffffffff', '7fffffff', '00000000', '0000000300000a', '0000000700000000000000']) {
    await assertSame(`bytes ${header}`, async (client) => {
      client.socket.write(Buffer.from(header, 'hex'));
      await client.closed;
    });
  }
});

test('handshakes of every kind have the same outcome', { timeout }, async () => {
  const shape = ({ timeoutMs, hasReadOnlyByte, password, sessionId }: WireClient) => ({
    timeoutMs,
    hasReadOnlyByte,
    passwordLength: password.length,
    isRefused: sessionId === 0n,
  });
  for (const readOnly of [undefined, false, true]) {
    for (const timeoutMs of [-1, 0, 1, 5000, 3_600_000]) {
      await assertSame(`timeout ${timeoutMs}, read-only ${readOnly}`, async (_client, port) => {
        const client = await connectWire(port, { timeoutMs, readOnly });
        client.destroy();
        return shape(client);
      });
    }
    await assertSame(`a session that never was, read-only ${readOnly}`, async (_client, port) => {
      const client = await connectWire(port, { sessionId: 4711n, readOnly });
      await client.closed;
      return shape(client);
    });
  }
  await assertSame('a client from the future', async (_client, port) => {
    await assert.rejects(connectWire(port, { lastZxidSeen: 1n << 50n }), /hung up/);
  });
  for (const word of ['ruok', 'isro']) await assertSame(word, (_client, port) => askWord(port, word));
});

test('auth packets have the same outcome', { timeout }, async () => {
  await assertSame('digest', async (client) => {
    const path = '/digest';
    const acl = [{ permissions: 31, scheme: 'auth', id: '' }];
    const before = (await zk.create(client, { path, acl })).code;
    const proved = await zk.auth(client, 'digest', 'bob:secret');
    const created = (await zk.create(client, { path, acl })).code;
    const stored = (await zk.getAcl(client, path)).acl;
    const names = ((await zk.whoAmI(client)).clients ?? []).map(({ scheme, user }) => `${scheme} ${user}`);
    return { before, proved, created, stored, names: names.toSorted() };
  });
  await assertSame('an unknown scheme', async (client) => {
    const { code } = await zk.auth(client, 'nonsense', 'x');
    await client.closed;
    return code;
  });
});

test(
  'a session that falls silent is expired after its timeout and at most two ticks, in both',
  { timeout },
  async () => {
    const path = '/falls-silent';
    const elapsed = [real, embedded].map(async ({ port }) => {
      const watcher = await connectWire(port, { timeoutMs: SESSION_TIMEOUT_MS });
      const silent = await connectWire(port, { timeoutMs: 2 * TICK_MS });
      assert.equal(silent.timeoutMs, 2 * TICK_MS);
      assert.equal((await zk.create(silent, { path, flags: FLAGS.ephemeral })).code, 0);
      const start = performance.now();
      await zk.exists(watcher, path, true);
      silent.destroy();
      while (watcher.events.length === 0) await sleep(10);
      assert.deepEqual(watcher.events, [{ type: 2, path }]);
      watcher.destroy();
      return performance.now() - start;
    });
    for (const ms of await Promise.all(elapsed)) {
      assert.ok(ms > 2 * TICK_MS - 50 && ms < 4 * TICK_MS + 500, `expired after ${ms} ms`);
    }
  },
);
