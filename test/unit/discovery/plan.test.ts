import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import {
  type Membership,
  planChanges,
  type ReportedServer,
  type Server,
  type Step,
  type Structure,
} from '@tandem/discovery/testing';
import * as fc from 'fast-check';

import { service } from '../../support/haproxy.ts';
import { serversOf, structureOf } from './support.ts';

type Backends = ReadonlyMap<string, ReadonlyMap<string, ReportedServer>>;

const MARK = 'tandem 0';
const IN_STRUCTURE = ['one', 'two', 'three'] as const;
const structure: Structure = structureOf(IN_STRUCTURE.map((name) => service(name, '127.0.0.1:1')));

const NAMES = ['a', 'b', 'c', 'd', 'e'];
const servers: fc.Arbitrary<readonly Server[]> = fc
  .subarray(NAMES)
  .chain((names) =>
    fc.tuple(
      ...names.map((name) =>
        fc.integer({ min: 0, max: 3 }).map((weight) => ({ name, host: '10.0.0.1', port: 1, weight })),
      ),
    ),
  )
  .map((instances) => serversOf(instances));
const membership: fc.Arbitrary<Membership> = fc
  .record({ one: servers, two: servers }, { requiredKeys: [] })
  .map((backends) => new Map(Object.entries(backends)));

const reported: fc.Arbitrary<ReadonlyMap<string, ReportedServer>> = fc
  .tuple(servers, fc.array(fc.boolean(), { minLength: NAMES.length, maxLength: NAMES.length }), fc.boolean())
  .map(([present, ready, hasRogue]) => {
    const all = present.map((server, index): ReportedServer => ({
      ...server,
      inRotation: ready[index] === true,
    }));
    const rogue = { name: 'rogue', id: 1, address: '10.9.9.9', port: 9, weight: 1, inRotation: true };
    return new Map([...all, ...(hasRogue ? [rogue] : [])].map((server) => [server.name, server]));
  });
const backends: fc.Arbitrary<Backends> = fc
  .record({ one: reported, two: reported, three: reported, foreign: reported }, { requiredKeys: [] })
  .map((named) => new Map(Object.entries(named)));

/** What HAProxy does with a step. */
function execute(running: Backends, step: Step): Backends {
  const present = new Map(running.get(step.backend));
  if (step.kind === 'add') {
    assert.ok(!present.has(step.server.name), 'HAProxy refuses to add a server twice');
    present.set(step.server.name, { ...step.server, inRotation: true });
  } else {
    const server = present.get(step.server);
    assert.ok(server, 'HAProxy knows no such server');
    if (step.kind === 'weight') present.set(step.server, { ...server, weight: step.weight });
    else present.set(step.server, { ...server, inRotation: step.kind === 'ready' });
  }
  return new Map(running).set(step.backend, present);
}

function stepsOf(running: Backends, desired: Membership): readonly Step[] {
  const plan = planChanges({ mark: MARK, backends: running }, { mark: MARK, structure, membership: desired });
  assert.ok(plan.kind === 'update', 'membership alone needs no reload');
  return plan.steps;
}

function inRotation(running: Backends, backend: string): string[] {
  return [...(running.get(backend)?.values() ?? [])]
    .filter((server) => server.inRotation)
    .map(({ name, address, port, weight }) => `${name} ${address} ${port} ${weight}`)
    .toSorted();
}

