import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';

import {
  createDesiredBuilder,
  findPathProblems,
  findRoutingProblems,
  HaproxySection,
  readSpares,
  renderConfig,
} from '@tandem/discovery';
import {
  assignSpares,
  createLayout,
  formatBind,
  noSpares,
  notesOf,
  overlaps,
  parseEndpoint,
  placeMembership,
  placementOf,
  placeService,
  readNotes,
  renderMap,
  SPARE_REST_MS,
  type Spares,
} from '@tandem/discovery/testing';
import * as fc from 'fast-check';

import { service } from '../../support/haproxy.ts';
import { inDirectory } from '../../support/directory.ts';
import { serversOf } from './support.ts';

const CONFIG = HaproxySection.parse({
  port_range: { http: '21000-21009', tcp: '22000-22009', spares: 3 },
  shared_frontends: { web: { listen: ['*:80', '/run/web.sock'] }, internal: { listen: 8080 } },
  extra_sections: { 'listen stats': [], 'frontend edge': [], 'backend  pool': [] },
});

function at(name: string, port: number, section: Record<string, unknown> = {}) {
  return service(name, `127.0.0.1:${port}`, section);
}

describe('the place of a service', () => {
  test('is a spare when its port is one of the range, and its own frontend otherwise', () => {
    assert.deepEqual(placeService(CONFIG, at('a', 21_003)), { kind: 'spare', mode: 'http', port: 21_003 });
    assert.deepEqual(placeService(CONFIG, at('a', 22_009, { mode: 'tcp' })), {
      kind: 'spare',
      mode: 'tcp',
      port: 22_009,
    });
    for (const own of [
      at('a', 21_010),
      service('a', '10.0.0.5:21003'),
      service('a', '[::1]:21003'),
      service('a', '/run/a.sock'),
      service('a', undefined),
    ])
      assert.deepEqual(placeService(CONFIG, own), { kind: 'own' }, own.config.listen);
    assert.deepEqual(placeService(HaproxySection.parse({}), at('a', 21_003)), { kind: 'own' });
  });

  test('is nowhere when it asks for what a range does not have, with the key and a remedy', () => {
    const keyOf = (section: Record<string, unknown>, listen = '127.0.0.1:21003') => {
      const place = placeService(CONFIG, service('a', listen, section));
      return place.kind === 'impossible' ? place.key : place.kind;
    };
    assert.equal(keyOf({ mode: 'tcp' }), 'mode');
    assert.equal(keyOf({ frontend: ['maxconn 5'] }), 'frontend');
    assert.equal(keyOf({ backend: ['option httpchk'] }), 'backend');
    assert.equal(keyOf({ bind_options: 'accept-proxy' }), 'bind_options');
    assert.equal(keyOf({ balance: 'leastconn' }), 'balance');
    assert.equal(keyOf({ gate: { first_check: '1s' }, server_options: 'check' }), 'gate');
    assert.equal(keyOf({ balance: 'roundrobin' }), 'spare');
    assert.equal(keyOf({}, '*:21003'), 'listen');
    assert.equal(keyOf({}, '[::]:21003'), 'listen');
  });

  test('on all addresses is one, however they are written', () => {
    const config = HaproxySection.parse({ port_range: { address: '*', http: '21000-21009' } });
    assert.equal(placeService(config, service('a', '*:21003')).kind, 'spare');
    assert.equal(placeService(config, service('a', '0.0.0.0:21003')).kind, 'spare');
    assert.equal(placeService(config, at('a', 21_003)).kind, 'impossible');
  });
});

/** Any services: those of one name are one. Some in either range, some in none. */
const services = fc
  .uniqueArray(
    fc.record({
      name: fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f'),
      port: fc.constantFrom(21_000, 21_001, 21_002, 21_003, 22_000, 22_001, 3_000),
    }),
    { selector: ({ name }) => name, maxLength: 6 },
  )
  .map((all) => all.map(({ name, port }) => at(name, port, port >= 22_000 ? { mode: 'tcp' } : {})));

