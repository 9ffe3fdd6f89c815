import assert from 'node:assert/strict';
import { test } from 'node:test';

import { DiscoverSection, HaproxySection } from '@tandem/discovery';

function listenOf(listen: unknown): string | undefined {
  return DiscoverSection.safeParse({ listen }).data?.listen;
}

test('listen takes a port, an address with a port, and nothing else', () => {
  for (const [written, meant] of [
    [3210, '127.0.0.1:3210'],
    ['3210', '127.0.0.1:3210'],
    ['localhost:80', '127.0.0.1:80'],
    ['0.0.0.0:80', '0.0.0.0:80'],
    ['*:80', '*:80'],
    ['[::1]:080', '[::1]:80'],
  ])
    assert.equal(listenOf(written), meant);
  for (const wrong of [
    '',
    ':80',
    '0',
    '65536',
    '80 ssl',
    '80\n',
    '127.1:80',
    'web:80',
    '::1:80',
    '[x]:80',
    '1.2.3.4:',
    '$X:80',
    -1,
    1.5,
    null,
  ])
    assert.equal(listenOf(wrong), undefined, String(wrong));
});

test('a service file without more than listen has the defaults', () => {
  const config = DiscoverSection.parse({ listen: 80 });
  assert.equal(config.listen, '127.0.0.1:80');
  assert.equal(config.mode, 'http');
  assert.equal(config.balance, undefined);
  assert.equal(config.serverOptions, '');
  assert.equal(config.allowEmpty, false);
  assert.deepEqual(config.source, { kind: 'registry' });
  assert.deepEqual(config.format, { kind: 'nerve' });
});

test('server options are words, and leave to Tandem what is Tandem’s', () => {
  const optionsOf = (server_options: string) =>
    DiscoverSection.safeParse({ listen: 80, server_options }).data?.serverOptions;
  assert.equal(optionsOf('  check   inter 2s '), 'check inter 2s');
  assert.equal(
    optionsOf('sni str-weight check-sni id.example.com'),
    'sni str-weight check-sni id.example.com',
  );
  for (const wrong of [
    'check\ninter',
    'check;x',
    'check # x',
    '${X}',
    '"x"',
    'a\\b',
    'id 3',
    'weight 3',
    'disabled',
    'check enabled',
    '<<',
  ])
    assert.equal(optionsOf(wrong), undefined, wrong);
});

test('balance takes only algorithms that take servers at run time', () => {
  for (const balance of ['static-rr', 'source uri', 'hdr', 'hdr(x) y', ''])
    assert.equal(DiscoverSection.safeParse({ listen: 80, balance }).success, false, balance);
});

test('an empty haproxy section has defaults, and the master socket lies beside the runtime socket', () => {
  const config = HaproxySection.parse({});
  assert.equal(config.runtimeSocket, '/run/tandem/haproxy.sock');
  assert.equal(config.masterSocket, '/run/tandem/haproxy-master.sock');
  assert.equal(config.onExit, 'keep');
  assert.equal(HaproxySection.parse({ runtime_socket: '/a.b/socket' }).masterSocket, '/a.b/socket-master');
});

test('what would be another line, another option or too long for a socket is refused', () => {
  for (const wrong of [
    { global: ['maxconn 1\nmaxconn 2'] },
    { defaults: ['a\rb'] },
    { extra_sections: { 'listen x\nlisten y': [] } },
    { extra_sections: { 'listen x': ['a\0'] } },
    { runtime_socket: '/run/a b.sock' },
    { runtime_socket: '/run/a,b.sock' },
    { master_socket: '/run/a#b.sock' },
    { runtime_socket: `/${'x'.repeat(88)}` },
    { master_socket: `/${'x'.repeat(95)}` },
    { mode: 'external' },
    { on_exit: 'crash' },
    { reload_deadline: '1ms' },
    { binary: '' },
    { colour: 'red' },
  ])
    assert.equal(HaproxySection.safeParse(wrong).success, false, JSON.stringify(wrong));
  const longest = HaproxySection.parse({ runtime_socket: `/${'x'.repeat(87)}` });
  assert.equal(longest.masterSocket.length, 95);
});

test('instances are read as Nerve writes them, or as a serverset, which may have endpoints', () => {
  const formatOf = (section: object) => DiscoverSection.safeParse({ listen: 80, ...section }).data?.format;
  assert.deepEqual(formatOf({ format: 'serverset' }), { kind: 'serverset' });
  assert.deepEqual(formatOf({ format: 'serverset', endpoint: 'http' }), {
    kind: 'serverset',
    endpoint: 'http',
  });
  for (const wrong of [{ endpoint: 'http' }, { format: 'finagle' }, { format: 'serverset', endpoint: '' }])
    assert.equal(formatOf(wrong), undefined, JSON.stringify(wrong));
});

test('hosts are names or addresses, written in whatever case', () => {
  const hostsOf = (...hosts: string[]) =>
    DiscoverSection.safeParse({ shared_frontend: 'web', hosts }).data?.hosts;
  assert.deepEqual(hostsOf('API.example.com', '10.0.0.5', '[2001:DB8::1]', 'my_service', 'x'), [
    'api.example.com',
    '10.0.0.5',
    '[2001:db8::1]',
    'my_service',
    'x',
  ]);
  for (const wrong of ['', 'a b', 'a:80', '.a', 'a.', 'a\n', '#a', '*.a', '::1', '[x]', 'a/b', 'ü', 'a;b'])
    assert.equal(hostsOf(wrong), undefined, wrong);
});

