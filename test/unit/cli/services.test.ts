import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import {
  formatRegistered,
  formatRegistrar,
  parseRegistrarState,
  type RegistrarFront,
  registrarRoutes,
  summarize,
} from '@tandem/cli/testing';
import { type ControlAnswer, isTandemError } from '@tandem/core';
import { createReports, type ServiceStatus } from '@tandem/registrar';

function service(name: string, more: Partial<ServiceStatus> = {}): ServiceStatus {
  return {
    service: name,
    path: `/services/${name}`,
    name: 'i-1',
    host: '10.0.0.5',
    port: 8080,
    health: 'up',
    announced: true,
    confirmed: true,
    role: 'active',
    drained: [],
    weight: {},
    checks: [],
    ...more,
  };
}

/** As it comes from the daemon. */
function state(services: readonly ServiceStatus[], more: Record<string, unknown> = {}) {
  const said = { registry: 'connected', services, overdue: [], problems: [], ...more };
  return parseRegistrarState(JSON.parse(JSON.stringify(said)));
}

/** The line of a service in the table, with single spaces. */
function lineOf(one: ServiceStatus): string {
  const line = formatRegistrar(state([one])).split('\n')[2] ?? '';
  return line.replace(/ +/g, ' ');
}

describe('what a registrar sees, for people', () => {
  test('is a line for each service, with why it is announced or not', () => {
    const cases: readonly (readonly [Partial<ServiceStatus>, string])[] = [
      [{}, 'up yes'],
      [{ weight: { configured: 10, override: 3, announced: 1 } }, 'up yes 1'],
      [{ drained: ['operator'], announced: false }, 'up no drained by "tandem drain"'],
      [
        { drained: ['file', 'shutdown'], announced: false },
        'up no drained by a drain file and for the end of the daemon',
      ],
      [
        { flapHold: { remainingMs: 61_400, count: 2 }, announced: false },
        'up no held down for flapping, for another 61s',
      ],
      [
        { rateLimitedForMs: 2_400, announced: false },
        'up no its announcement waits for the rate limit since 2s',
      ],
      [{ confirmed: false }, 'up not yet the registry has not confirmed its announcement'],
      [
        { drained: ['operator'], announced: false, confirmed: false },
        'up no the registry has not confirmed its withdrawal; drained by "tandem drain"',
      ],
      [{ role: 'outgoing' }, 'up yes leaves when its successor is announced'],
      [
        { role: 'waiting', waitsFor: 'the address of db.internal', health: 'unknown', announced: false },
        'unknown no waits for the address of db.internal',
      ],
      [
        {
          health: 'down',
          announced: false,
          checks: [
            { check: 'checks[0].http', health: 'up' },
            { check: 'checks[1].tcp', health: 'down', reason: 'connection refused' },
          ],
        },
        'down no checks[1].tcp: connection refused',
      ],
      [
        { checks: [{ check: 'checks[0].push', health: 'up', warning: 'slow' }] },
        'up yes checks[0].push: slow',
      ],
    ];
    for (const [more, expected] of cases)
      assert.equal(lineOf(service('web', more)), `web 10.0.0.5:8080 ${expected}`);
  });

  test('says where a service was found that no file is about', () => {
    const found = { ...service('web'), origin: 'container web-1 (4c91be4b51c3)' };
    assert.equal(lineOf(found), 'web 10.0.0.5:8080 up yes found in container web-1 (4c91be4b51c3)');
  });

  test('begins with the registry, the sum of it all, and what somebody should look at', () => {
    const text = formatRegistrar(
      state([service('web'), service('api', { health: 'down', announced: false })], {
        registry: 'suspended',
        overdue: ['web checks[0].http'],
        problems: [
          {
            file: '/s/a.yaml',
            line: 3,
            column: 5,
            path: 'register.port',
            reason: 'must be a number',
            remedy: 'x',
          },
          { file: '/s', path: '', reason: 'permission denied' },
        ],
      }),
    );

    assert.match(text, /^registry suspended, 2 services: 1 announced, 1 down\n/);
    assert.match(text, /^! web checks\[0\]\.http makes no progress: a fault in the registrar$/m);
    assert.match(text, /^! \/s\/a\.yaml:3: register\.port: must be a number\. x$/m);
    assert.match(text, /^! \/s: permission denied$/m);
    assert.match(formatRegistrar(state([])), /^registry connected, 0 services\nno services\n$/);
  });

  test('shows one service at each of its places, with its checks', () => {
    const all = state([
      service('web', {
        weight: { configured: 10, override: 3, announced: 1 },
        checks: [{ check: 'checks[0].http', health: 'up', lastProbeMs: 12.6 }],
      }),
      service('web', { port: 8081, role: 'outgoing' }),
      service('api'),
    ]);

    const text = formatRegistered(all, 'web');
    assert.match(text, /^web: i-1 10\.0\.0\.5:8080 at \/services\/web, up, announced$/m);
    assert.match(text, /^ {2}weight 3, set by "tandem weight", 10 in its file, announced with 1 for now$/m);
    assert.match(text, /^checks\[0\]\.http +up +13ms$/m);
    assert.match(
      text,
      /^web: i-1 10\.0\.0\.5:8081 .*\n {2}leaves when its successor is announced\n\nno checks$/m,
    );
    assert.doesNotMatch(text, /api/);
    assert.throws(
      () => formatRegistered(all, 'wbe'),
      (error) => isTandemError(error, 'CONTROL_REFUSED') && /Did you mean "web"\?/.test(error.message),
    );
  });

  test('is fit for a terminal, whatever a service says', () => {
    const evil = '\u001b[2J\u202e';
    const checks = [{ check: 'checks[0].push', health: 'down', reason: evil } as const];
    const all = state([service('web', { checks })]);

    for (const text of [formatRegistrar(all), formatRegistered(all, 'web')]) assert.match(text, /^[\n -~]+$/);
  });

  test('is counted, each service once, for the eyes of systemd', () => {
    assert.equal(summarize([]), '0 services');
    assert.equal(summarize([service('web')]), '1 service: 1 announced');
    assert.equal(summarize([service('web')], 2), '1 service: 1 announced; 2 mistakes in service files');
    const all = [
      service('a'),
      service('b', { health: 'down', announced: false }),
      service('c', { health: 'down', announced: false, drained: ['file'] }),
      service('d', { announced: false, flapHold: { remainingMs: 1, count: 1 } }),
      service('e', { announced: false, rateLimitedForMs: 1 }),
      service('f', { announced: false, health: 'unknown' }),
      service('g', { announced: false, role: 'waiting' }),
      service('h'),
      service('i', { confirmed: false }),
    ];
    assert.equal(
      summarize(all),
      '9 services: 2 announced, 1 not confirmed, 1 down, 1 drained, 1 held down, 1 rate limited, 1 waiting, 1 undecided',
    );
  });
});

