// From the bytes of a znode to the file and the commands of HAProxy: whatever somebody writes into the registry.
import assert from 'node:assert/strict';
import { isIP } from 'node:net';
import { describe, test } from 'node:test';

import {
  codecFor,
  type Decoded,
  type Instance,
  instanceId,
  type RecordFormat,
  uniqueInstances,
} from '@tandem/core';
import { readRunning, renderConfig } from '@tandem/discovery';
import {
  buildMembership,
  executeSteps,
  ORDINARY,
  planChanges,
  readContainers,
  readTasks,
  type Step,
} from '@tandem/discovery/testing';
import * as fc from 'fast-check';

import { service } from '../../support/haproxy.ts';
import { FakeHaproxy } from './fake-haproxy.ts';
import { info, membersOf, offersOf, prompted, structureOf, withFakeSocket } from './support.ts';

const FORMATS: readonly RecordFormat[] = [
  { kind: 'nerve' },
  { kind: 'serverset' },
  { kind: 'serverset', endpoint: 'http' },
  { kind: 'serverset', endpoint: '__proto__' },
];
/** Stands in every hostile text, and in nothing that Tandem writes by itself. */
const MARK = 'EVIL';
const CURIOUS = [
  `x\n  server ${MARK} 10.9.9.9:1`,
  `${MARK}\r\nshow env`,
  `${MARK};disable server web/good`,
  `${MARK} backup`,
  `${MARK}#`,
  `"${MARK}"`,
  `'${MARK}`,
  `\\${MARK}\\n`,
  `$${MARK}`,
  `\${${MARK}}`,
  `{{${MARK}}}`,
  `<<${MARK}`,
  `${MARK}/../x`,
  `${MARK}@x`,
  `${MARK}\0`,
  `${MARK}\u{7f}`,
  `${MARK}\u{85}`,
  `${MARK}\u{2028}`,
  `${MARK}\u{202e}`,
  `${MARK}\u{ff0f}`,
  `${MARK}\ud800`,
  `\ufeff${MARK}`,
  `1\u{37e}${MARK}`,
  `unix@/${MARK}`,
  `${MARK}.example`,
  `127.0.0.1 ${MARK}`,
  `127.0.0.1\n${MARK}`,
  `::1%${MARK}`,
  `[::1]:80 ${MARK}`,
  MARK.repeat(500),
];

const hostile = fc.oneof(
  fc.constantFrom(...CURIOUS),
  fc.string({ unit: 'binary' }).map((text) => `${MARK}${text}`),
  // Lone surrogates and other halves.
  fc.uint16Array({ maxLength: 10 }).map((units) => `${MARK}${String.fromCharCode(...units)}`),
);
const key = fc.oneof(hostile, fc.constantFrom('__proto__', 'constructor', 'toString', 'host', 'http', ''));
const number = fc.oneof(
  fc.integer(),
  fc.double(),
  fc.constantFrom('1e400', '-0', '9'.repeat(400), '0x50', '00080', '0.5e1').map((text) => Symbol(text)),
);
const deep = fc.nat({ max: 3000 }).map((depth) => Symbol('['.repeat(depth) + ']'.repeat(depth)));
const value = fc.oneof(
  hostile,
  number,
  deep,
  fc.constantFrom(null, true, false, [], {}),
  fc.array(hostile, { maxLength: 3 }),
  fc.dictionary(key, hostile, { maxKeys: 4, noNullPrototype: true }),
);

type Pairs = readonly (readonly [string, unknown])[];

/** JSON as nobody's serialiser would write it: keys twice, numbers of any length, any depth. */
function written(value: unknown): string {
  if (typeof value === 'symbol') return value.description ?? '';
  if (Array.isArray(value)) return `[${value.map(written).join()}]`;
  if (typeof value === 'object' && value !== null) return object(Object.entries(value));
  return JSON.stringify(value) ?? 'null';
}
function object(pairs: Pairs): string {
  return `{${pairs.map(([key, value]) => `${JSON.stringify(key)}:${written(value)}`).join()}}`;
}

