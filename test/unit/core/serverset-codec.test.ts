import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { codecFor, type Instance, isRecordOf, mayHoldRecordOf } from '@tandem/core';
import * as fc from 'fast-check';

const plain = codecFor({ kind: 'serverset' });
const http = codecFor({ kind: 'serverset', endpoint: 'http' });
const nerve = codecFor();
const ENCODED = 'base64_64_eyJob3N0IjoiMTAuMC4wLjUiLCJwb3J0IjozMDAwLCJuYW1lIjoiaS0xMjM0In0=_';

function decode(record: unknown, codec = plain) {
  return codec.decodeRecord(Buffer.from(typeof record === 'string' ? record : JSON.stringify(record)));
}
function refusal(record: unknown, codec = plain): string {
  const decoded = decode(record, codec);
  return decoded.ok ? 'accepted' : decoded.reason;
}
function instance(name: string, host = '10.0.0.5', port = 3000): Instance {
  return { name, host, port };
}

describe('serverset codec', () => {
  test('a member is written as Finagle writes it, with a shard where the name is one', () => {
    const rich = {
      ...instance('7'),
      weight: 3,
      labels: { zone: 'a' },
      haproxyServerOptions: 'backup',
    };
    for (const [codec, of, record] of [
      [
        plain,
        rich,
        '{"serviceEndpoint":{"host":"10.0.0.5","port":3000},"additionalEndpoints":{},"status":"ALIVE","shard":7}',
      ],
      [
        plain,
        instance('i-1234'),
        '{"serviceEndpoint":{"host":"10.0.0.5","port":3000},"additionalEndpoints":{},"status":"ALIVE"}',
      ],
      [
        http,
        instance('0'),
        '{"serviceEndpoint":{"host":"10.0.0.5","port":3000},"additionalEndpoints":{"http":{"host":"10.0.0.5","port":3000}},"status":"ALIVE","shard":0}',
      ],
    ] as const)
      assert.equal(codec.encodeRecord(of), record);
  });

  test('its node is called member_, whatever the instance is called and however names are written', () => {
    for (const pathEncoding of [false, true])
      assert.equal(plain.namePrefix(instance('i-1'), { pathEncoding }), 'member_');
  });

  test('a member is read from its service endpoint, with the shard as its name and whatever its status', () => {
    const record = { serviceEndpoint: { host: 'h', port: 1 }, additionalEndpoints: {}, extra: [] };
    for (const [more, name] of [
      [{}, ''],
      [{ shard: 0 }, '0'],
      [{ shard: 42, status: 'DEAD' }, '42'],
      [{ shard: 'a' }, 'a'],
      [{ shard: null, status: 'ALIVE' }, ''],
      [{ shard: 1.5 }, ''],
      [{ shard: {} }, ''],
    ] as const)
      assert.deepEqual(decode({ ...record, ...more }), {
        ok: true,
        instance: { name, host: 'h', port: 1 },
      });
    assert.deepEqual(decode('{"serviceEndpoint":{"host":"h","port":"3000"},"shard":1e999}'), {
      ok: true,
      instance: { name: '', host: 'h', port: 3000 },
    });
  });

  test('with an endpoint it is read from there, and one that lacks it is set aside', () => {
    const record = {
      serviceEndpoint: { host: 'h', port: 1 },
      additionalEndpoints: { http: { host: 'a', port: 2 }, aurora: { host: 'b', port: 3 } },
      status: 'ALIVE',
      shard: 0,
    };
    assert.deepEqual(decode(record, http), { ok: true, instance: { name: '0', host: 'a', port: 2 } });
    for (const [endpoint, reason] of [
      ['thrift', 'the endpoint thrift is missing'],
      ['constructor', 'the endpoint constructor is missing'],
      ['__proto__', 'the endpoint __proto__ is missing'],
    ] as const)
      assert.equal(refusal(record, codecFor({ kind: 'serverset', endpoint })), reason);
  });

  test('what cannot be a member is set aside, with the reason', () => {
    assert.equal(refusal(''), 'the data is empty');
    assert.equal(refusal('{'), 'the data is not JSON');
    assert.equal(refusal('[]'), 'the data is not a JSON object');
    assert.equal(refusal('{"host":"h","port":1}'), 'serviceEndpoint is missing');
    assert.equal(refusal({ serviceEndpoint: 'h:1' }), 'serviceEndpoint is missing');
    assert.equal(
      refusal('{"__proto__":{"serviceEndpoint":{"host":"h","port":1}}}'),
      'serviceEndpoint is missing',
    );
    assert.match(refusal({ serviceEndpoint: { port: 1 } }), /^host is missing/);
    assert.match(refusal({ serviceEndpoint: { host: 'h', port: 0 } }), /^port is missing/);
    for (const additionalEndpoints of [null, [], 'x', { http: 1 }])
      assert.equal(
        refusal({ serviceEndpoint: { host: 'h', port: 1 }, additionalEndpoints }, http),
        'the endpoint http is missing',
      );
  });

  test('a name in Nerve’s path encoding is taken at its word below a serverset too', () => {
    assert.deepEqual(plain.decodeName(`${ENCODED}0000000003`), { ok: true, instance: instance('i-1234') });
    assert.equal(plain.decodeName('member_0000000003'), undefined);
  });

  test('the data of a member may change under its name, those of Nerve’s sequential nodes never do', () => {
    assert.equal(plain.isImmutable('member_0000000003'), false);
    assert.equal(plain.isImmutable(`${ENCODED}0000000003`), true);
    assert.equal(nerve.isImmutable('i-1_0000000003'), true);
    assert.equal(nerve.isImmutable('i-1_'), false);
  });

  test('what is written is read again, as far as the format goes', () => {
    const names = fc.oneof(
      fc.nat().map(String),
      fc.string({ unit: 'grapheme' }),
      fc.constantFrom('007', '-1', '2147483647', '2147483648', '1e3', '', '0', '٣'),
    );
    const hosts = fc.oneof(fc.ipV4(), fc.ipV6(), fc.domain());
    fc.assert(
      fc.property(names, hosts, fc.integer({ min: 1, max: 65_535 }), (name, host, port) => {
        for (const codec of [plain, http]) {
          const written = Buffer.from(codec.encodeRecord({ ...instance(name, host, port), weight: 5 }));
          const read = { name: codec.nameInRecord(name), host, port };
          assert.deepEqual(codec.decodeRecord(written), { ok: true, instance: read });
          assert.ok(['', name].includes(read.name));
          assert.ok(isRecordOf(written, instance(name, host, port)));
        }
      }),
    );
  });
});

