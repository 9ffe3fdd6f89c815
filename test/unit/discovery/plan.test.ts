import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import type { InstanceId } from '@tandem/core';
import {
  buildMembership,
  type Circumstances,
  type HoldKind,
  type Membership,
  ORDINARY,
  planChanges,
  type ReportedServer,
  RunningView,
  type Server,
  type Step,
  type Structure,
} from '@tandem/discovery/testing';
import * as fc from 'fast-check';

import { service } from '../../support/haproxy.ts';
import { serversOf, structureOf } from './support.ts';

type Backends = ReadonlyMap<string, readonly ReportedServer[]>;

const MARK = 'tandem 0';
const OPTIONS = ['', 'backup', 'maxconn 3 send-proxy'] as const;
const structure: Structure = structureOf([
  service('one', '127.0.0.1:1'),
  service('two', '127.0.0.1:2', { server_options: 'check', gate: { first_check: '5s' } }),
  service('three', '127.0.0.1:3'),
]);

const ENDPOINT = { host: '10.0.0.1', port: 1 };

/** What HAProxy tells of a server. */
function reportOf({ name, id, address, port, weight, state }: ReportedServer): ReportedServer {
  return { name, id, address, port, weight, state };
}

/** The same name always at the same address: what moves is a reload's matter. */
const instances = fc.uniqueArray(
  fc.record({
    name: fc.constantFrom('a', 'b', 'c', 'd', 'e'),
    weight: fc.integer({ min: 0, max: 3 }),
    haproxyServerOptions: fc.constantFrom(...OPTIONS),
    hold: fc.constantFrom<(HoldKind | undefined)[]>(undefined, undefined, undefined, 'drain', 'maint'),
  }),
  { selector: ({ name }) => name },
);
const servers: fc.Arbitrary<readonly Server[]> = instances.map((chosen) => {
  const records = chosen.map(({ name, weight, haproxyServerOptions }) => ({
    name,
    weight,
    haproxyServerOptions,
    ...ENDPOINT,
  }));
  const holds = new Map(
    chosen.flatMap(({ name, hold }) =>
      hold === undefined ? [] : [[`${name}_10.0.0.1:1` as InstanceId, hold]],
    ),
  );
  const offer = { service: service('web', '127.0.0.1:1'), instances: records, holds };
  return buildMembership(new Map([['web', offer]])).membership.get('web') ?? [];
});
const membership: fc.Arbitrary<Membership> = fc
  .record({ one: servers, two: servers }, { requiredKeys: [] })
  .map((backends) => new Map(Object.entries(backends)));

const states = fc.array(fc.constantFrom('ready', 'ready', 'drain', 'maint'), { minLength: 5, maxLength: 5 });
const ROGUE: ReportedServer = {
  name: 'rogue',
  id: 1,
  address: '10.9.9.9',
  port: 9,
  weight: 1,
  state: 'ready',
};
const reported: fc.Arbitrary<readonly ReportedServer[]> = fc
  .tuple(servers, states, fc.boolean())
  .map(([present, states, hasRogue]) => [
    ...present.map((server, index) => ({ ...reportOf(server), state: states[index] ?? 'ready' })),
    ...(hasRogue ? [ROGUE] : []),
  ]);
const backends: fc.Arbitrary<Backends> = fc
  .record({ one: reported, two: reported, three: reported, foreign: reported }, { requiredKeys: [] })
  .map((named) => new Map(Object.entries(named)));

const VERSIONS = ['2.6.12', '2.8.0', '3.0.11', '3.2.26'] as const;
const version = fc.constantFrom(...VERSIONS);

/** What HAProxy does with a step, and refuses; `busy` servers have sessions that never end. */
function execute(running: Backends, step: Step, busy: ReadonlySet<string> = new Set()): Backends {
  const present = new Map((running.get(step.backend) ?? []).map((server) => [server.name, server]));
  if (step.kind === 'add') {
    const server = reportOf(step.server);
    assert.ok(!present.has(server.name), 'HAProxy refuses to add a server twice');
    assert.ok(
      [...present.values()].every(({ id }) => id !== server.id),
      'HAProxy refuses an id twice',
    );
    present.set(server.name, { ...server, state: step.state });
  } else {
    const server = present.get(step.server);
    assert.ok(server, 'HAProxy knows no such server');
    switch (step.kind) {
      case 'weight':
        present.set(server.name, { ...server, weight: step.weight });
        break;
      case 'idle':
        present.set(server.name, { ...server, weight: 0 });
        break;
      case 'ready':
      case 'drain':
      case 'maint':
        present.set(server.name, { ...server, state: step.kind });
        break;
      case 'delete':
        present.set(server.name, { ...server, state: 'maint' });
        if (!busy.has(server.name)) present.delete(server.name);
    }
  }
  return new Map(running).set(step.backend, [...present.values()]);
}

