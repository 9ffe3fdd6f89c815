import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import type { Instance } from '@tandem/core';
import {
  buildStructure,
  createDesiredBuilder,
  type DiscoveredService,
  type HaproxyConfig,
  HaproxySection,
  renderConfig,
} from '@tandem/discovery';
import { buildMembership } from '@tandem/discovery/testing';
import * as fc from 'fast-check';

import { service } from '../../support/haproxy.ts';

const CONFIG = HaproxySection.parse({
  shared_frontends: { edge: { listen: 80 }, internal: { listen: 8080 } },
  port_range: { http: '21000-21009', spares: 2 },
});

/** The lines of one section, by its title. */
function section(title: string, services: readonly DiscoveredService[], config = CONFIG): string[] {
  const { text } = renderConfig(buildStructure(config, services), new Map());
  const found = text.split(/\n\n/).find((part) => part.startsWith(`${title}\n`));
  return found?.split('\n').map((line) => line.trim()) ?? [];
}

function markOf(services: readonly DiscoveredService[], config: HaproxyConfig = CONFIG): string {
  return renderConfig(buildStructure(config, services), new Map()).mark;
}

describe('the sections of a service', () => {
  test('hold its own lines and bind options', () => {
    const web = service('web', '127.0.0.1:3210', {
      bind_options: 'accept-proxy',
      frontend: ['maxconn 7'],
      backend: ['option httpchk GET /health'],
    });
    const frontend = section('frontend web', [web]);
    assert.ok(frontend.includes('bind 127.0.0.1:3210 accept-proxy'));
    assert.ok(frontend.indexOf('maxconn 7') < frontend.indexOf('default_backend web'));
    assert.ok(section('backend web', [web]).includes('option httpchk GET /health'));
  });

  test('open a unix socket to the group, unless the options say otherwise', () => {
    const bindOf = (bind_options: string) =>
      section('frontend web', [service('web', '/run/web.sock', { bind_options })]).find((line) =>
        line.startsWith('bind '),
      );
    assert.equal(bindOf(''), 'bind /run/web.sock mode 660');
    assert.equal(bindOf('accept-proxy'), 'bind /run/web.sock mode 660 accept-proxy');
    assert.equal(bindOf('mode 666 user www'), 'bind /run/web.sock mode 666 user www');
  });

  test('hash consistently, unless their own lines say how', () => {
    const isConsistent = (balance: string, backend: string[] = []) =>
      section('backend web', [service('web', '127.0.0.1:1', { balance, backend })]).includes(
        'hash-type consistent',
      );
    for (const balance of ['source', 'uri', 'url_param id', 'hdr(x-user)', 'rdp-cookie', 'rdp-cookie(x)'])
      assert.ok(isConsistent(balance), balance);
    for (const balance of ['roundrobin', 'leastconn', 'random', 'first'])
      assert.ok(!isConsistent(balance), balance);
    assert.ok(!isConsistent('source', ['hash-type map-based']));
    // The last algorithm counts, whoever names it.
    assert.ok(isConsistent('roundrobin', ['balance source']));
    assert.ok(isConsistent('roundrobin', ['  balance hash req.hdr(x)']));
    assert.ok(!isConsistent('source', ['balance leastconn']));
  });

  test('are a backend alone when only a shared frontend leads to it, and none when nothing does', () => {
    const shared = service('web', undefined, { shared_frontend: 'edge', hosts: ['x.example'] });
    assert.deepEqual(section('frontend web', [shared]), []);
    assert.ok(section('backend web', [shared]).includes('mode http'));
    const { proxies } = buildStructure(HaproxySection.parse({}), [service('files', undefined)]);
    assert.deepEqual(proxies, []);
  });
});

