import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  decodeNerveName,
  decodeNerveRecord,
  encodeNerveRecord,
  type Instance,
  nerveNamePrefix,
} from '@tandem/core';
import * as fc from 'fast-check';

const plain: Instance = { name: 'i-1234', host: '10.0.0.5', port: 3000 };
const ENCODED = 'base64_64_eyJob3N0IjoiMTAuMC4wLjUiLCJwb3J0IjozMDAwLCJuYW1lIjoiaS0xMjM0In0=_';

function decodeText(text: string) {
  return decodeNerveRecord(Buffer.from(text));
}
function refusal(text: string): string {
  const decoded = decodeText(text);
  return decoded.ok ? 'accepted' : decoded.reason;
}

const anyInstance: fc.Arbitrary<Instance> = fc.record(
  {
    name: fc.string({ unit: 'grapheme' }),
    host: fc.oneof(fc.ipV4(), fc.ipV6(), fc.domain()),
    port: fc.integer({ min: 1, max: 65_535 }),
    weight: fc.nat({ max: 1000 }),
    labels: fc.dictionary(fc.string(), fc.string({ unit: 'grapheme' }), { noNullPrototype: true }),
    haproxyServerOptions: fc.string(),
  },
  { requiredKeys: ['name', 'host', 'port'], noNullPrototype: true },
);

test('a record is written exactly as Nerve writes it', () => {
  assert.equal(encodeNerveRecord(plain), '{"host":"10.0.0.5","port":3000,"name":"i-1234"}');
  assert.equal(
    encodeNerveRecord({
      ...plain,
      labels: { az: 'us-east-1a', region: 'us-east-1' },
      haproxyServerOptions: 'backup',
      weight: 3,
    }),
    '{"host":"10.0.0.5","port":3000,"name":"i-1234","weight":3,"haproxy_server_options":"backup","labels":{"az":"us-east-1a","region":"us-east-1"}}',
  );
  assert.match(encodeNerveRecord({ ...plain, weight: 0 }), /"weight":0/);
});

test('a node is named as Nerve names it, with and without path encoding', () => {
  assert.equal(nerveNamePrefix(plain, { pathEncoding: false }), 'i-1234_');
  assert.equal(nerveNamePrefix(plain, { pathEncoding: true }), ENCODED);
});

test('a record too long for a name stays in the data alone', () => {
  const longest = (length: number) =>
    nerveNamePrefix({ ...plain, labels: { a: 'x'.repeat(length) } }, { pathEncoding: true });
  assert.equal(longest(60_000), 'i-1234_');
  assert.match(longest(40_000), /^base64_/);
  const lengths = fc.integer({ min: 49_000, max: 49_300 });
  fc.assert(
    fc.property(lengths, (length) => {
      const [, size] = longest(length).split('_');
      assert.ok(size === '' || Number(size) <= 65_536);
    }),
  );
});

test('a record is read with all it has, and without what nobody knows', () => {
  const text =
    '{"host":"h","port":1,"name":"n","weight":5,"labels":{"a":"b"},"haproxy_server_options":"backup","extra":1}';
  assert.deepEqual(decodeText(text), {
    ok: true,
    instance: {
      name: 'n',
      host: 'h',
      port: 1,
      weight: 5,
      labels: { a: 'b' },
      haproxyServerOptions: 'backup',
    },
  });
});

test('a record that cannot be an instance is set aside, with the reason', () => {
  assert.equal(refusal(''), 'the data is empty');
  assert.equal(refusal('{'), 'the data is not JSON');
  assert.equal(refusal('[1,2]'), 'the data is not a JSON object');
  assert.equal(refusal('null'), 'the data is not a JSON object');
  assert.equal(refusal('{"host":"h","name":"n"}'), 'port is missing or not a number from 1 to 65535');
  for (const port of ['0', '65536', '1.5', '"80a"', '"-1"', 'null', 'true', '[80]']) {
    assert.match(refusal(`{"host":"h","port":${port}}`), /^port is missing/, port);
  }
  for (const host of ['""', 'null', '7', '{}'])
    assert.match(refusal(`{"host":${host},"port":1}`), /^host is missing/);
});

test('what is odd but harmless is read as far as it makes sense', () => {
  assert.deepEqual(decodeText('{"host":"h","port":"3000","name":null,"weight":1.5,"labels":null}'), {
    ok: true,
    instance: { name: '', host: 'h', port: 3000 },
  });
  assert.deepEqual(
    decodeText('{"host":"h","port":1,"name":"n","weight":"x","labels":{"a":1,"b":true,"c":[]}}'),
    {
      ok: true,
      instance: { name: 'n', host: 'h', port: 1, labels: { a: '1', b: 'true' } },
    },
  );
});

test('a name with path encoding is read by itself, with a sequence number, an open end or none', () => {
  for (const name of [`${ENCODED}0000000003`, ENCODED, ENCODED.slice(0, -1)]) {
    assert.deepEqual(decodeNerveName(name), { ok: true, instance: plain }, name);
  }
});

test('a name that only looks encoded, or a plain one, sends the reader to the data', () => {
  const [, , record = ''] = ENCODED.split('_');
  for (const name of [
    'i-1_0000000042',
    'i-1_',
    '42',
    '',
    'base64_junk',
    'base64_',
    `base64_0_${record}_0000000003`,
    `base64_65_${record}`,
    `base64_12_${record}_0000000003`,
    `base64__${record}_`,
    `base64_4_!!!!_`,
    'base64_4_bm9w_',
  ]) {
    assert.equal(decodeNerveName(name), undefined, name);
  }
});

test('an instance survives the way to the registry and back, in the data and in the name', () => {
  fc.assert(
    fc.property(anyInstance, fc.nat({ max: 9_999_999_999 }), (instance, sequence) => {
      assert.deepEqual(decodeText(encodeNerveRecord(instance)), { ok: true, instance });
      const name = nerveNamePrefix(instance, { pathEncoding: true }) + String(sequence).padStart(10, '0');
      assert.deepEqual(decodeNerveName(name), { ok: true, instance });
    }),
  );
});

test('no bytes and no name ever make the decoder throw', () => {
  const json = fc.json({ maxDepth: 2 }).map((text) => Buffer.from(text));
  const almost = fc
    .record({
      host: fc.jsonValue({ maxDepth: 1 }),
      port: fc.jsonValue({ maxDepth: 1 }),
      name: fc.jsonValue({ maxDepth: 1 }),
      weight: fc.jsonValue({ maxDepth: 1 }),
      labels: fc.jsonValue({ maxDepth: 1 }),
    })
    .map((record) => Buffer.from(JSON.stringify(record)));
  const bytes = fc.oneof(
    fc.uint8Array().map((array) => Buffer.from(array)),
    json,
    almost,
  );
  fc.assert(fc.property(bytes, (buffer) => typeof decodeNerveRecord(buffer).ok === 'boolean'));
  const encodedBytes = bytes.map((buffer) => {
    const text = buffer.toString('base64url');
    return `base64_${text.length}_${text}_0000000001`;
  });
  const names = fc.oneof(
    fc.string({ unit: 'grapheme' }),
    fc.uint16Array().map((units) => String.fromCharCode(...units)),
    fc.string().map((text) => `base64_${text}`),
    encodedBytes,
  );
  fc.assert(
    fc.property(names, (name) => {
      const decoded = decodeNerveName(name);
      assert.ok(decoded === undefined || decoded.ok);
    }),
  );
});
