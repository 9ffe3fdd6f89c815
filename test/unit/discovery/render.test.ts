import assert from 'node:assert/strict';
import { test } from 'node:test';

import { buildStructure, renderConfig, renderSample } from '@tandem/discovery';

import { service } from '../../support/haproxy.ts';
import { HAPROXY, membersOf, structureOf } from './support.ts';

const LISTEN = '127.0.0.1:3210';
const A = { name: 'a', host: '10.0.0.1', port: 80 };
const B = { name: 'b', host: '2001:db8::1', port: 81, weight: 9 };

function lines(text: string): string[] {
  return text.split('\n').map((line) => line.trim());
}

test('equal input gives equal bytes, with a newline at the end', () => {
  const render = () => renderConfig(structureOf(), membersOf([A, B])).text;
  assert.equal(render(), render());
  assert.match(render(), /[^\n]\n$/);
});

test('the order of services changes nothing', () => {
  const [web, api] = [service('web', LISTEN), service('api', '127.0.0.1:3211')];
  assert.deepEqual(
    renderConfig(structureOf([web, api]), new Map()),
    renderConfig(structureOf([api, web]), new Map()),
  );
});

test('the lines that matter', () => {
  const { text, mark } = renderConfig(
    structureOf([service('web', LISTEN, { balance: 'leastconn', server_options: 'check inter 2s' })]),
    membersOf([A, B]),
  );
  const all = lines(text);
  for (const line of [
    `description ${mark}`,
    'stats socket /run/tandem/haproxy.sock mode 660 level admin expose-fd listeners',
    'frontend web',
    `bind ${LISTEN}`,
    'option idle-close-on-response',
    'default_backend web',
    'backend web',
    'balance leastconn',
  ])
    assert.ok(all.includes(line), line);
  const [first, second, ...more] = all.filter((line) => line.startsWith('server '));
  assert.match(
    first ?? '',
    /^server a_10\.0\.0\.1:80 10\.0\.0\.1:80 id \d+ weight 1 pool-purge-delay 5s pool-max-conn -1 check inter 2s$/,
  );
  assert.match(
    second ?? '',
    /^server b_2001:db8::1:81 \[2001:db8::1\]:81 id \d+ weight 9 .* check inter 2s$/,
  );
  assert.equal(more.length, 0);
});

test('a tcp service has no line that only http knows', () => {
  const all = lines(renderConfig(structureOf([service('db', LISTEN, { mode: 'tcp' })]), new Map()).text);
  assert.ok(all.includes('mode tcp'));
  assert.ok(!all.some((line) => /^(http-request|retry-on|option idle-close)/.test(line)));
});

test("the host's own lines and sections stand in the file as they were written", () => {
  const structure = buildStructure(
    {
      ...HAPROXY,
      global: ['maxconn 999'],
      defaults: ['timeout tunnel 1h'],
      extraSections: { 'listen stats': ['bind "quoted & <raw>"'] },
    },
    [],
  );
  const { text } = renderConfig(structure, new Map());
  assert.match(text, /^global\n(?: {2}.*\n)* {2}maxconn 999\n/m);
  assert.match(text, /^defaults\n(?: {2}.*\n)* {2}timeout tunnel 1h\n/m);
  assert.match(text, /^listen stats\n {2}bind "quoted & <raw>"\n/m);
});

test('the mark says nothing of membership, and something of everything that needs a reload', () => {
  const base = structureOf();
  const mark = renderConfig(base, new Map()).mark;
  assert.match(mark, /^tandem [0-9a-f]{16}$/);
  assert.equal(renderConfig(structureOf(), membersOf([A, B])).mark, mark);

  const others = [
    { ...base, runtimeSocket: '/run/other.sock' },
    { ...base, global: ['maxconn 1'] },
    { ...base, defaults: ['maxconn 1'] },
    { ...base, extraSections: { 'listen x': [] } },
    { ...base, extraSections: { 'listen x': ['mode tcp'] } },
    { ...base, proxies: [] },
    ...[
      service('other', LISTEN),
      service('web', '127.0.0.1:3211'),
      service('web', LISTEN, { mode: 'tcp' }),
      service('web', LISTEN, { balance: 'first' }),
      service('web', LISTEN, { server_options: 'check' }),
    ].map((one) => structureOf([one])),
  ].map((structure) => renderConfig(structure, new Map()).mark);
  assert.equal(new Set([mark, ...others]).size, others.length + 1);
});

test('a sample has a server in every backend, with its options and the mark', () => {
  const structure = structureOf([
    service('web', LISTEN, { server_options: 'check' }),
    service('api', 'localhost:1'),
  ]);
  const text = renderSample(structure);
  assert.equal([...text.matchAll(/^ {2}server sample .*$/gm)].length, 2);
  assert.match(text, /^ {2}server sample 127\.0\.0\.1:1 id 1 weight 1 .* check$/m);
  assert.ok(text.includes(renderConfig(structure, new Map()).mark));
});