const isLoss = ({ kind }: Step) => ['idle', 'drain', 'maint', 'delete'].includes(kind);

interface Scene {
  readonly running: Backends;
  readonly desired: Membership;
  readonly circumstances?: Circumstances;
  readonly version?: string;
}

function planOf({ running, desired, circumstances = ORDINARY, version = '2.6.12' }: Scene) {
  const plan = planChanges(
    { mark: MARK, version, backends: running },
    { mark: MARK, structure, membership: desired },
    circumstances,
  );
  assert.equal(plan.reload, undefined);
  return plan;
}

function described(servers: readonly ReportedServer[] | undefined): string[] {
  return (servers ?? [])
    .map(({ name, address, port, weight, state }) => `${name} ${address} ${port} ${weight} ${state}`)
    .toSorted();
}

const serving = (running: Backends, backend: string) =>
  (running.get(backend) ?? []).filter(({ state }) => state === 'ready');

/** Those that get new requests: none with weight 0 does. */
const taking = (running: Backends, backend: string) =>
  serving(running, backend).filter(({ weight }) => weight > 0);

/** Some of the servers that there can be, by chance. */
const some = fc
  .subarray(
    ['one', 'two'].flatMap((backend) =>
      OPTIONS.flatMap((haproxyServerOptions) =>
        ['a', 'b', 'c', 'd', 'e'].map((name) => {
          const [server] = serversOf([{ name, host: '10.0.0.1', port: 1, haproxyServerOptions }]);
          return `${backend}/${server?.name}`;
        }),
      ),
    ),
  )
  .map((names) => new Set([...names, 'one/rogue']));
const circumstances: fc.Arbitrary<Circumstances> = fc
  .tuple(some, some, some, some)
  .map(([waiting, left, quiet, overdue]) => ({ ...ORDINARY, waiting, left, quiet, overdue }));

