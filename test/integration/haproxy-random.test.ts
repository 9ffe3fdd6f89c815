// Random histories of membership on one real HAProxy: whatever was there, the steps of a plan lead to what is desired.
// TANDEM_FUZZ_RUNS makes it longer, TANDEM_FUZZ_SEED gives it another start.
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';

import type { Instance } from '@tandem/core';
import { buildStructure, readRunning, renderConfig } from '@tandem/discovery';
import {
  buildMembership,
  createHaproxyProcess,
  executeSteps,
  type Membership,
  planChanges,
  type ReportedServer,
} from '@tandem/discovery/testing';
import * as fc from 'fast-check';

import { createHaproxyWorld, eventually, freePort, type HaproxyWorld, service } from '../support/haproxy.ts';

const numRuns = Number(process.env['TANDEM_FUZZ_RUNS'] ?? 60);
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

  test(
    'every plan leads to the desired state, and then there is nothing left to do',
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