describe('the control socket of a registrar', () => {
  /** A registrar that notes what it is asked for. */
  function front(more: Partial<RegistrarFront['registrar']> = {}) {
    const asked: unknown[][] = [];
    const reports = createReports();
    const take = (name: string) => (ofWhat: string | undefined, what?: number) => {
      asked.push([name, ofWhat, ...(what === undefined ? [] : [what])]);
      return Promise.resolve({ ok: true, remembered: true } as const);
    };
    const registrar: RegistrarFront['registrar'] = {
      drain: take('drain'),
      undrain: take('undrain'),
      setWeight: take('weight'),
      agreed: () => Promise.resolve(),
      status: () => [service('web')],
      overdue: () => [],
      ...more,
    };
    const routes = registrarRoutes({
      registrar,
      reports,
      registry: { status: { state: 'connected' } },
      problems: () => [],
      started: Promise.resolve(),
    });
    const ask = async (
      method: string,
      path: string,
      body?: unknown,
      params: Record<string, string> = {},
    ): Promise<ControlAnswer> => {
      const route = routes.find((one) => one.method === method && one.path === path);
      assert.ok(route !== undefined, `${method} ${path}`);
      return route.answer({ params, body, signal: new AbortController().signal });
    };
    return { asked, ask, reports };
  }

  const ONE = '/v1/services/:service';
  const web = { service: 'web' };

  test('passes on what operators want of one service or of all', async () => {
    const { asked, ask } = front();

    await ask('PUT', `${ONE}/drain`, undefined, web);
    await ask('PUT', '/v1/drain', {});
    await ask('DELETE', `${ONE}/drain`, undefined, web);
    await ask('DELETE', '/v1/drain');
    await ask('PUT', `${ONE}/weight`, { weight: 0 }, web);
    await ask('DELETE', `${ONE}/weight`, undefined, web);

    assert.deepEqual(asked, [
      ['drain', 'web'],
      ['drain', undefined],
      ['undrain', 'web'],
      ['undrain', undefined],
      ['weight', 'web', 0],
      ['weight', 'web'],
    ]);
  });

  test('waits for the registry when asked to, and says whether it has confirmed', async () => {
    const confirmed = await front().ask('PUT', `${ONE}/drain`, { wait: '10s' }, web);
    assert.deepEqual(confirmed, { ok: true, body: { remembered: true, confirmed: true } });

    const silent = front({ agreed: () => new Promise(() => {}) });
    const late = await silent.ask('PUT', '/v1/drain', { wait: '50ms' });
    assert.deepEqual(late, { ok: true, body: { remembered: true, confirmed: false } });
  });

  test('refuses what makes no sense, and touches nothing', async () => {
    const { asked, ask } = front();
    const wrong: readonly (readonly [string, string, unknown])[] = [
      ['PUT', `${ONE}/drain`, { wait: 'long' }],
      ['PUT', `${ONE}/drain`, { wait: '11m' }],
      ['PUT', `${ONE}/drain`, { wiat: '1s' }],
      ['PUT', '/v1/drain', 'all'],
      ['PUT', `${ONE}/weight`, undefined],
      ['PUT', `${ONE}/weight`, { weight: -1 }],
      ['PUT', `${ONE}/weight`, { weight: '3' }],
      ['POST', `${ONE}/health`, undefined],
      ['POST', `${ONE}/health`, { status: 'fine' }],
    ];

    for (const [method, path, body] of wrong) {
      const answer = await ask(method, path, body, web);
      assert.ok(!answer.ok && answer.status === 400, `${method} ${path} ${JSON.stringify(body)}`);
    }
    assert.deepEqual(asked, []);
  });

  test('tells who reports for an unknown service, or one without such a check, what there is', async () => {
    const { ask, reports } = front();
    reports.open({ service: 'shop' }, 'disk');
    reports.open({ service: 'shop' }, 'queue');
    const report = (service: string, check?: string) =>
      ask('POST', `${ONE}/health`, { status: 'pass', check }, { service });

    assert.deepEqual(await report('shop', 'disk'), { ok: true, body: { check: 'disk' } });
    for (const [answer, code, says] of [
      [await report('shop'), 'UNKNOWN_CHECK', /name one of its push checks: disk, queue/],
      [await report('web'), 'NO_PUSH_CHECK', /Services that have one: shop/],
      [await report('wbe'), 'UNKNOWN_SERVICE', /Those that report themselves: shop/],
    ] as const) {
      assert.ok(!answer.ok);
      assert.equal(answer.code, code);
      assert.match(answer.message, says);
    }
  });
});