// Mostly right, so that what stands beside them has its chance to get through.
const host = fc.oneof(
  { weight: 6, arbitrary: fc.oneof(fc.ipV4(), fc.ipV6()) },
  { weight: 1, arbitrary: hostile },
  { weight: 1, arbitrary: value },
);
const port = fc.oneof(
  { weight: 6, arbitrary: fc.oneof(fc.integer({ min: 1, max: 65_535 }), fc.constant('80')) },
  { weight: 1, arbitrary: fc.constant(`80 ${MARK}`) },
  { weight: 1, arbitrary: value },
);
/** Options as somebody might write them who means well, or who does not. */
const option = fc.oneof(
  fc.constantFrom(
    'weight 3',
    'backup',
    'maxconn 5',
    'slowstart 9s',
    'send-proxy',
    'send-proxy-v2',
    'check inter 2s',
  ),
  fc.constantFrom(
    'fall 3',
    'disabled',
    'enabled',
    'id 1',
    'source 10.9.9.9',
    'addr 10.9.9.9',
    'track web/x',
    'weight',
  ),
  hostile,
);
const options = fc.array(option, { maxLength: 5 }).map((words) => words.join(' '));
const pair = fc.oneof(
  fc.tuple(fc.constant('host'), host),
  fc.tuple(fc.constant('port'), port),
  fc.tuple(fc.constantFrom('name', 'shard'), fc.oneof(fc.constantFrom('i-1', 'i-2', 7), value)),
  fc.tuple(fc.constantFrom('weight', 'labels', 'haproxy_server_options', 'status'), value),
  fc.tuple(fc.constant('haproxy_server_options'), options),
  fc.tuple(key, value),
);
const endpoint = fc
  .tuple(host, port, fc.array(pair, { maxLength: 3 }))
  .map(([host, port, more]) => Symbol(object([['host', host], ['port', port], ...more])));
const nerveRecord = fc
  .tuple(host, port, fc.array(pair, { maxLength: 8 }))
  .map(([host, port, more]) => object([['host', host], ['port', port], ...more]));
const serversetRecord = fc
  .tuple(fc.oneof(endpoint, value), fc.array(fc.tuple(key, endpoint)), fc.array(pair, { maxLength: 4 }))
  .map(([service, additional, more]) =>
    object([['serviceEndpoint', service], ['additionalEndpoints', Symbol(object([...additional]))], ...more]),
  );
const record = fc
  .oneof(
    nerveRecord.map((text) => Buffer.from(text)),
    serversetRecord.map((text) => Buffer.from(text)),
    fc.json().map((text) => Buffer.from(text)),
    fc.uint8Array().map((bytes) => Buffer.from(bytes)),
  )
  .chain((bytes) =>
    fc.oneof(
      { weight: 4, arbitrary: fc.constant(bytes) },
      // Torn in the middle, also of a character, or with bytes that are no character.
      { weight: 1, arbitrary: fc.nat({ max: bytes.length }).map((end) => bytes.subarray(0, end)) },
      {
        weight: 1,
        arbitrary: fc.nat({ max: bytes.length }).map((at) => Buffer.concat([bytes.subarray(0, at), BROKEN])),
      },
    ),
  );
const BROKEN = Buffer.from([0xff, 0xc0, 0x80, 0xed, 0xa0, 0x80, 0x22, 0x7d]);

/** A child as a reader meets it: what its name says counts, and if that is nothing, what its data say. */
function read(name: string, data: Buffer, format: RecordFormat): Decoded {
  const codec = codecFor(format);
  return codec.decodeName(name) ?? codec.decodeRecord(data);
}

/** A name in path encoding, right or wrong in every part. */
const name = fc.oneof(
  fc.constantFrom('i-1_0000000001', 'member_0000000001', 'base64_', 'base64__', 'base64_9_'),
  hostile,
  fc
    .record({
      record: nerveRecord,
      lengthOff: fc.constantFrom(0, 0, 0, -4, -1, 1, 4, 1e6, Number.NaN),
      end: fc.constantFrom('_0000000001', '_', '', 'x', `_${MARK}`),
      alphabet: fc.constantFrom('base64url', 'base64', 'hex'),
      cut: fc.constantFrom(0, 0, 0, 1, 2, 3, 7),
      padded: fc.boolean(),
    })
    .map(({ record, lengthOff, end, alphabet, cut, padded }) => {
      const encoded = Buffer.from(record).toString(alphabet);
      const whole = padded ? encoded.padEnd(Math.ceil(encoded.length / 4) * 4, '=') : encoded;
      return `base64_${whole.length + lengthOff}_${whole.slice(0, whole.length - cut)}${end}`;
    }),
);

const children = fc.array(fc.tuple(name, record, fc.constantFrom(...FORMATS)), { maxLength: 12 });
const ENDPOINT = '([0-9a-f.:[\\]]+):\\d{1,5}';
/** What follows an endpoint: our own words, and those of the whitelist with numbers that were read and written anew. */
const ARGUMENTS = [
  'id \\d+ weight \\d{1,3} pool-purge-delay 5s pool-max-conn -1',
  '( backup)?( maxconn \\d+)?( slowstart \\d+ms)?( send-proxy| send-proxy-v2)?',
  '( check)?( inter \\d+ms)?( fastinter \\d+ms)?( downinter \\d+ms)?( rise \\d+)?( fall \\d+)?',
].join('');
const HARMLESS = new RegExp(`^ {2}server [A-Za-z0-9_.:-]{1,128} ${ENDPOINT} ${ARGUMENTS}$`);
const COMMAND = new RegExp(
  `^(|prompt|quit|show info|add server web/[\\w.:-]+ ${ENDPOINT} ${ARGUMENTS}|set server web/[\\w.:-]+ state ready|enable health web/[\\w.:-]+)$`,
);