describe('spare backends', () => {
  test('are one for each service, kept by whoever has one, and refused only when there is none', () =>
    fc.assert(
      fc.property(fc.array(services, { minLength: 1, maxLength: 8 }), (history) => {
        let spares: Spares = noSpares;
        for (const present of history) {
          const before = spares;
          const { homeless, newcomers, isWaiting, ...assignment } = assignSpares(CONFIG, present, before);
          spares = assignment.spares;
          const inRange = present.filter((one) => placeService(CONFIG, one).kind === 'spare');
          assert.deepEqual(
            [...spares.assigned.keys(), ...homeless.keys()].toSorted(),
            inRange.map((one) => one.service).toSorted(),
          );
          assert.equal(new Set(spares.assigned.values()).size, spares.assigned.size);
          for (const one of inRange) {
            const spare = spares.assigned.get(one.service);
            const mode = one.config.mode;
            if (spare === undefined) {
              const used = [...spares.assigned.values(), ...before.assigned.values()];
              assert.equal(new Set(used.filter((name) => name.includes(mode))).size, 3);
              continue;
            }
            assert.match(spare, new RegExp(`^tandem-spare-${mode}-[123]$`));
            const had = before.assigned.get(one.service);
            if (had?.includes(mode) === true) assert.equal(spare, had);
            assert.equal(newcomers.has(one.service), spare !== had);
            if (spare !== had)
              assert.ok(![...before.assigned.values()].includes(spare), 'it has just served another');
          }
          assert.ok(spares.freed.every((spare) => ![...spares.assigned.values()].includes(spare)));
          assert.deepEqual(assignSpares(CONFIG, present.toReversed(), before).spares, spares);
          const again = assignSpares(CONFIG, present, spares);
          if (!isWaiting) assert.deepEqual(again.spares, spares);
          assert.equal(again.isWaiting, false);
          assert.deepEqual(assignSpares(CONFIG, present, spares, new Set(spares.freed)).spares, spares);
        }
      }),
      { numRuns: 300 },
    ));

  test('that were freed are used again last, the longest free first', () => {
    const next = (before: Spares, ...names: string[]) =>
      assignSpares(
        CONFIG,
        names.map((name, index) => at(name, 21_000 + index)),
        before,
      ).spares;
    const first = next(noSpares, 'a', 'b');
    const second = next(first, 'b');
    const third = next(second, 'b', 'c');
    assert.equal(third.assigned.get('c'), 'tandem-spare-http-3');
    const fourth = next(next(third, 'c'), 'c', 'd');
    assert.equal(fourth.assigned.get('d'), 'tandem-spare-http-1');
    assert.deepEqual(fourth.freed, ['tandem-spare-http-2']);
  });

  test('that lose their service rest before they get another, and then nothing else has to happen', () => {
    let now = 0;
    const layOut = createLayout(CONFIG, noSpares, () => now);
    const servedBy = (layout: ReturnType<typeof layOut>) =>
      Object.fromEntries(layout.assignment.spares.assigned);
    layOut([at('a', 21_000), at('b', 21_001), at('c', 21_002)]);
    const next = [at('b', 21_001), at('c', 21_002), at('d', 21_000)];
    const swapped = layOut(next);
    assert.deepEqual(servedBy(swapped), { b: 'tandem-spare-http-2', c: 'tandem-spare-http-3' });
    assert.match(swapped.unplaced.get('d') ?? '', /in use, or were a moment ago/);
    assert.equal(swapped.reviseAt, SPARE_REST_MS);
    now = SPARE_REST_MS - 1;
    assert.equal(layOut(next), swapped);
    assert.equal(servedBy(layOut([...next]))['d'], undefined);
    now = SPARE_REST_MS;
    const rested = layOut(next);
    assert.equal(servedBy(rested)['d'], 'tandem-spare-http-1');
    assert.equal(rested.reviseAt, undefined);
    assert.equal(rested.unplaced.size, 0);
    // A successor does not know how long the free ones have been free.
    const successor = createLayout(CONFIG, { ...rested.assignment.spares, freed: [] }, () => now);
    const left = successor(next.slice(1));
    const heir = createLayout(CONFIG, left.assignment.spares, () => now);
    assert.equal(servedBy(heir([...next.slice(1), at('e', 21_003)]))['e'], undefined);
  });

  test('are the same for the next daemon, which reads them from the map files', () =>
    inDirectory(async (directory) => {
      const config = { ...CONFIG, configFile: path.join(directory, 'haproxy.cfg') };
      assert.deepEqual(await readSpares(config), noSpares);
      const first = assignSpares(
        config,
        [at('a', 21_000), at('b', 22_000, { mode: 'tcp' })],
        noSpares,
      ).spares;
      const { spares } = assignSpares(config, [at('b', 22_000, { mode: 'tcp' }), at('c', 21_000)], first);
      for (const mode of ['http', 'tcp'] as const) {
        const text = renderMap({ entries: new Map(), notes: notesOf(mode, spares) });
        await writeFile(path.join(directory, `tandem-ports-${mode}.map`), text);
      }
      assert.deepEqual(await readSpares(config), spares);
    }));

  test('and what is no note of them is passed over', () => {
    const odd = ['', 'x serves y', 'tandem-spare-udp-1 serves a', 'tandem-spare-http-1 serves a b', 'a\nb'];
    assert.deepEqual(readNotes(odd), noSpares);
  });

  test('get the servers of their service with its options, and are empty without one', () => {
    const one = at('a', 21_000, { server_options: 'check inter 2s' });
    const assignment = assignSpares(CONFIG, [one], noSpares);
    const spare = 'tandem-spare-http-1';
    assert.deepEqual(placementOf(one, placeService(CONFIG, one), assignment), {
      backend: spare,
      options: 'check inter 2s',
    });
    const own = at('own', 3_000, { server_options: 'check' });
    assert.deepEqual(placementOf(own, placeService(CONFIG, own), assignment), {
      backend: 'own',
      options: '',
    });
    const servers = serversOf([{ name: 'x', host: '10.0.0.1', port: 80 }]);
    const ranges = [{ mode: 'http' as const, bind: '127.0.0.1:21000-21009', spares: 2, balance: 'first' }];
    const placed = placeMembership(
      new Map([
        [spare, servers],
        ['own', servers],
      ]),
      ranges,
      assignment,
    );
    assert.deepEqual(
      placed,
      new Map([
        ['own', servers],
        [spare, servers],
        ['tandem-spare-http-2', []],
      ]),
    );
    assert.equal(placed.get(spare), servers, 'the same array as long as nothing has changed');
  });

  test('of a service that nothing is known of keep what is in them, unless it is new there', () => {
    const one = at('a', 21_000);
    const ranges = [{ mode: 'http' as const, bind: '127.0.0.1:21000-21009', spares: 1, balance: 'first' }];
    const first = assignSpares(CONFIG, [one], noSpares);
    assert.deepEqual(placeMembership(new Map(), ranges, first), new Map([['tandem-spare-http-1', []]]));
    const second = assignSpares(CONFIG, [one], first.spares);
    assert.deepEqual(placeMembership(new Map(), ranges, second), new Map());
  });
});

