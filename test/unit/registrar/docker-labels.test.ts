import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { RegisterSection } from '@tandem/registrar';
import { type FoundContainer, type LabelOptions, readContainer } from '@tandem/registrar/testing';
import * as fc from 'fast-check';

const OPTIONS: LabelOptions = {
  address: '10.0.0.5',
  allowCommands: false,
  pathOf: (service) => `/services/${service}`,
};

function published(inside: number, outside: number, IP = '0.0.0.0') {
  return { IP, PrivatePort: inside, PublicPort: outside, Type: 'tcp' };
}

function container(
  labels: Readonly<Record<string, unknown>>,
  changes: Partial<FoundContainer> = {},
): FoundContainer {
  return {
    id: '4c91be4b51c3'.padEnd(64, '0'),
    name: 'web-1',
    labels,
    health: 'none',
    isOnHost: false,
    ports: [published(8080, 32_001), published(9000, 32_002)],
    ...changes,
  };
}

function prefixed(labels: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(labels).map(([key, value]) => [`tandem.${key}`, value]));
}

/** A container that is in order but for these labels. */
function read(
  labels: Readonly<Record<string, string>>,
  changes: Partial<FoundContainer> = {},
  options: Partial<LabelOptions> = {},
) {
  const all = prefixed({ service: 'payments', port: '8080', ...labels });
  return readContainer(container(all, changes), { ...OPTIONS, ...options });
}

/** What the labels register, which must be all right. */
function configOf(...args: Parameters<typeof read>) {
  const { registrations, problems } = read(...args);
  assert.deepEqual(problems, []);
  assert.equal(registrations.length, 1);
  return registrations[0]?.config;
}

function problemsOf(...args: Parameters<typeof read>): string[] {
  const { registrations, problems } = read(...args);
  assert.deepEqual(registrations, []);
  for (const { container } of problems) assert.equal(container, 'web-1');
  return problems.map(({ label, reason, remedy = '' }) => `${label} ${reason}. ${remedy}`);
}

/** What the same service would be in a file. */
function sectionOf(register: Record<string, unknown>) {
  return RegisterSection.parse({ port: 32_001, ...register });
}