function instancesOf(found: readonly (readonly [string, Buffer, RecordFormat])[]): Instance[] {
  return uniqueInstances(
    found.flatMap(([name, data, format]) => {
      const decoded = read(name, data, format);
      return decoded.ok ? [decoded.instance] : [];
    }),
  );
}

/** Everything else that a plan may lead to. */
const ANY_COMMAND = new RegExp(
  `${COMMAND.source}|^set server web/[\\w.:-]+ (weight \\d{1,3}|state (drain|maint))$|^del server web/[\\w.:-]+$`,
);

/** The answers of a Docker daemon and of a Marathon whose containers and tasks anybody may name. */
const containers = fc.array(
  fc
    .tuple(fc.oneof(hostile, fc.constant('/web-1')), port, fc.dictionary(key, hostile, { maxKeys: 3 }), host)
    .map(([called, published, labels, address]) => ({
      Names: [called],
      Image: 'web:1',
      State: 'running',
      Status: 'Up',
      Labels: { ...labels, haproxy_server_options: called },
      Ports: [{ PrivatePort: 80, PublicPort: published, Type: 'tcp', IP: address }],
    })),
  { maxLength: 6 },
);
const tasks = fc.array(
  fc
    .tuple(fc.oneof(hostile, host), port)
    .map(([where, at]) => ({ id: 'web.1', startedAt: 'now', host: where, ports: [at] })),
  { maxLength: 6 },
);
type Found = typeof found extends fc.Arbitrary<infer T> ? T : never;
const found = fc.record({ children, containers, tasks });
const moment = fc.record({
  found,
  kept: fc.array(fc.boolean(), { minLength: 1, maxLength: 5 }),
  held: fc.array(fc.boolean(), { minLength: 1, maxLength: 5 }),
  weight: fc.integer({ min: 0, max: 400 }),
});

function instancesOfAny({ children, containers, tasks }: Found): Instance[] {
  const query = { imageName: 'web', labels: {}, containerPort: 80, requireHealthy: false };
  return [
    ...instancesOf(children),
    ...(readContainers(containers, { ...query, host: '10.0.0.5', name: undefined })?.instances ?? []),
    ...(readTasks({ tasks }, { portIndex: 0, requireHealthy: false })?.instances ?? []),
  ];
}

