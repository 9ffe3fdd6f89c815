// Random histories on a real HAProxy. Of membership: whatever was there, the steps of a plan lead to what is desired. Of
// a whole fleet, with everything that somebody else may do to HAProxy and its file: in the end all is as it shall be.
// TANDEM_FUZZ_RUNS makes them longer, TANDEM_FUZZ_SECONDS ends them in time, TANDEM_FUZZ_SEED gives them another start.
import assert from 'node:assert/strict';
import { constants, open, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { createLatest, type Instance, type InstanceId, instanceId } from '@tandem/core';
import {
  buildStructure,
  createDesiredBuilder,
  type DiscoveredService,
  readMasterPid,
  readRunning,
  renderConfig,
} from '@tandem/discovery';
import {
  buildMembership,
  createApplier,
  createForeignHoldsStore,
  createHaproxyProcess,
  createStructureStore,
  type Desired,
  executeSteps,
  type HoldKind,
  keepApplied,
  type Membership,
  type Offers,
  type Plan,
  planChanges,
  type ReportedServer,
  type Running,
} from '@tandem/discovery/testing';
import * as fc from 'fast-check';

import { createHaproxyWorld, eventually, freePort, type HaproxyWorld, service } from '../support/haproxy.ts';

const numRuns = Number(process.env['TANDEM_FUZZ_RUNS'] ?? 60);
/** A HAProxy of its own for each: twelve of them take about 20 s. */
const fleetRuns = Number(process.env['TANDEM_FUZZ_RUNS'] ?? 12);
const seconds = process.env['TANDEM_FUZZ_SECONDS'];
const seed = Number(process.env['TANDEM_FUZZ_SEED'] ?? 1);

const BACKENDS = ['one', 'two', 'three'] as const;
/** Left to its own devices: in the structure, and never in a membership. */
const UNKNOWN = 'unknown';

const instance: fc.Arbitrary<Instance> = fc.record({
  name: fc.constantFrom('', 'a', 'b'),
  host: fc.constantFrom('127.0.0.1', '127.0.0.2', '::1', '0:0::1', '::ffff:127.0.0.1'),
  port: fc.integer({ min: 1, max: 4 }).map((offset) => 9_000 + offset),
  weight: fc.constantFrom(0, 1, 7, 256, 1_000),
});
const membership: fc.Arbitrary<Membership> = fc
  .record({
    one: fc.array(instance, { maxLength: 12 }),
    two: fc.array(instance, { maxLength: 3 }),
    three: fc.array(instance, { maxLength: 1 }),
  })
  .map((backends) => {
    const entries = Object.entries(backends).map(
      ([name, instances]) =>
        [name, { service: service(name, '127.0.0.1:1'), instances, holds: new Map() }] as const,
    );
    return buildMembership(new Map(entries)).membership;
  });
/** What an operator may do by hand between two changes. */
const meddling = fc.constantFrom('nothing', 'rogue', 'maint', 'weight');

function inRotation(servers: readonly ReportedServer[] | undefined): string[] {
  return (servers ?? [])
    .filter(({ state }) => state === 'ready')
    .map(describeServer)
    .toSorted();
}

function takesTraffic(servers: readonly ReportedServer[] | undefined): boolean {
  return (servers ?? []).some(({ state, weight }) => state === 'ready' && weight > 0);
}

function describeServer({
  name,
  address,
  port,
  weight,
}: Pick<ReportedServer, 'name' | 'address' | 'port' | 'weight'>): string {
  return `${name} ${address} ${port} ${weight}`;
}

describe('random histories', () => {
  let world: HaproxyWorld;
  let structure: ReturnType<typeof buildStructure>;
  let mark: string;
  const signal = new AbortController().signal;

  before(async () => {
    world = await createHaproxyWorld();
    const names = [...BACKENDS, UNKNOWN];
    const ports = await Promise.all(names.map(() => freePort()));
    const services = names.map((name, index) =>
      service(name, `127.0.0.1:${ports[index]}`, { balance: 'leastconn' }),
    );
    structure = buildStructure(world.config, services);
    const rendered = renderConfig(structure, new Map());
    mark = rendered.mark;
    await writeFile(world.config.configFile, rendered.text);
    await createHaproxyProcess(world.config, { log: world.log, onExit: () => {} }).ensure(signal);
    await eventually(() => readRunning(world.config.runtimeSocket));
    await world.operate(
      `add server ${UNKNOWN}/theirs 127.0.0.1:1`,
      `set server ${UNKNOWN}/theirs state ready`,
    );
  });

  after(async () => {
    await world?.end();
  });

  async function meddle(how: string, serial: number): Promise<void> {
    const { backends } = await readRunning(world.config.runtimeSocket);
    const victim = backends.get('one')?.[0]?.name;
    if (how === 'rogue')
      await world.operate(
        `add server one/rogue${serial} 127.0.0.1:2`,
        `set server one/rogue${serial} state ready`,
      );
    else if (how === 'maint' && victim !== undefined)
      await world.operate(`set server one/${victim} state maint`);
    else if (how === 'weight' && victim !== undefined)
      await world.operate(`set server one/${victim} weight 99`);
  }

  /** Takes the steps in their order, and looks at HAProxy after each: a backend that serves goes on serving. */
  async function executeOneByOne(plan: Plan, running: Running, wanted: Membership): Promise<void> {
    const socket = world.config.runtimeSocket;
    let before = running.backends;
    for (const step of plan.steps) {
      assert.deepEqual(await executeSteps(socket, [step], running), { kind: 'done', untaken: [] });
      const { backends } = await readRunning(socket);
      const { backend } = step;
      if (takesTraffic(before.get(backend)) && takesTraffic(wanted.get(backend)))
        assert.ok(takesTraffic(backends.get(backend)), `${backend} is empty after a step: ${step.kind}`);
      before = backends;
    }
  }

  test(
    'every plan leads to the desired state, no step empties a backend, and then there is nothing left to do',
    { timeout: 600_000 },
    async () => {
      const worker = await world.workerPid();
      let serial = 0;
      const history = fc.array(fc.tuple(membership, meddling), { minLength: 1, maxLength: 6 });
      const property = fc.asyncProperty(history, async (changes) => {
        for (const [wanted, how] of changes) {
          // Few names, so that there are never more tombstones than are kept.
          serial = (serial + 1) % 20;
          await meddle(how, serial);
          const desired = { mark, structure, membership: wanted };
          const running = await readRunning(world.config.runtimeSocket);
          const plan = planChanges(running, desired);
          assert.equal(plan.reload, undefined);
          // By turns as in life, and so that every moment in between can be seen.
          if (serial % 2 === 0) await executeOneByOne(plan, running, wanted);
          else
            assert.deepEqual(await executeSteps(world.config.runtimeSocket, plan.steps, running), {
              kind: 'done',
              untaken: [],
            });
          const result = await readRunning(world.config.runtimeSocket);
          for (const backend of BACKENDS) {
            const expected = (wanted.get(backend) ?? []).map(describeServer).toSorted();
            assert.deepEqual(inRotation(result.backends.get(backend)), expected);
          }
          assert.deepEqual(inRotation(result.backends.get(UNKNOWN)), ['theirs 127.0.0.1 1 1']);
          assert.deepEqual(planChanges(result, desired).steps, []);
        }
      });
      await fc.assert(property, { numRuns, seed });
      assert.equal(await world.workerPid(), worker);
    },
  );
});

/** What the fleet is to be, and how often a worker was killed: a HAProxy that dies often is started ever more slowly. */
interface FleetModel {
  readonly members: Map<string, Map<string, Member>>;
  kills: number;
}

interface Member {
  readonly weight: number;
  readonly options: string;
  readonly hold: HoldKind | undefined;
}

/** A daemon's last part, which the test tells what there is, and a HAProxy of its own. */
interface Fleet {
  readonly world: HaproxyWorld;
  offer(model: FleetModel): void;
  wanted(): Desired | undefined;
  serial: number;
}

type FleetCommand = fc.AsyncCommand<FleetModel, Fleet>;

const portOf = (name: string) => 9_000 + name.charCodeAt(0);

function recordsOf(members: ReadonlyMap<string, Member>): readonly Instance[] {
  return [...members].map(([name, { weight, options }]) => ({
    name,
    host: '127.0.0.1',
    port: portOf(name),
    weight,
    haproxyServerOptions: options,
  }));
}

function change(what: string, apply: (model: FleetModel) => void): FleetCommand {
  return {
    check: () => true,
    run(model, fleet) {
      apply(model);
      fleet.offer(model);
      return Promise.resolve();
    },
    toString: () => what,
  };
}

/** Something that somebody else does. HAProxy may be just away: then it has not happened. */
function meddle(what: string, run: (fleet: Fleet, model: FleetModel) => Promise<unknown>): FleetCommand {
  return {
    check: (model) => what !== 'kill' || model.kills < 1,
    async run(model, fleet) {
      if (what === 'kill') model.kills += 1;
      await run(fleet, model).catch(() => {});
    },
    toString: () => what,
  };
}

/** Only what is there can be edited. */
async function editByHand(file: string): Promise<void> {
  const handle = await open(file, constants.O_APPEND | constants.O_WRONLY);
  try {
    await handle.writeFile('# by hand\n');
  } finally {
    await handle.close();
  }
}

const backend = fc.constantFrom(...BACKENDS);
const name = fc.constantFrom('a', 'b', 'c', 'd');
const member: fc.Arbitrary<Member> = fc.record({
  weight: fc.constantFrom(0, 1, 7, 256),
  options: fc.constantFrom('', '', 'backup', 'check inter 5s', 'maxconn 9 send-proxy'),
  hold: fc.constantFrom<(HoldKind | undefined)[]>(undefined, undefined, undefined, 'drain', 'maint'),
});

function offersOf({ members }: FleetModel, services: ReadonlyMap<string, DiscoveredService>): Offers {
  return new Map(
    [...services].map(([name, service]) => {
      const records = recordsOf(members.get(name) ?? new Map());
      const holds = new Map<InstanceId, HoldKind>();
      for (const record of records) {
        const hold = members.get(name)?.get(record.name)?.hold;
        if (hold !== undefined) holds.set(instanceId(record), hold);
      }
      return [name, { service, instances: records, holds }];
    }),
  );
}

async function createFleet(): Promise<Fleet & { end(): Promise<void> }> {
  const world = await createHaproxyWorld({
    extra_sections: { 'backend theirs': ['server mine 127.0.0.1:1 id 77 weight 5'] },
  });
  const services = new Map<string, DiscoveredService>();
  for (const name of BACKENDS)
    services.set(name, service(name, `127.0.0.1:${await freePort()}`, { balance: 'leastconn' }));
  const controller = new AbortController();
  const bell = createLatest<true>(controller.signal);
  const build = createDesiredBuilder(world.config);
  const { config, log } = world;
  const haproxy = createHaproxyProcess(config, { log, onExit: () => bell.set(true) });
  const store = createStructureStore(path.join(world.stateDir, 'structure.json'), log);
  const foreignHolds = createForeignHoldsStore(path.join(world.stateDir, 'foreign-holds.json'), log);
  let desired: ReturnType<typeof build>['desired'] | undefined;
  const ended = keepApplied({
    applier: createApplier({ config, process: haproxy, store, foreignHolds, log }),
    desired: () => desired,
    changes: bell,
    look: () => bell.set(true),
    log,
    signal: controller.signal,
  });
  return {
    world,
    serial: 0,
    offer(model) {
      ({ desired } = build(offersOf(model, services)));
      bell.set(true);
    },
    wanted: () => desired,
    async end() {
      controller.abort(new Error('the end'));
      await ended;
      await world.end();
    },
  };
}

/** That file and HAProxy are what they shall be, to the byte and to the server. */
async function assertFleet(fleet: Fleet): Promise<void> {
  const { world } = fleet;
  const desired = fleet.wanted();
  assert.ok(desired);
  const { structure, membership } = desired;
  assert.equal(await readFile(world.config.configFile, 'utf8'), renderConfig(structure, membership).text);
  const { backends } = await readRunning(world.config.runtimeSocket);
  for (const backend of BACKENDS) {
    const servers = membership.get(backend) ?? [];
    const names = new Set<string>(servers.map(({ name }) => name));
    const found = backends.get(backend) ?? [];
    // A drain that is over is as good as maintenance, which is how HAProxy starts who is held.
    const stated = (server: ReportedServer) =>
      `${describeServer(server)} ${server.state === 'drain' ? 'maint' : server.state}`;
    assert.deepEqual(
      found
        .filter(({ name }) => names.has(name))
        .map(stated)
        .toSorted(),
      servers.map(stated).toSorted(),
    );
    assert.deepEqual(inRotation(found.filter(({ name }) => !names.has(name))), []);
  }
}

/** That it stays so, and that what somebody does in a section of his own is left alone. */
async function assertLasting(fleet: Fleet): Promise<void> {
  const { world } = fleet;
  await assertFleet(fleet);
  await world.operate('add server theirs/x 127.0.0.1:1', 'set server theirs/mine weight 9');
  for (let count = 0; count < 8; count += 1) {
    await assertFleet(fleet);
    await sleep(100);
  }
  const { backends } = await readRunning(world.config.runtimeSocket);
  assert.deepEqual(
    backends.get('theirs')?.map(({ name, weight, state }) => [name, weight, state]),
    [
      ['mine', 9, 'ready'],
      ['x', 1, 'maint'],
    ],
  );
}

async function someServer(fleet: Fleet, backend: string): Promise<string> {
  const { backends } = await readRunning(fleet.world.config.runtimeSocket);
  const servers = backends.get(backend) ?? [];
  fleet.serial += 1;
  return `${backend}/${servers[fleet.serial % Math.max(1, servers.length)]?.name ?? 'nobody'}`;
}

const COMMANDS: fc.Arbitrary<FleetCommand>[] = [
  ...Array.from({ length: 3 }, () =>
    fc
      .tuple(backend, name, member)
      .map(([backend, name, member]) =>
        change(
          `set ${backend}/${name} ${JSON.stringify(member)}`,
          ({ members }) => void members.get(backend)?.set(name, member),
        ),
      ),
  ),
  fc
    .tuple(backend, name)
    .map(([backend, name]) =>
      change(`remove ${backend}/${name}`, ({ members }) => void members.get(backend)?.delete(name)),
    ),
  backend.map((backend) =>
    meddle(`rogue in ${backend}`, async (fleet) => {
      fleet.serial += 1;
      const server = `${backend}/rogue${fleet.serial % 20}`;
      await fleet.world.operate(`add server ${server} 127.0.0.1:2`, `set server ${server} state ready`);
    }),
  ),
  fc
    .tuple(backend, fc.constantFrom('state maint', 'state drain', 'state ready', 'weight 99'))
    .map(([backend, how]) =>
      meddle(`${how} in ${backend}`, async (fleet) =>
        fleet.world.operate(`set server ${await someServer(fleet, backend)} ${how}`),
      ),
    ),
  backend.map((backend) =>
    meddle(`delete in ${backend}`, async (fleet) => {
      const server = await someServer(fleet, backend);
      await fleet.world.operate(`set server ${server} state maint`, `del server ${server}`);
    }),
  ),
  fc.constant(
    meddle('foreign reload', async ({ world }) =>
      process.kill(await readMasterPid(world.config.masterSocket), 'SIGUSR2'),
    ),
  ),
  fc.constant(meddle('kill', async ({ world }) => process.kill(await world.workerPid(), 'SIGKILL'))),
  fc.constant(meddle('file deleted', ({ world }) => rm(world.config.configFile))),
  fc.constant(meddle('file edited', ({ world }) => editByHand(world.config.configFile))),
  fc.nat({ max: 400 }).map((ms) => meddle(`wait ${ms}`, () => sleep(ms))),
];
const history = fc.commands(COMMANDS, { maxCommands: 12 });

describe('random histories of a whole fleet', () => {
  test(
    'whatever happens, HAProxy and its file are in the end what they shall be, and the rest is untouched',
    { timeout: 3_600_000 },
    async () => {
      const property = fc.asyncProperty(history, async (commands) => {
        const fleet = await createFleet();
        const model: FleetModel = {
          members: new Map(BACKENDS.map((backend) => [backend, new Map()])),
          kills: 0,
        };
        try {
          fleet.offer(model);
          await eventually(() => readRunning(fleet.world.config.runtimeSocket));
          await fc.asyncModelRun(() => ({ model, real: fleet }), commands);
          // A reload by somebody else may still be under way: a worker has to keep all this for a while.
          await eventually(() => assertLasting(fleet), 30_000);
        } catch (error) {
          process.stderr.write(`${fleet.world.entries.map((entry) => JSON.stringify(entry)).join('\n')}\n`);
          throw error;
        } finally {
          await fleet.end();
        }
      });
      await fc.assert(property, {
        seed,
        numRuns: fleetRuns,
        ...(seconds === undefined ? {} : { interruptAfterTimeLimit: Number(seconds) * 1_000 }),
      });
    },
  );
});