test('servers in a spare have the options of their service as their own, and other options are other servers', () => {
  const config = HaproxySection.parse({ port_range: { http: '21000-21009', spares: 1 } });
  const build = createDesiredBuilder(config);
  const offer = (server_options: string, haproxyServerOptions?: string) => {
    const instances = [
      {
        name: 'x',
        host: '10.0.0.1',
        port: 80,
        ...(haproxyServerOptions === undefined ? {} : { haproxyServerOptions }),
      },
    ];
    const one = at('a', 21_000, { server_options });
    const { desired } = build(new Map([['a', { service: one, instances, holds: new Map() }]]));
    const [server] = desired.membership.get('tandem-spare-http-1') ?? [];
    return { server, mark: renderConfig(desired.structure, desired.membership).mark };
  };
  const plain = offer('');
  const checked = offer('check inter 2s');
  const own = offer('check inter 2s', 'maxconn 5 inter 9s');
  assert.equal(plain.server?.options, '');
  assert.equal(checked.server?.options, 'check inter 2s');
  assert.match(own.server?.options ?? '', /^check inter 2s .*maxconn 5/);
  assert.equal(new Set([plain, checked, own].map(({ server }) => server?.name)).size, 3);
  assert.equal(new Set([plain, checked, own].map(({ mark }) => mark)).size, 1);
});

describe('addresses', () => {
  test('are read from what stands behind bind', () => {
    for (const [written, meant] of [
      ['127.0.0.1:80', '127.0.0.1:80'],
      ['*:80', '0.0.0.0:80'],
      [':80', '0.0.0.0:80'],
      ['[::1]:80', '[::1]:80'],
      [':::80', '[::]:80'],
      ['ipv4@10.0.0.1:80-82', '10.0.0.1:80-82'],
      ['/run/x.sock', '/run/x.sock'],
      ['unix@/run/x.sock', '/run/x.sock'],
    ] as const) {
      const endpoint = parseEndpoint(written);
      assert.equal(endpoint === undefined ? undefined : formatBind(endpoint), meant, written);
    }
    for (const odd of ['fd@3', 'abns@x', 'localhost:80', '127.0.0.1', '${IP}:80', '"/run/x"', ':0', ':70000'])
      assert.equal(parseEndpoint(odd), undefined, odd);
  });

  test('meet those that they have a port of an interface in common with', () => {
    const meet = (a: string, b: string) => {
      const [one, other] = [parseEndpoint(a), parseEndpoint(b)];
      assert.ok(one !== undefined && other !== undefined);
      assert.equal(overlaps(one, other), overlaps(other, one));
      return overlaps(one, other);
    };
    assert.ok(meet('127.0.0.1:80', '*:80'));
    assert.ok(meet('127.0.0.1:80', '[::]:80'));
    assert.ok(meet('127.0.0.1:80-90', '127.0.0.1:90-99'));
    assert.ok(meet('/run/a', '/run/a'));
    assert.ok(!meet('127.0.0.1:80', '127.0.0.2:80'));
    assert.ok(!meet('[::1]:80', '*:80'));
    assert.ok(!meet('127.0.0.1:80', '127.0.0.1:81'));
    assert.ok(!meet('/run/a', '/run/b'));
    assert.ok(!meet('/run/a', '127.0.0.1:80'));
  });
});