describe('the labels of a container', () => {
  test('name the service and the port inside; it is announced where the host publishes that', () => {
    assert.deepEqual(read({}).registrations, [
      {
        service: 'payments',
        path: '/services/payments',
        config: sectionOf({}),
        origin: 'container web-1 (4c91be4b51c3)',
      },
    ]);
    assert.equal(read({ path: '/other/pay' }).registrations[0]?.path, '/other/pay');
  });

  test('say what the register section of a service file says, with numbers and booleans where it wants them', () => {
    for (const [labels, register] of [
      [{ weight: '10' }, { weight: 10 }],
      [{ 'labels.version': '1.4' }, { labels: { version: '1.4' } }],
      [{ 'labels.canary': 'true', 'labels.n': '7' }, { labels: { canary: 'true', n: '7' } }],
      [{ 'labels.com.example.team': 'a b' }, { labels: { 'com.example.team': 'a b' } }],
      [{ path_encoding: 'true' }, { path_encoding: true }],
      [
        { format: 'serverset', endpoint: 'http' },
        { format: 'serverset', endpoint: 'http' },
      ],
      [{ 'check.tcp': '' }, { checks: [{ tcp: {} }] }],
      [{ 'check.tcp': 'true' }, { checks: [{ tcp: {} }] }],
      [{ 'check.tcp': '', 'check.tcp.rise': '2' }, { checks: [{ tcp: { rise: 2 } }] }],
      [
        { 'check.http.path': '/health', 'check.http.interval': '2s', 'check.http.fall': '3' },
        { checks: [{ http: { path: '/health', interval: '2s', fall: 3 } }] },
      ],
      [
        { 'check.http.path': '/', 'check.http.expect_status': '204' },
        { checks: [{ http: { path: '/', expect_status: 204 } }] },
      ],
      [
        { 'check.http.path': '/', 'check.http.expect_status': '200, 204' },
        { checks: [{ http: { path: '/', expect_status: [200, 204] } }] },
      ],
      [
        { 'check.http.path': '/', 'check.http.tls': 'true', 'check.http.http_version': '2' },
        { checks: [{ http: { path: '/', tls: true, http_version: 2 } }] },
      ],
      [
        {
          'check.http.path': '/',
          'check.http.tls.verify': 'false',
          'check.http.expect_status': '200-204,302',
        },
        { checks: [{ http: { path: '/', tls: { verify: false }, expect_status: ['200-204', 302] } }] },
      ],
      [
        { 'check.http.path': '/', 'check.http.headers.X-Probe': '1' },
        { checks: [{ http: { path: '/', headers: { 'X-Probe': '1' } } }] },
      ],
      [
        { 'check.1.http.path': '/a', 'check.2.http.path': '/b', 'check.tcp': '' },
        { checks: [{ http: { path: '/a' } }, { http: { path: '/b' } }, { tcp: {} }] },
      ],
    ] as const) {
      assert.deepEqual(configOf(labels), sectionOf(register), JSON.stringify(labels));
    }
  });

  test('a mistake is told with its label, the reason and what to do, and in the words of a service file', () => {
    for (const [labels, expected] of [
      [{ service: 'pay ments' }, /^tandem\.service must start with a letter .*found "pay ments"/],
      [{ path: 'services' }, /^tandem\.path must be an absolute path/],
      [{ port: 'http' }, /^tandem\.port must be a port, 1 to 65535, found "http"/],
      [{ port: '0' }, /^tandem\.port must be a port/],
      [{ port: '0x50' }, /^tandem\.port must be a port/],
      [{ port: '70' }, /^tandem\.port 70\/tcp is published nowhere .*\. Publish it \(docker run -p 70\)/],
      [{ weight: 'ten' }, /^tandem\.weight must be a number, found "ten"/],
      [{ weight: '1.5' }, /^tandem\.weight /],
      [{ weight: '1e2' }, /^tandem\.weight /],
      [{ weight: '900' }, /^tandem\.weight must be at most 256/],
      [{ weigth: '1' }, /^tandem "weigth" is not known here\. .*Did you mean "weight"\?/],
      [
        { 'check.http.intervall': '1s', 'check.http.path': '/' },
        /^tandem\.check\.http .*Did you mean "interval"\?/,
      ],
      [{ 'check.http.interval': '1s' }, /^tandem\.check\.http\.path is required but missing/],
      [{ 'check.3.http.path': 'x' }, /^tandem\.check\.3\.http\.path must begin with "\/"/],
      [{ 'check.htpp.path': '/' }, /Did you mean "http"\?/],
      [{ 'check.tcp': 'yes' }, /^tandem\.check\.tcp takes no value\. Leave it empty/],
      [{ 'check.tcp.port': '70' }, /^tandem\.check\.tcp\.port 70\/tcp is published nowhere/],
      [{ check: 'http' }, /^tandem\.check names no kind of check\. Write tandem\.check\.KIND\.KEY/],
      [{ 'checks.0.tcp': '' }, /^tandem\.checks\.0\.tcp is not known here\. Write tandem\.check\.KIND\.KEY/],
      [{ 'check.container': 'no' }, /^tandem\.check\.container must be true or false, found "no"/],
      [{ labels: 'a=b' }, /^tandem\.labels must be a map of keys, found "a=b"/],
      [
        { 'check.http.path': '/', 'check.http.path.x': '' },
        /^tandem\.check\.http\.path\.x goes on where another/,
      ],
      [{ 'labels.a': 'x\ny' }, /^tandem\.labels\.a holds control characters/],
      [{ 'labels.a': 'x'.repeat(2_000) }, /^tandem\.labels\.a has a value of more than 1024 characters/],
      [{ 'check.http.__proto__.x': '1' }, /is not made of words/],
      [{ 'check.http.pa th': '/' }, /is not made of words/],
      [{ 'a..b': '' }, /is not made of words/],
    ] as const) {
      const problems = problemsOf(labels);
      assert.equal(problems.length, 1, JSON.stringify(problems));
      assert.match(problems[0] ?? '', expected);
    }
    const nameless = readContainer(container({ 'tandem.port': '80' }), OPTIONS).problems;
    assert.deepEqual(nameless, [
      {
        container: 'web-1',
        label: 'tandem.service',
        reason: 'is required but missing',
        remedy: 'Name the service with it',
      },
    ]);
    const portless = readContainer(container({ 'tandem.service': 'x' }), OPTIONS).problems;
    assert.match(JSON.stringify(portless), /tandem\.port.*required.*port inside of the container/);
    const many = prefixed(
      Object.fromEntries(Array.from({ length: 201 }, (_, index) => [`labels.l${index}`, ''])),
    );
    assert.match(
      JSON.stringify(readContainer(container(many), OPTIONS).problems),
      /are 201, and at most 200/,
    );
  });

  test('a label must not run programs, read files, or call other hosts', () => {
    for (const [labels, expected] of [
      [{ 'check.command.command': '/bin/true' }, /runs a program on the host, .*allow_commands: true/],
      [{ 'check.http.tls.ca_file': '/etc/shadow', 'check.http.path': '/' }, /names a file of the host/],
      [{ 'check.redis.password_file': '/etc/shadow' }, /names a file of the host/],
      [{ drain_file: '/tmp/x' }, /names a file of the host/],
      [{ 'check.tcp.host': '169.254.169.254' }, /host must be a loopback address or 10\.0\.0\.5, found/],
      [{ 'check.http.host': 'metadata.test', 'check.http.path': '/' }, /must be a loopback address/],
      [{ 'check.push.ttl': '3s' }, /knows services by their names only.*HEALTHCHECK/],
    ] as const) {
      const problems = problemsOf(labels);
      assert.equal(problems.length, 1, JSON.stringify(problems));
      assert.match(problems[0] ?? '', expected);
    }
    for (const [text, command] of [
      ['/bin/true', ['/bin/true']],
      ['/bin/test,-e,/x', ['/bin/test', '-e', '/x']],
      ['["/bin/echo", "a, b", "1"]', ['/bin/echo', 'a, b', '1']],
    ] as const) {
      const config = configOf({ 'check.command.command': text }, {}, { allowCommands: true });
      assert.deepEqual(config, sectionOf({ checks: [{ command: { command } }] }));
    }
  });

  test('checks go to where the container is reached', () => {
    const portOf = (check: Record<string, string>, changes: Partial<FoundContainer> = {}) =>
      configOf({ 'check.tcp': '', ...check }, changes)?.checks[0]?.options as { host: string; port?: number };
    assert.equal(portOf({}).host, '127.0.0.1');
    assert.equal(portOf({}).port, undefined);
    assert.equal(portOf({ 'check.tcp.port': '9000' }).port, 32_002);
    assert.equal(portOf({ 'check.tcp.host': '127.0.0.9' }).host, '127.0.0.9');
    const ports = [published(8080, 32_001, '10.0.0.5')];
    assert.equal(portOf({}, { ports }).host, '10.0.0.5');
    assert.equal(portOf({}, { ports: [published(8080, 32_001, '::')] }).host, '::1');
    const onHost = portOf({ 'check.tcp.port': '9000' }, { isOnHost: true, ports: [] });
    assert.deepEqual([onHost.host, onHost.port], ['127.0.0.1', 9000]);
  });

  test('on the network of the host a port is that of the host; one that only this host reaches is no place', () => {
    assert.equal(configOf({}, { isOnHost: true, ports: [] })?.port, 8080);
    assert.match(String(problemsOf({}, { ports: [published(8080, 1, '127.0.0.1')] })), /published nowhere/);
    assert.match(String(problemsOf({}, { ports: null })), /published nowhere/);
  });

  test('the health check of a container is a check of its service, unless a label says otherwise', () => {
    const findingOf = (health: FoundContainer['health'], labels = {}) =>
      read(labels, { health }).registrations[0]?.finding;
    assert.equal(findingOf('none'), undefined);
    assert.deepEqual(findingOf('healthy'), { check: 'container', health: 'up' });
    assert.deepEqual(findingOf('starting'), { check: 'container', health: 'unknown' });
    assert.deepEqual(findingOf('unhealthy'), {
      check: 'container',
      health: 'down',
      reason: 'the container is unhealthy',
    });
    assert.equal(findingOf('unhealthy', { 'check.container': 'false' }), undefined);
    assert.equal(findingOf('unhealthy', { 'check.container': 'true' })?.health, 'down');
  });

  test('numbers tell several services of one container apart, and a mistake in one costs that one', () => {
    const { registrations, problems } = readContainer(
      container({
        'tandem.service': 'web',
        'tandem.port': '8080',
        'tandem.1.service': 'admin',
        'tandem.1.port': '9000',
        'tandem.1.check.tcp': '',
        'tandem.2.service': 'broken',
        'tandem.2.port': '1',
        'com.example.tandem.3.service': 'foreign',
      }),
      OPTIONS,
    );
    assert.deepEqual(
      registrations.map(({ service, config, origin }) => [service, config.port, origin]),
      [
        ['admin', 32_002, 'container web-1 (4c91be4b51c3), tandem.1'],
        ['web', 32_001, 'container web-1 (4c91be4b51c3)'],
      ],
    );
    assert.deepEqual(
      problems.map(({ label }) => label),
      ['tandem.2.port'],
    );
  });

  test('whatever labels hold, they are read without an exception, as data, and within limits', () => {
    const part = fc.oneof(
      fc.constantFrom(
        'service',
        'port',
        'check',
        'http',
        'tcp',
        'command',
        'path',
        'labels',
        'tls',
        'ca_file',
        '1',
        '',
        'weight',
      ),
      fc.constantFrom(
        '__proto__',
        'constructor',
        'toString',
        '<<',
        '*a',
        '&a',
        'checks',
        'host',
        'headers',
        'container',
      ),
      fc.string({ maxLength: 6 }),
    );
    const key = fc.array(part, { maxLength: 5 }).map((parts) => `tandem.${parts.join('.')}`);
    const value = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.constantFrom(
        '8080',
        'true',
        '',
        '[',
        '[1,[2]]',
        '!!js/function x',
        '*a',
        '${x}',
        '1s',
        '/',
        '__proto__',
        'payments',
      ),
      fc.constantFrom(null, 5, {}, []),
    );
    const labels = fc.array(fc.tuple(key, value), { maxLength: 20 });
    fc.assert(
      fc.property(labels, fc.boolean(), (entries, isWhole) => {
        const base = isWhole ? { 'tandem.service': 'web', 'tandem.port': '8080' } : {};
        const all = Object.fromEntries([...Object.entries(base), ...entries]) as Record<string, unknown>;
        const { registrations, problems } = readContainer(container(all), OPTIONS);
        assert.ok(registrations.length <= 100);
        for (const { config, service } of registrations) {
          assert.match(service, /^[A-Za-z0-9][A-Za-z0-9_.-]*$/);
          assert.ok(config.port === 32_001 || config.port === 32_002);
          assert.ok(config.checks.every(({ kind }) => (kind as string) !== 'command'));
          for (const text of Object.values(config.labels)) assert.doesNotMatch(text, /\p{Cc}/u);
        }
        for (const { label } of problems) assert.doesNotMatch(label, /\p{Cc}/u);
        assert.equal(({} as Record<string, unknown>)['polluted'], undefined);
        assert.deepEqual(Object.keys(Object.prototype), []);
      }),
      { numRuns: 2_000 },
    );
  });
});
