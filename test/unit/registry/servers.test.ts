import assert from 'node:assert/strict';
import { test } from 'node:test';

import { explainServer, parseServer } from '@tandem/registry/testing';

for (const [text, host, port] of [
  ['zk1', 'zk1', 2181],
  ['zk1:2182', 'zk1', 2182],
  ['zk-1.example.com:1', 'zk-1.example.com', 1],
  ['10.0.0.1', '10.0.0.1', 2181],
  ['10.0.0.1:65535', '10.0.0.1', 65_535],
  ['[2001:db8::1]:2182', '2001:db8::1', 2182],
  ['[::1]', '::1', 2181],
  ['2001:db8::1', '2001:db8::1', 2181],
] as const) {
  test(`servers: ${text} is ${host} on port ${port}`, () => {
    assert.deepEqual(parseServer(text), { host, port });
  });
}

for (const text of [
  '',
  ' ',
  'zk1:',
  ':2181',
  'zk1:0',
  'zk1:65536',
  'zk1:99999',
  'zk1:abc',
  'zk1:-1',
  ' zk1',
  'zk1 ',
  'zk1,zk2',
  'zk1:2181/chroot',
  'zk_1',
  '-zk1',
  'zk1-',
  '[::1',
  '::1]',
  '[zk1]:2181',
  '[10.0.0.1]:2181',
  '[::1]:',
  'zk1\n:2181',
]) {
  test(`servers: ${JSON.stringify(text)} is none`, () => {
    assert.equal(parseServer(text), undefined);
  });
}

for (const [text, reason, remedy] of [
  [
    'zk1:2181/smartstack/eu',
    /without a path/,
    /^Write zk1:2181, and set chroot: \/smartstack\/eu beside servers$/,
  ],
  ['zk1:2181/', /without a path/, /^Write zk1:2181$/],
  ['zk1:2181,zk2:2181/a', /one server/, /entry of its own/],
  ['zk://zk1:2181', /not a URL/, /zk1:2181/],
  ['zk1:99999', /port from 1 to 65535/, /2181/],
  ['[::1]:0', /port from 1 to 65535/, /2181/],
  ['zk_1', /such as zk1:2181/, /name or an address/],
] as const) {
  test(`servers: who writes ${text} is told what to write instead`, () => {
    const told = explainServer(text);
    assert.match(told.reason, reason);
    assert.match(told.remedy, remedy);
  });
}