test('the keys of routing have to fit together', () => {
  const section = (keys: Record<string, unknown>) => DiscoverSection.safeParse(keys).success;
  assert.ok(section({}));
  assert.ok(section({ listen: '/run/web.sock', bind_options: 'mode 666' }));
  assert.ok(section({ listen: 80, shared_frontend: 'web', hosts: ['a'] }));
  assert.ok(section({ listen: 80, frontend: ['http-request deny'] }));
  for (const wrong of [
    { shared_frontend: 'web' },
    { hosts: ['a'] },
    { shared_frontend: 'web', hosts: ['a'], mode: 'tcp' },
    { listen: 80, gate: { first_check: '1s' } },
    { listen: '/run/a b' },
    { listen: 'run/web.sock' },
    { listen: 80, bind_options: 'a;b' },
    { listen: 80, frontend: ['a\nb'] },
    { frontend: ['http-request deny'] },
    { shared_frontend: 'web', hosts: ['a'], frontend: ['http-request deny'] },
    { shared_frontend: 'web', hosts: ['a'], bind_options: 'accept-proxy' },
  ])
    assert.equal(section(wrong), false, JSON.stringify(wrong));
});

test('lines that would make servers which are not those at run time are refused, with what to use', () => {
  const messageOf = (line: string) =>
    DiscoverSection.safeParse({ listen: 80, backend: [line] }).error?.issues[0]?.message;
  assert.match(messageOf('server mine 127.0.0.1:9 backup') ?? '', /fallback/);
  assert.match(messageOf('  server-template web 3 10.0.0.1:80') ?? '', /fallback/);
  assert.match(messageOf('"default-server" check') ?? '', /server_options/);
  for (const line of ['server-state-file-name x', 'http-send-name-header x-server', 'option httpchk'])
    assert.equal(messageOf(line), undefined, line);
  const [issue] =
    HaproxySection.safeParse({ defaults: ['option httplog', 'default-server check'] }).error?.issues ?? [];
  assert.equal(issue?.path.join('.'), 'defaults.1');
  assert.match(issue?.message ?? '', /server_options/);
});

test('a key that the mode gives no effect is refused', () => {
  const keysOf = (section: Record<string, unknown>) =>
    HaproxySection.safeParse(section).error?.issues.map(({ path }) => path.join('.')) ?? [];
  const reload = { command: ['true'] };
  assert.deepEqual(keysOf({ mode: 'external', reload }), []);
  assert.deepEqual(keysOf({ on_exit: 'stop', master_socket: '/run/m.sock' }), []);
  assert.deepEqual(keysOf({ mode: 'external', reload, on_exit: 'stop' }), ['on_exit']);
  assert.deepEqual(keysOf({ mode: 'external', reload, master_socket: '/run/m.sock' }), ['master_socket']);
  assert.deepEqual(keysOf({ mode: 'external' }), ['reload']);
  assert.deepEqual(keysOf({ reload }), ['reload']);
});

test('shared frontends, ranges and sections that would meet are refused, with the key', () => {
  const complaint = (settings: Record<string, unknown>) => {
    const parsed = HaproxySection.safeParse(settings);
    const [issue] = parsed.error?.issues ?? [];
    return issue === undefined ? 'none' : `${issue.path.join('.')}: ${issue.message}`;
  };
  assert.equal(
    complaint({
      shared_frontends: { a: { listen: 80 }, b: { listen: [81, '/run/b.sock'] } },
      port_range: { http: '21000-21009', tcp: '22000-22009' },
      extra_sections: { 'listen stats': [], 'backend a': [], 'userlist x': [] },
    }),
    'none',
  );
  for (const [settings, expected] of [
    [
      { shared_frontends: { a: { listen: 80 }, b: { listen: 80 } } },
      /^shared_frontends\.b\.listen: .*frontend a/,
    ],
    [{ shared_frontends: { 'tandem-x': { listen: 80 } } }, /^shared_frontends\.tandem-x: is a name/],
    [{ shared_frontends: { 'ports-http': { listen: 80 } } }, /^shared_frontends\.ports-http: is a name/],
    [
      { shared_frontends: { a: { listen: 21_003 } }, port_range: { http: '21000-21009' } },
      /^shared_frontends\.a\.listen: 127\.0\.0\.1:21003 is one of the ports/,
    ],
    [{ extra_sections: { global: [] } }, /^extra_sections\.global: would be a second global section/],
    [{ extra_sections: { ' global ': [] } }, /second global section/],
    [{ extra_sections: { 'defaults mine': [] } }, /Use haproxy\.defaults$/],
    [{ extra_sections: { 'backend tandem-spare-http-1': [] } }, /starts with tandem-$/],
    [
      { extra_sections: { 'listen  a': [] }, shared_frontends: { a: { listen: 80 } } },
      /the name of a frontend/,
    ],
    [{ port_range: {} }, /^port_range: needs http or tcp ports/],
    [{ port_range: { http: '5-4' } }, /lowest first/],
    [{ port_range: { http: '1-9', tcp: '9-10' } }, /in both ranges/],
  ] as const)
    assert.match(complaint(settings), expected);
});