describe('what does not fit together', () => {
  const problems = (name: string, listen: string | undefined, section: Record<string, unknown> = {}) =>
    findRoutingProblems(CONFIG, service(name, listen, section)).map(
      ({ path: at, reason, remedy }) => `${at.join('.')}: ${reason}. ${remedy}`,
    );

  test('is nothing for services that do', () => {
    assert.deepEqual(problems('web', undefined, { shared_frontend: 'web', hosts: ['x.example'] }), []);
    assert.deepEqual(problems('api', '127.0.0.1:80'), []);
    assert.deepEqual(problems('api', '127.0.0.1:21000'), []);
    assert.deepEqual(problems('stats', undefined), [], 'a service for file outputs has no section');
    assert.deepEqual(problems('edge', undefined, { shared_frontend: 'web', hosts: ['x.example'] }), []);
  });

  test('is told with the key and a remedy', () => {
    const hosts = ['x.example'];
    assert.deepEqual(problems('a', undefined, { shared_frontend: 'wbe', hosts }), [
      'discover.shared_frontend: "wbe" is not one of haproxy.shared_frontends. Known: web, internal. Did you mean "web"?',
    ]);
    assert.deepEqual(problems('a', '127.0.0.1:21000', { mode: 'tcp' }), [
      'discover.mode: port 21000 is one of the http ports of haproxy.port_range, and the service has mode tcp. Set mode: http, or listen outside 127.0.0.1:21000-21009 (haproxy.port_range)',
    ]);
    assert.match(problems('tandem-spare-http-1', '127.0.0.1:1')[0] ?? '', /^service: names that start with/);
    assert.match(problems('stats', '127.0.0.1:1')[0] ?? '', /^service: .*a section "listen stats"/);
    assert.match(problems('edge', '127.0.0.1:1')[0] ?? '', /^service: .*a section "frontend edge"/);
    assert.match(
      problems('pool', undefined, { shared_frontend: 'web', hosts })[0] ?? '',
      /^service: .*a section "backend {2}pool"/,
    );
    assert.match(problems('web', '127.0.0.1:1')[0] ?? '', /^service: haproxy.shared_frontends has/);
  });

  test('is a place for map files whose path would be more than a word', () => {
    assert.deepEqual(findPathProblems({ ...CONFIG, configFile: '/run/tandem/haproxy.cfg' }), []);
    assert.equal(findPathProblems({ ...CONFIG, configFile: '/run/a b/haproxy.cfg' }).length, 1);
    assert.equal(findPathProblems({ ...CONFIG, configFile: '/run/a),b/haproxy.cfg' }).length, 1);
    const without = HaproxySection.parse({ config_file: '/run/a b/haproxy.cfg' });
    assert.deepEqual(findPathProblems(without), []);
  });

  test('is a place for a socket that would be more than a word, or too long, once it is absolute', () => {
    const keysOf = (config: Partial<typeof CONFIG>) =>
      findPathProblems({ ...CONFIG, ...config }).map(({ path }) => path.join('.'));
    assert.deepEqual(keysOf({}), []);
    assert.deepEqual(keysOf({ runtimeSocket: '/srv/a b/haproxy.sock' }), ['haproxy.runtime_socket']);
    assert.deepEqual(keysOf({ runtimeSocket: '/srv/$HOME/haproxy.sock' }), ['haproxy.runtime_socket']);
    assert.deepEqual(keysOf({ runtimeSocket: `/${'a'.repeat(100)}/haproxy.sock` }), [
      'haproxy.runtime_socket',
    ]);
    assert.deepEqual(keysOf({ masterSocket: '/srv/a,b/master.sock' }), ['haproxy.master_socket']);
    assert.deepEqual(keysOf({ mode: 'external', masterSocket: '/srv/a,b/master.sock' }), []);
  });
});