describe('the record of a place', () => {
  test('is found again in whatever format it was written, and no other is', () => {
    const place = instance('i-1');
    const records = [nerve, plain, http].map((codec) => Buffer.from(codec.encodeRecord(place)));
    for (const record of records) {
      assert.ok(isRecordOf(record, place));
      assert.ok(!isRecordOf(record, { ...place, port: 3001 }));
      assert.ok(!isRecordOf(record, { ...place, host: '10.0.0.6' }));
      // A serverset does not say what the instance is called, unless it is a shard.
      assert.equal(isRecordOf(record, { ...place, name: 'i-2' }), record !== records[0]);
      assert.ok(!isRecordOf(record, { ...place, name: '2' }));
    }
    for (const data of ['', '{}', 'null', '{"host":"10.0.0.5","port":3000}'])
      assert.ok(!isRecordOf(Buffer.from(data), place), data);
  });

  test('is looked for under every name that it may have, and hardly under others', () => {
    for (const child of [
      'i-1234_0000000001',
      'i-1234_',
      'member_0000000001',
      `${ENCODED}0000000001`,
      ENCODED,
    ])
      assert.ok(mayHoldRecordOf(child, instance('i-1234')), child);
    for (const child of ['i-12345_0000000001', 'i-123_', '', '_', 'i-1234', 'base64_junk'])
      assert.ok(!mayHoldRecordOf(child, instance('i-1234')), child);
    assert.ok(!mayHoldRecordOf(ENCODED, instance('i-1234', '10.0.0.5', 3001)));
  });
});