describe('a plan', () => {
  test('applied, yields the desired state, and another one has no step', () => {
    fc.assert(
      fc.property(backends, membership, version, (running, desired, version) => {
        const { steps } = planOf({ running, desired, version });
        let result = steps.reduce((now, step) => execute(now, step), running);
        // Those that wait for their first check wait no more.
        const waited = planOf({ running: result, desired, version });
        assert.ok(
          waited.steps.every(({ kind, backend }) => backend === 'two' && /ready|drain|idle/.test(kind)),
        );
        result = waited.steps.reduce((now, step) => execute(now, step), result);
        for (const [backend, wanted] of desired) {
          const names = new Set<string>(wanted.map(({ name }) => name));
          const members = (result.get(backend) ?? []).filter(({ name }) => names.has(name));
          const states = new Map(members.map(({ name, state }) => [name, state]));
          // Maintenance is as good as a drain that is over.
          const asGood = wanted.map((server) =>
            server.state === 'drain' && states.get(server.name) === 'maint'
              ? { ...server, state: 'maint' as const }
              : server,
          );
          assert.deepEqual(described(members), described(asGood));
          assert.ok(serving(result, backend).every(({ name }) => names.has(name)));
        }
        assert.deepEqual(planOf({ running: result, desired, version }).steps, []);
      }),
    );
  });

  test('says beforehand what HAProxy has when every step is taken', () => {
    fc.assert(
      fc.property(
        backends,
        membership,
        version,
        circumstances,
        (running, desired, version, circumstances) => {
          const { steps, outcome } = planOf({ running, desired, version, circumstances });
          const result = steps.reduce((now, step) => execute(now, step), running);
          assert.deepEqual([...outcome.keys()].toSorted(), [...desired.keys()].toSorted());
          for (const [backend, servers] of outcome)
            assert.deepEqual(described(servers), described(result.get(backend)));
          // Known this way, it is the same to the next plan.
          const known = new Map([...running, ...outcome]);
          assert.deepEqual(
            planOf({ running: known, desired, version, circumstances }),
            planOf({ running: new Map([...running, ...result]), desired, version, circumstances }),
          );
        },
      ),
    );
  });

  test('keeps a backend that is as wanted as the very array that is wanted', () => {
    fc.assert(
      fc.property(membership, (desired) => {
        for (const [backend, servers] of planOf({ running: desired, desired }).outcome)
          assert.equal(servers, desired.get(backend));
      }),
    );
  });

  test('takes away last, and touches only backends that are in the structure and of which something is known', () => {
    fc.assert(
      fc.property(backends, membership, circumstances, (running, desired, circumstances) => {
        const withForeign = new Map(desired).set(
          'foreign',
          serversOf([{ name: 'x', host: '10.0.0.1', port: 1 }]),
        );
        const { steps } = planOf({ running, desired: withForeign, circumstances, version: '3.0.11' });
        const firstLoss = steps.findIndex(isLoss);
        if (firstLoss >= 0) assert.ok(steps.slice(firstLoss).every(isLoss));
        for (const { backend } of steps) assert.ok(backend !== 'foreign' && desired.has(backend), backend);
      }),
    );
  });

  test('never lets a backend that serves pass through empty while it has a member that nobody holds', () => {
    fc.assert(
      fc.property(backends, membership, circumstances, (running, desired, circumstances) => {
        let now = running;
        for (const step of planOf({ running, desired, circumstances }).steps) {
          const before = taking(now, step.backend).length;
          now = execute(now, step);
          const members = (desired.get(step.backend) ?? []).filter(
            ({ name, state, weight }) =>
              state === 'ready' && weight > 0 && !circumstances.left.has(`${step.backend}/${name}`),
          );
          const isHeld = desired
            .get(step.backend)
            ?.some(({ name, state }) => isLoss(step) && state !== 'ready' && step.server === name);
          if (before > 0 && members.length > 0 && isHeld !== true)
            assert.ok(taking(now, step.backend).length > 0, JSON.stringify(step));
        }
      }),
      { numRuns: 1_000 },
    );
  });

  test('lets be who waits for the first check, and who is held by somebody else', () => {
    fc.assert(
      fc.property(backends, membership, circumstances, (running, desired, circumstances) => {
        const { steps } = planOf({ running, desired, circumstances });
        for (const step of steps) {
          if (step.kind !== 'ready') continue;
          const address = `${step.backend}/${step.server}`;
          const found = running.get(step.backend)?.find(({ name }) => name === step.server);
          assert.ok(!circumstances.left.has(address), address);
          assert.ok(!circumstances.waiting.has(address) || found?.state !== 'maint', address);
        }
      }),
    );
  });

  test('deletes only where that is safe: from 3.0 on, what nobody wants, once it is quiet', () => {
    fc.assert(
      fc.property(
        backends,
        membership,
        circumstances,
        version,
        (running, desired, circumstances, version) => {
          const { steps } = planOf({ running, desired, circumstances, version });
          for (const step of steps) {
            if (step.kind !== 'delete') continue;
            assert.ok(version.startsWith('3.'));
            assert.ok(circumstances.quiet.has(`${step.backend}/${step.server}`));
            assert.ok(!desired.get(step.backend)?.some(({ name }) => name === step.server));
            const found = running.get(step.backend)?.find(({ name }) => name === step.server);
            assert.notEqual(found?.state, 'ready');
          }
        },
      ),
    );
  });

  test('ends a drain in maintenance, of who is gone and of who is held so, once it is quiet or overdue', () => {
    fc.assert(
      fc.property(
        backends,
        membership,
        circumstances,
        version,
        (running, desired, circumstances, version) => {
          const { steps, outcome } = planOf({ running, desired, circumstances, version });
          const isOver = (address: string) =>
            circumstances.quiet.has(address) || circumstances.overdue.has(address);
          for (const [backend, servers] of outcome) {
            const states = new Map<string, ReportedServer['state']>(
              desired.get(backend)?.map(({ name, state }) => [name, state]),
            );
            const before = new Map(running.get(backend)?.map(({ name, state }) => [name, state]));
            const drained = servers.filter(
              ({ name }) => (states.get(name) ?? 'drain') === 'drain' && before.get(name) === 'drain',
            );
            for (const { name, state } of drained)
              assert.equal(state, isOver(`${backend}/${name}`) ? 'maint' : 'drain');
          }
          for (const step of steps.filter(({ kind }) => kind === 'maint')) {
            assert.ok('server' in step && typeof step.server === 'string');
            const wish = desired.get(step.backend)?.find(({ name }) => name === step.server)?.state;
            assert.ok(wish === 'maint' || isOver(`${step.backend}/${step.server}`));
          }
        },
      ),
    );
  });

  test('has nothing to say of a backend that is settled', () => {
    const circumstances = { ...ORDINARY, isSettled: (backend: string) => backend === 'one' };
    const [server] = serversOf([{ name: 'a', host: '10.0.0.1', port: 1 }]);
    assert.ok(server);
    const desired = new Map([
      ['one', [server]],
      ['three', [server]],
    ]);
    const plan = planOf({ running: new Map(), desired, circumstances });
    assert.deepEqual(
      plan.steps.map(({ backend }) => backend),
      ['three'],
    );
    assert.deepEqual([...plan.outcome.keys()], ['three']);
  });

  test('gives a server that comes back its weight before its traffic', () => {
    const [wanted] = serversOf([{ name: 'a', host: '10.0.0.1', port: 1, weight: 5 }]);
    assert.ok(wanted);
    const drained: ReportedServer = { ...wanted, weight: 200, state: 'drain' };
    const desired = new Map([['one', [wanted]]]);
    assert.deepEqual(
      planOf({ running: new Map([['one', [drained]]]), desired }).steps.map(({ kind }) => kind),
      ['weight', 'ready'],
    );
  });

  test('takes the weight of who serves once another one serves', () => {
    const [a, b] = serversOf(['a', 'b'].map((name) => ({ name, host: '10.0.0.1', port: 1 }))) as [
      Server,
      Server,
    ];
    const idle = { ...a, weight: 0 };
    const kinds = (backend: string, running: readonly ReportedServer[], circumstances = ORDINARY) =>
      planOf({
        running: new Map([[backend, running]]),
        desired: new Map([[backend, [idle, b]]]),
        circumstances,
      }).steps.map(({ kind }) => kind);
    assert.deepEqual(kinds('one', [a]), ['add', 'idle']);
    const waiting = { ...ORDINARY, waiting: new Set([`two/${b.name}`]) };
    const added: ReportedServer = { ...b, state: 'maint' };
    assert.deepEqual(kinds('two', [a]), ['add']);
    assert.deepEqual(kinds('two', [a, added], waiting), []);
    assert.deepEqual(kinds('two', [a, added]), ['ready', 'idle']);
    assert.deepEqual(kinds('one', [{ ...a, state: 'maint' }, b]), ['weight', 'ready']);
  });

  test('adds a server with the options of its backend, ready, or held, or waiting for its first check', () => {
    const [server] = serversOf([{ name: 'a', host: '10.0.0.1', port: 1 }]) as [Server];
    const added = (backend: string, server: Server) =>
      planOf({ running: new Map(), desired: new Map([[backend, [server]]]) }).steps;
    const held: Server = { ...server, state: 'drain' };
    assert.deepEqual(added('one', server), [
      { kind: 'add', backend: 'one', server, serverOptions: '', state: 'ready' },
    ]);
    assert.deepEqual(added('one', held), [
      { kind: 'add', backend: 'one', server: held, serverOptions: '', state: 'drain' },
    ]);
    assert.deepEqual(added('two', server), [
      { kind: 'add', backend: 'two', server, serverOptions: 'check', state: 'maint' },
    ]);
  });

  test('keeps who leaves until somebody else has passed the first check', () => {
    const [a, b] = serversOf(['a', 'b'].map((name) => ({ name, host: '10.0.0.1', port: 1 }))) as [
      Server,
      Server,
    ];
    const waiting = { ...ORDINARY, waiting: new Set([`two/${b.name}`]) };
    const desired = new Map([['two', [b]]]);
    const now = new Map([['two', [a, { ...b, state: 'maint' as const }]]]);
    assert.deepEqual(planOf({ running: now, desired, circumstances: waiting }).steps, []);
    assert.deepEqual(
      planOf({ running: now, desired }).steps.map(({ kind }) => kind),
      ['ready', 'drain'],
    );
  });
});