describe('the sections of the host', () => {
  test('have a frontend that looks up hosts, and one that looks up ports, with backends that wait', () => {
    const config = HaproxySection.parse({
      shared_frontends: {
        edge: { listen: ['*:80', '[::]:80'], bind_options: 'accept-proxy', lines: ['http-request deny'] },
      },
      port_range: { address: '::1', http: '1-2', tcp: '3-4', spares: 1, balance: 'leastconn' },
      socket_group: 'haproxy',
    });
    const edge = section('frontend edge', [], config);
    for (const line of ['mode http', 'bind *:80 accept-proxy', 'bind [::]:80 accept-proxy'])
      assert.ok(edge.includes(line), line);
    const lookUp = edge.findIndex((line) => line.includes('map_str(/run/tandem/tandem-edge.map)'));
    assert.ok(edge.indexOf('http-request deny') < lookUp);
    for (const [mode, ports] of [
      ['http', '1-2'],
      ['tcp', '3-4'],
    ] as const) {
      const frontend = section(`frontend tandem-ports-${mode}`, [], config);
      assert.ok(frontend.includes(`mode ${mode}`));
      assert.ok(frontend.includes(`bind [::1]:${ports}`));
      const spare = section(`backend tandem-spare-${mode}-1`, [], config);
      assert.ok(spare.includes('balance leastconn'));
    }
    assert.match(
      renderConfig(buildStructure(config, []), new Map()).text,
      /^ {2}stats socket \/run\/tandem\/haproxy\.sock mode 660 group haproxy level admin expose-fd listeners$/m,
    );
  });
});

interface Wish {
  readonly name: string;
  /** What only a reload can change. */
  readonly solid: Record<string, unknown>;
  /** What it must not be needed for. */
  readonly fluid: Record<string, unknown>;
}

const hosts = fc.uniqueArray(fc.constantFrom('a.example', 'b.example', 'c.example'), { minLength: 1 });
const fluidOf = (isShared: boolean): fc.Arbitrary<Record<string, unknown>> =>
  fc.record(
    {
      ...(isShared ? { hosts } : {}),
      allow_empty: fc.boolean(),
      filter: fc.constantFrom({ zone: 'x' }, { zone: 'y' }),
      fallback: fc.constantFrom([], [{ host: '10.9.9.9', port: 1 }]),
      leader: fc.boolean(),
      subset: fc.constantFrom({ size: 1 }, { size: 2 }),
    },
    isShared ? { requiredKeys: ['hosts'] } : { requiredKeys: [] },
  );
const solidCommon = {
  balance: fc.constantFrom('roundrobin', 'leastconn', 'source'),
  server_options: fc.constantFrom('', 'check', 'check inter 5s'),
  backend: fc.constantFrom([], ['timeout server 5s'], ['hash-type map-based']),
};
const wish: fc.Arbitrary<Wish> = fc.oneof(
  fc.record({
    name: fc.constantFrom('a', 'b'),
    solid: fc.record({
      ...solidCommon,
      listen: fc.constantFrom('127.0.0.1:3000', '*:3001', '/run/a.sock'),
      mode: fc.constantFrom('http', 'tcp'),
      bind_options: fc.constantFrom('', 'accept-proxy', 'mode 666'),
      frontend: fc.constantFrom([], ['maxconn 5']),
    }),
    fluid: fluidOf(false),
  }),
  fc.record({
    name: fc.constantFrom('a', 'b'),
    solid: fc.record({ ...solidCommon, shared_frontend: fc.constantFrom('edge', 'internal') }),
    fluid: fluidOf(true),
  }),
  fc.record({
    name: fc.constantFrom('a', 'b'),
    solid: fc.constant({}),
    fluid: fc.record({
      listen: fc.constantFrom('127.0.0.1:21000', '127.0.0.1:21001'),
      server_options: fc.constantFrom('', 'check'),
    }),
  }),
);
const wishes = fc.uniqueArray(wish, { selector: ({ name }) => name });

function toServices(all: readonly Wish[]): DiscoveredService[] {
  return all.map(({ name, solid, fluid }) => service(name, undefined, { ...solid, ...fluid }));
}

/** What a reload is for: the services that have sections, and what they ask for there. */
function essence(all: readonly Wish[]): unknown {
  return all
    .filter(({ solid }) => Object.keys(solid).length > 0)
    .map(({ name, solid }) => {
      // Which of the shared frontends leads to a backend stands in the maps.
      const { shared_frontend: _, ...rest } = solid;
      return JSON.stringify([name, rest]);
    })
    .toSorted();
}