describe('a hostile registry', () => {
  test('whatever the bytes, a reader gets an instance of a shape that is known, or a reason', () => {
    fc.assert(
      fc.property(name, record, fc.constantFrom(...FORMATS), (name, data, format) => {
        const decoded = read(name, data, format);
        if (!decoded.ok) {
          assert.match(decoded.reason, /^[\w ,.-]+$/);
          return;
        }
        const {
          name: called,
          host,
          port,
          weight,
          labels,
          haproxyServerOptions,
          ...others
        } = decoded.instance;
        assert.deepEqual(others, {});
        assert.equal(Object.getPrototypeOf(decoded.instance), Object.prototype);
        assert.ok(typeof called === 'string' && typeof host === 'string' && host.length <= 253);
        assert.ok(Number.isInteger(port) && port >= 1 && port <= 65_535);
        assert.ok(weight === undefined || (Number.isInteger(weight) && weight >= 0));
        assert.ok(Object.values(labels ?? {}).every((label) => typeof label === 'string'));
        assert.ok(['string', 'undefined'].includes(typeof haproxyServerOptions));
      }),
      { numRuns: 2000 },
    );
  });

  test('a megabyte costs no more than a refusal, however it is nested', () => {
    for (const text of [
      '['.repeat(1_000_000),
      `{"host":${'{"a":'.repeat(150_000)}`,
      `{"host":"${'x'.repeat(999_000)}","port":1}`,
      `{"serviceEndpoint":{"host":"${'x'.repeat(999_000)}","port":1}}`,
      ' '.repeat(1_000_001),
    ])
      for (const format of FORMATS) assert.equal(codecFor(format).decodeRecord(Buffer.from(text)).ok, false);
    const huge = `{"host":"10.0.0.1","port":1,"name":"${'x'.repeat(900_000)}","labels":{"${'y'.repeat(50_000)}":""}}`;
    const decoded = codecFor().decodeRecord(Buffer.from(huge));
    assert.ok(decoded.ok);
    assert.deepEqual(membersOf([decoded.instance]).get('web'), []);
  });

  test('nothing of it becomes a line of haproxy.cfg that is not one harmless server', () => {
    const structure = structureOf();
    const empty = renderConfig(structure, new Map()).text.split('\n');
    let count = 0;
    let optioned = 0;
    fc.assert(
      fc.property(children, (children) => {
        const instances = instancesOf(children);
        const { membership, rejected } = buildMembership(offersOf({ web: instances }));
        const lines = renderConfig(structure, membership).text.split('\n');
        const servers = lines.filter((line) => line.startsWith('  server '));
        assert.deepEqual(
          lines.filter((line) => !line.startsWith('  server ')),
          empty,
          'everything else is as without any instance',
        );
        for (const line of servers) {
          const address = HARMLESS.exec(line)?.[1]?.replace(/^\[|\]$/g, '');
          assert.ok(address !== undefined && isIP(address) !== 0, line);
        }
        assert.ok(servers.length <= instances.length);
        for (const { reason } of rejected.get('web') ?? []) assert.match(reason, /^[\w ,.:-]+$/);
        assert.equal(servers.length, membership.get('web')?.length);
        count += servers.length;
        optioned += membership.get('web')?.filter(({ options }) => options !== '').length ?? 0;
      }),
      { numRuns: 500 },
    );
    assert.ok(optioned > 5, `only ${optioned} servers with options of their own`);
    assert.ok(count > 50, `only ${count} servers: the search tries nothing`);
  });

  test('nothing of it becomes a command that is not one of ours', async () => {
    const structure = structureOf();
    const { mark } = renderConfig(structure, new Map());
    const running = { incarnation: '42:1700000000', version: '2.6.12', mark };
    await withFakeSocket(
      () => prompted([info({ description: mark })]),
      async (socket, heard) => {
        await fc.assert(
          fc.asyncProperty(children, async (children) => {
            const membership = membersOf(instancesOf(children));
            const plan = planChanges({ ...running, backends: new Map() }, { mark, structure, membership });
            assert.equal(plan.reload, undefined);
            // The socket answers too little, so that this rejects; what counts is what it has heard.
            await executeSteps(socket, plan.steps, running).catch(() => {});
            for (const line of heard.splice(0).join('').split('\n')) assert.match(line, COMMAND);
          }),
          { numRuns: 100 },
        );
      },
    );
  });

  test('nothing of it becomes a command, whatever the registry had said before, in all kinds of steps', async () => {
    const structure = structureOf();
    const { mark } = renderConfig(structure, new Map());
    const kinds = new Map<Step['kind'], number>();
    let haproxy = new FakeHaproxy('3.0.11');
    await withFakeSocket(
      (request) => haproxy.script(request),
      async (socket, heard) => {
        await fc.assert(
          fc.asyncProperty(fc.array(moment, { minLength: 2, maxLength: 4 }), async (moments) => {
            haproxy = new FakeHaproxy('3.0.11');
            haproxy.mark = mark;
            haproxy.load('backend web\n');
            let known: readonly Instance[] = [];
            for (const { found, kept, held, weight } of moments) {
              // Of what was there some stays, with another weight, or held by somebody.
              const stays = known.filter((_, index) => kept[index % kept.length]);
              const instances = [
                ...stays.map((instance) => ({ ...instance, weight })),
                ...instancesOfAny(found),
              ];
              known = uniqueInstances(instances);
              const holds = new Map(
                known
                  .filter((_, index) => held[index % held.length])
                  .map((one) => [instanceId(one), 'drain' as const]),
              );
              const { membership } = buildMembership(
                new Map([['web', { service: service('web', '127.0.0.1:3210'), instances: known, holds }]]),
              );
              for (const line of renderConfig(structure, membership).text.split('\n'))
                if (line.startsWith('  server ')) assert.match(line.replace(/ disabled$/, ''), HARMLESS);
              const running = await readRunning(socket);
              const away = [...(running.backends.get('web') ?? [])].filter(({ state }) => state !== 'ready');
              const quiet = new Set(away.map(({ name }) => `web/${name}`));
              const plan = planChanges(running, { mark, structure, membership }, { ...ORDINARY, quiet });
              for (const { kind } of plan.steps) kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
              heard.length = 0;
              await executeSteps(socket, plan.steps, running);
              for (const line of heard.join('').split('\n')) assert.match(line, ANY_COMMAND);
            }
          }),
          { numRuns: 150 },
        );
      },
    );
    for (const kind of ['add', 'ready', 'weight', 'drain', 'delete'] as const)
      assert.ok((kinds.get(kind) ?? 0) > 5, `${kind}: ${kinds.get(kind) ?? 0} steps`);
  });
});