describe('a reload', () => {
  const [server] = serversOf([{ name: 'a', host: '10.0.0.1', port: 1 }]) as [Server];
  const reasonOf = (
    running: { mark?: string; version?: string; backends?: Backends },
    section: Record<string, unknown> = {},
    servers = [server],
  ) =>
    planChanges(
      { mark: MARK, version: '2.6.12', backends: new Map(), ...running },
      {
        mark: MARK,
        structure: structureOf([service('one', '127.0.0.1:1', section)]),
        membership: new Map([['one', servers]]),
      },
    ).reload;

  test('is for a structure that HAProxy has not loaded', () => {
    assert.deepEqual(reasonOf({ mark: 'tandem 1' }), {
      kind: 'structure-changed',
      running: 'tandem 1',
      wanted: MARK,
    });
  });

  test('is for a server that kept its name and not its address', () => {
    for (const moved of [{ address: '10.0.0.2' }, { port: 2 }]) {
      const running = { backends: new Map([['one', [{ ...server, ...moved }]]]) };
      assert.deepEqual(reasonOf(running), { kind: 'server-moved', backend: 'one', server: server.name });
    }
  });

  test('is for more tombstones than memory is worth', () => {
    const tombstones = (count: number) =>
      new Map([
        [
          'one',
          Array.from({ length: count }, (_, index) => ({
            ...server,
            name: `gone${index}`,
            state: 'drain' as const,
          })),
        ],
      ]);
    assert.equal(reasonOf({ backends: tombstones(1_000) }), undefined);
    assert.deepEqual(reasonOf({ backends: tombstones(1_001) }), {
      kind: 'too-many-tombstones',
      backend: 'one',
      count: 1_001,
    });
    assert.equal(reasonOf({ version: '3.0.11', backends: tombstones(1_001) }), undefined);
  });

  test('is for an option that no newcomer can be given, by the version that runs', () => {
    const options = { server_options: 'cookie x', backend: ['cookie SRV insert'] };
    assert.deepEqual(reasonOf({}, options), {
      kind: 'option-not-dynamic',
      option: 'cookie',
      backend: 'one',
      version: '2.6.12',
    });
    assert.equal(reasonOf({ version: '3.0.11' }, options), undefined);
    // What is there already needs none.
    assert.equal(reasonOf({ backends: new Map([['one', [server]]]) }, options), undefined);
  });

  test('is for a backend whose algorithm knows no newcomers and no weights', () => {
    for (const line of ['balance static-rr', '  hash-type map-based']) {
      const reason = { kind: 'backend-not-dynamic', backend: 'one', line: line.trim() };
      assert.deepEqual(reasonOf({}, { backend: [line] }), reason);
      const heavier = new Map([['one', [{ ...server, weight: 9 }]]]);
      assert.deepEqual(reasonOf({ backends: heavier }, { backend: [line] }), reason);
      assert.equal(reasonOf({ backends: new Map([['one', [server]]]) }, { backend: [line] }), undefined);
    }
    assert.equal(reasonOf({}, { backend: ['balance static-rr', 'balance roundrobin'] }), undefined);
  });

  test('that never comes keeps nothing from being done that can be done at run time', () => {
    const sections: readonly Record<string, unknown>[] = [
      { server_options: 'cookie x', backend: ['cookie SRV insert'] },
      { backend: ['balance static-rr'] },
    ];
    fc.assert(
      fc.property(
        reported,
        servers,
        fc.constantFrom(...sections),
        circumstances,
        (present, wanted, section, circumstances) => {
          const isWeighed = section['server_options'] !== undefined;
          const running: Backends = new Map([['one', present]]);
          const desired = {
            mark: MARK,
            structure: structureOf([service('one', '127.0.0.1:1', section)]),
            membership: new Map([['one', wanted]]),
          };
          const planned = (backends: Backends, more = {}) =>
            planChanges({ mark: MARK, version: '2.6.12', backends }, desired, { ...circumstances, ...more });
          const plan = planned(running);
          const names = new Map<string, Server>(wanted.map((server) => [server.name, server]));
          const known = new Map(present.map((server) => [server.name, server]));
          let now = running;
          for (const step of plan.steps) {
            const before = serving(now, 'one').length;
            now = execute(now, step);
            const isHeld = isLoss(step) && 'server' in step && names.has(step.server as string);
            const isAnyWanted = wanted.some(
              ({ name, state }) => state === 'ready' && !circumstances.left.has(`one/${name}`),
            );
            if (before > 0 && isAnyWanted && !isHeld)
              assert.ok(serving(now, 'one').length > 0, 'the backend runs empty');
          }
          const after = now.get('one') ?? [];
          assert.deepEqual(described(plan.outcome.get('one')), described(after));
          const isMissing = wanted.some(({ name }) => !known.has(name));
          const isUnweighed = wanted.some(
            ({ name, weight }) => !isWeighed && known.has(name) && known.get(name)?.weight !== weight,
          );
          assert.equal(plan.reload !== undefined, isMissing || isUnweighed);
          assert.equal(plan.unfinished.has('one'), isMissing || isUnweighed);
          // Neither who has no weight yet, nor who is to have none, is a reason to let others go.
          const isAnyServing = after.some(
            ({ name, state, weight }) =>
              state === 'ready' && weight > 0 && (names.get(name)?.weight ?? 0) > 0,
          );
          const isAnyToCome = wanted.some(({ name, state }) => state === 'ready' && !known.has(name));
          const keeps = !isAnyServing && (isAnyToCome || circumstances.waiting.size > 0);
          const others = after.filter(({ name }) => !names.has(name));
          assert.ok(keeps || others.every(({ state }) => state !== 'ready'), 'somebody stays in rotation');
          const isLeft = (name: string) =>
            circumstances.left.has(`one/${name}`) || circumstances.waiting.has(`one/${name}`);
          const isDone = (found: ReportedServer, { name, weight, state }: Server) =>
            (found.weight === weight || !isWeighed || (weight === 0 && keeps)) &&
            (found.state === state ||
              (state === 'ready' && isLeft(name)) ||
              (state === 'drain' && found.state === 'maint'));
          for (const found of after) {
            const server = names.get(found.name);
            assert.ok(server === undefined || isDone(found, server), JSON.stringify(found));
          }
          const fresh = { quiet: new Set(), overdue: new Set() };
          assert.deepEqual(planned(new Map([['one', after]]), fresh).steps, []);
        },
      ),
    );
  });

  test('for too many tombstones does not keep the backend from being changed meanwhile', () => {
    const [a, b] = serversOf(['a', 'b'].map((name) => ({ name, host: '10.0.0.1', port: 1 }))) as [
      Server,
      Server,
    ];
    const gone = Array.from({ length: 1_001 }, (_, index) => ({
      ...a,
      name: `gone${index}`,
      state: 'maint' as const,
    }));
    const plan = planChanges(
      { mark: MARK, version: '2.6.12', backends: new Map([['one', [a, ...gone]]]) },
      { mark: MARK, structure, membership: new Map([['one', [b]]]) },
    );
    assert.equal(plan.reload?.kind, 'too-many-tombstones');
    assert.deepEqual(
      plan.steps.map(({ kind }) => kind),
      ['add', 'drain'],
    );
  });

  test('does not keep the other backends from being changed', () => {
    const moved = { ...server, port: 2 };
    const plan = planChanges(
      { mark: MARK, version: '2.6.12', backends: new Map([['one', [moved]]]) },
      {
        mark: MARK,
        structure,
        membership: new Map([
          ['one', [server]],
          ['three', [server]],
        ]),
      },
    );
    assert.equal(plan.reload?.kind, 'server-moved');
    assert.deepEqual([...plan.unfinished], ['one']);
    assert.deepEqual(
      plan.steps.map(({ backend }) => backend),
      ['three'],
    );
  });
});

describe('a drain', () => {
  test('is overdue after 30 s, however busy the server is, and not before', () => {
    const [server] = serversOf([{ name: 'a', host: '10.0.0.1', port: 1 }]) as [Server];
    const backends = new Map([['one', [{ ...server, state: 'drain' as const }]]]);
    const view = new RunningView({ incarnation: '1', version: '2.6.12', mark: MARK, backends });
    const leaving = view.leaving(new Map([['one', []]]), false);
    assert.deepEqual([...leaving.keys()], ['one']);
    const address = `one/${server.name}`;
    for (const now of [5_000, 20_000, 34_999]) {
      assert.equal(
        view.sample(leaving, () => false, now),
        false,
      );
      assert.ok(!view.circumstances().overdue.has(address));
    }
    assert.ok(view.sample(leaving, () => false, 35_000));
    assert.ok(view.circumstances().overdue.has(address));
  });
});