describe('the mark of a structure', () => {
  test('changes exactly when something changes that needs a reload', () =>
    fc.assert(
      fc.property(wishes, wishes, (one, other) => {
        const isSame = JSON.stringify(essence(one)) === JSON.stringify(essence(other));
        assert.equal(markOf(toServices(one)) === markOf(toServices(other)), isSame);
      }),
      { numRuns: 500 },
    ));

  test('is the same for other wishes that need none, and for whatever instances', () =>
    fc.assert(
      fc.property(
        wishes,
        fc.infiniteStream(fluidOf(true)),
        fc.array(fc.record({ name: fc.constant('x'), host: fc.ipV4(), port: fc.constant(80) })),
        (all, fluids, instances) => {
          const build = createDesiredBuilder(CONFIG);
          const before = toServices(all);
          const after = toServices(
            all.map((one) => {
              const { hosts: others, ...fluid } = fluids.next().value;
              const more = 'hosts' in one.fluid ? { hosts: others } : {};
              return { ...one, fluid: { ...one.fluid, ...fluid, ...more } };
            }),
          );
          const offer = (services: readonly DiscoveredService[], known: readonly Instance[]) =>
            build(
              new Map(
                services.map((one) => [one.service, { service: one, instances: known, holds: new Map() }]),
              ),
            ).desired;
          const first = offer(before, []);
          const second = offer(after, instances);
          assert.equal(
            renderConfig(first.structure, first.membership).mark,
            renderConfig(second.structure, second.membership).mark,
          );
        },
      ),
      { numRuns: 200 },
    ));

  test('changes with every part of the host', () => {
    const marks = [
      {},
      { socket_group: 'haproxy' },
      { runtime_socket: '/run/other.sock' },
      { global: ['maxconn 10'] },
      { defaults: ['timeout server 5s'] },
      { extra_sections: { 'listen x': ['mode tcp'] } },
      { shared_frontends: { edge: { listen: 80 } } },
      { shared_frontends: { edge: { listen: 81 } } },
      { shared_frontends: { edge: { listen: 80, bind_options: 'accept-proxy' } } },
      { shared_frontends: { edge: { listen: 80, lines: ['maxconn 5'] } } },
      { port_range: { http: '21000-21009' } },
      { port_range: { http: '21000-21010' } },
      { port_range: { tcp: '21000-21009' } },
      { port_range: { http: '21000-21009', spares: 5 } },
      { port_range: { http: '21000-21009', balance: 'first' } },
      { port_range: { http: '21000-21009', address: '::1' } },
    ].map((settings) => markOf([], HaproxySection.parse(settings)));
    assert.equal(new Set(marks).size, marks.length);
  });

  test('is that of equal text: neither order nor when it was built matters', () => {
    const services = [service('b', '127.0.0.1:1'), service('a', '127.0.0.1:2')];
    const text = (all: readonly DiscoveredService[]) =>
      renderConfig(buildStructure(CONFIG, all), new Map()).text;
    assert.equal(text(services), text(services.toReversed()));
    assert.equal(text(services), text(services.map((one) => structuredClone(one))));
  });
});

test('servers of a service in a range are those of its spare, and its own name is nowhere', () => {
  const one = service('jobs', '127.0.0.1:21000');
  const instances = [{ name: 'x', host: '10.0.0.1', port: 80 }];
  const offers = new Map([['jobs', { service: one, instances, holds: new Map() }]]);
  const { desired, unplaced } = createDesiredBuilder(CONFIG)(offers);
  assert.equal(desired.membership.has('jobs'), false);
  assert.deepEqual(
    desired.membership.get('tandem-spare-http-1'),
    buildMembership(offers).membership.get('jobs'),
  );
  assert.equal(unplaced.size, 0);
  assert.doesNotMatch(renderConfig(desired.structure, desired.membership).text, /jobs/);
});

test('a service that finds no place is named with what to do about it', () => {
  const services = [21_000, 21_001, 21_002].map((port) => service(`s${port}`, `127.0.0.1:${port}`));
  const odd = service('odd', '127.0.0.1:21003', { mode: 'tcp' });
  const offers = new Map(
    [...services, odd].map((one) => [one.service, { service: one, instances: [], holds: new Map() }]),
  );
  const { desired, unplaced } = createDesiredBuilder(CONFIG)(offers);
  assert.deepEqual([...unplaced.keys()].toSorted(), ['odd', 's21002']);
  assert.match(unplaced.get('s21002') ?? '', /raise haproxy\.port_range\.spares/);
  assert.match(unplaced.get('odd') ?? '', /Set mode: http/);
  assert.equal([...desired.membership.keys()].filter((name) => name.startsWith('s2')).length, 0);
});