describe('a plan', () => {
  test('applied, yields the desired state, and another one has no step', () => {
    fc.assert(
      fc.property(backends, membership, (running, desired) => {
        const result = stepsOf(running, desired).reduce(execute, running);
        for (const [backend, wanted] of desired) {
          const expected = wanted.map(
            ({ name, address, port, weight }) => `${name} ${address} ${port} ${weight}`,
          );
          assert.deepEqual(inRotation(result, backend), expected.toSorted());
        }
        assert.deepEqual(stepsOf(result, desired), []);
      }),
    );
  });

  test('drains last, and touches only backends that are in the structure and of which something is known', () => {
    fc.assert(
      fc.property(backends, membership, (running, desired) => {
        const withForeign = new Map(desired).set(
          'foreign',
          serversOf([{ name: 'x', host: '10.0.0.1', port: 1 }]),
        );
        const steps = stepsOf(running, withForeign);
        const firstDrain = steps.findIndex(({ kind }) => kind === 'drain');
        if (firstDrain >= 0) assert.ok(steps.slice(firstDrain).every(({ kind }) => kind === 'drain'));
        for (const { backend } of steps) assert.ok(backend !== 'foreign' && desired.has(backend), backend);
      }),
    );
  });

  test('never lets a backend that serves and shall serve pass through empty', () => {
    fc.assert(
      fc.property(backends, membership, (running, desired) => {
        let now = running;
        for (const step of stepsOf(running, desired)) {
          const before = inRotation(now, step.backend).length;
          now = execute(now, step);
          if (before > 0 && (desired.get(step.backend)?.length ?? 0) > 0)
            assert.ok(inRotation(now, step.backend).length > 0);
        }
      }),
    );
  });

  test('gives a server that comes back its weight before its traffic', () => {
    const [wanted] = serversOf([{ name: 'a', host: '10.0.0.1', port: 1, weight: 5 }]);
    assert.ok(wanted);
    const drained: ReportedServer = { ...wanted, weight: 200, inRotation: false };
    assert.deepEqual(
      stepsOf(
        new Map([['one', new Map([[wanted.name as string, drained]])]]),
        new Map([['one', [wanted]]]),
      ).map(({ kind }) => kind),
      ['weight', 'ready'],
    );
  });

  test('adds a server with the options of its backend', () => {
    const checked = structureOf([service('web', '127.0.0.1:1', { server_options: 'check inter 1s' })]);
    const [server] = serversOf([{ name: 'a', host: '10.0.0.1', port: 1 }]);
    assert.ok(server);
    assert.deepEqual(
      planChanges(
        { mark: MARK, backends: new Map() },
        { mark: MARK, structure: checked, membership: new Map([['web', [server]]]) },
      ),
      { kind: 'update', steps: [{ kind: 'add', backend: 'web', server, serverOptions: 'check inter 1s' }] },
    );
  });
});

describe('a reload', () => {
  const [server] = serversOf([{ name: 'a', host: '10.0.0.1', port: 1 }]) as [Server];
  const desired = { mark: MARK, structure, membership: new Map([['one', [server]]]) };
  const reasonOf = (running: Parameters<typeof planChanges>[0]) => {
    const plan = planChanges(running, desired);
    assert.ok(plan.kind === 'reload');
    return plan.reason;
  };

  test('is for a structure that HAProxy has not loaded', () => {
    assert.deepEqual(reasonOf({ mark: 'tandem 1', backends: new Map() }), {
      kind: 'structure-changed',
      running: 'tandem 1',
      wanted: MARK,
    });
  });

  test('is for a server that kept its name and not its address', () => {
    for (const moved of [{ address: '10.0.0.2' }, { port: 2 }]) {
      const found = { ...server, inRotation: true, ...moved };
      const running = { mark: MARK, backends: new Map([['one', new Map([[server.name as string, found]])]]) };
      assert.deepEqual(reasonOf(running), { kind: 'server-moved', backend: 'one', server: server.name });
    }
  });

  test('is for more tombstones than memory is worth', () => {
    const tombstones = (count: number) =>
      new Map([
        [
          'one',
          new Map(
            Array.from({ length: count }, (_, index) => [
              `gone${index}`,
              { ...server, name: `gone${index}`, inRotation: false },
            ]),
          ),
        ],
      ]);
    assert.equal(planChanges({ mark: MARK, backends: tombstones(200) }, desired).kind, 'update');
    assert.deepEqual(reasonOf({ mark: MARK, backends: tombstones(201) }), {
      kind: 'too-many-tombstones',
      backend: 'one',
      count: 201,
    });
  });
});
