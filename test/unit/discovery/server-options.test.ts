import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { buildStructure, createDesiredBuilder, renderConfig } from '@tandem/discovery';
import {
  abilitiesOf,
  buildMembership,
  parseServerOptions,
  staticOption,
  serversInFile,
} from '@tandem/discovery/testing';
import * as fc from 'fast-check';

import { service } from '../../support/haproxy.ts';
import { HAPROXY, offersOf, serversOf } from './support.ts';

const ALL = ['weight', 'backup', 'maxconn', 'slowstart', 'send-proxy', 'check'] as const;
const parse = (text: string) => parseServerOptions(text, ALL);

describe('the options of an announcement', () => {
  test('are understood, and written anew', () => {
    for (const [text, weight, written] of [
      ['', undefined, ''],
      ['weight 7', 7, ''],
      ['backup', undefined, 'backup'],
      ['  maxconn   0050\tbackup ', undefined, 'backup maxconn 50'],
      ['slowstart 30s', undefined, 'slowstart 30000ms'],
      ['check inter 2s fastinter 500 downinter 1m rise 2 fall 3', undefined, CHECK],
      ['send-proxy-v2 send-proxy', undefined, 'send-proxy-v2'],
      ['weight 1 weight 9', 9, ''],
    ] as const)
      assert.deepEqual(parse(text), { weight, text: written, complaints: [] }, text);
  });

  test('that are not understood are set aside word by word, and the rest is used', () => {
    assert.deepEqual(parse('cookie abc backup weight banana id 5 maxconn -1 inter 1ms rise'), {
      weight: undefined,
      text: 'backup',
      complaints: [
        'cookie is not one of those an instance may set',
        'abc is not one of those an instance may set',
        'weight has no value that makes sense',
        'id is not one of those an instance may set',
        '5 is not one of those an instance may set',
        'maxconn has no value that makes sense',
        'inter has no value that makes sense',
        'rise has no value that makes sense',
      ],
    });
    assert.equal(parse('backup '.repeat(41)).text, '');
  });

  test('that the service does not accept are set aside, too', () => {
    assert.deepEqual(parseServerOptions('backup weight 3 inter 2s', ['weight']), {
      weight: 3,
      text: '',
      complaints: ['backup is not allowed here', 'inter is not allowed here'],
    });
  });

  test('whatever they are, are harmless words of which HAProxy takes every one at run time', () => {
    const word = fc.oneof(
      fc.constantFrom(
        'weight',
        'backup',
        'maxconn',
        'slowstart',
        'send-proxy',
        'send-proxy-v2',
        'check',
        'inter',
      ),
      fc.constantFrom(
        'rise',
        'fall',
        'id',
        'addr',
        'disabled',
        '5',
        '10s',
        '0',
        '1e9',
        '\n',
        ';',
        '<<',
        '#',
        '${X}',
      ),
      fc.string({ unit: 'binary', maxLength: 8 }),
    );
    const text = fc.array(word, { maxLength: 30 }).map((words) => words.join(' '));
    fc.assert(
      fc.property(text, fc.subarray([...ALL]), (text, accepted) => {
        const own = parseServerOptions(text, accepted);
        assert.match(own.text, /^([a-z0-9-]+( [a-z0-9-]+)*)?$/);
        assert.equal(staticOption(own.text, abilitiesOf('2.6.12')), undefined);
        assert.ok(own.weight === undefined || (own.weight >= 0 && own.weight <= 256));
        for (const complaint of own.complaints) assert.match(complaint, /^[\w -]+$/);
        // What has been written is understood, and means the same.
        const again = parseServerOptions(own.text, accepted);
        assert.deepEqual(again, { weight: undefined, text: own.text, complaints: [] });
      }),
      { numRuns: 1_000 },
    );
  });

  test('make another server: the same name always means the same line', () => {
    const record = { name: 'a', host: '10.0.0.1', port: 80 };
    const [plain] = serversOf([record]);
    const [first] = serversOf([{ ...record, haproxyServerOptions: 'backup maxconn 5 weight 4' }]);
    const [alike] = serversOf([{ ...record, haproxyServerOptions: 'maxconn 5  weight 7 backup' }]);
    const [other] = serversOf([{ ...record, haproxyServerOptions: 'backup maxconn 6' }]);
    assert.equal(plain?.name, 'a_10.0.0.1:80');
    assert.match(first?.name ?? '', /^a_10\.0\.0\.1:80:[0-9a-f]{8}$/);
    assert.deepEqual([first?.options, first?.weight], ['backup maxconn 5', 4]);
    assert.deepEqual([alike?.name, alike?.id, alike?.weight], [first?.name, first?.id, 7]);
    assert.equal(new Set([plain, first, other].map((server) => server?.name)).size, 3);
    const [weighed] = serversOf([{ ...record, weight: 3, haproxyServerOptions: 'weight 9' }]);
    assert.deepEqual([weighed?.name, weighed?.weight], [plain.name, 9]);
  });

  test('that are set aside are told, and their instance serves', () => {
    const offers = offersOf({
      web: [
        { name: 'a', host: '10.0.0.1', port: 80, haproxyServerOptions: 'cookie $X backup' },
        { name: 'x'.repeat(110), host: '10.0.0.1', port: 80, haproxyServerOptions: 'backup' },
      ],
    });
    const { membership, rejected } = buildMembership(offers);
    assert.deepEqual(
      membership.get('web')?.map(({ options }) => options),
      ['backup', ''],
    );
    assert.deepEqual(
      rejected.get('web')?.map(({ reason }) => reason),
      [
        'haproxy_server_options: cookie is not one of those an instance may set, a word that is none is not one of those an instance may set',
        'haproxy_server_options: the name is too long for options beside it',
      ],
    );
  });

  test('are found again in a file, by the mark in the name', () => {
    const offers = offersOf({
      web: [
        { name: 'a', host: '10.0.0.1', port: 80, haproxyServerOptions: 'backup maxconn 5' },
        { name: 'b', host: '10.0.0.1', port: 80, haproxyServerOptions: 'send-proxy' },
        { name: 'c', host: '10.0.0.1', port: 80 },
      ],
    });
    const structure = buildStructure(HAPROXY, [
      service('web', '127.0.0.1:1', { server_options: 'check inter 2s' }),
    ]);
    const { membership } = buildMembership(offers);
    const held = (membership.get('web') ?? []).map((server, index) =>
      index === 1 ? { ...server, state: 'maint' as const } : server,
    );
    const { text } = renderConfig(structure, new Map([['web', held]]));
    assert.deepEqual([...serversInFile(text).options.values()].toSorted(), [
      'backup maxconn 5',
      'send-proxy',
    ]);
    assert.deepEqual(serversInFile(text.replace('maxconn 5', 'maxconn 6')).options.size, 1);
  });
});

const CHECK = 'check inter 2000ms fastinter 500ms downinter 60000ms rise 2 fall 3';

describe('a version of HAProxy', () => {
  test('can what it could when it was tried, and one between two what the older can', () => {
    const takes = (version: string, options: string) =>
      staticOption(options, abilitiesOf(version)) === undefined;
    for (const [options, since] of [
      ['check inter 2s ssl verify none sni str(x)', '2.6'],
      ['shard 1', '2.8'],
      ['cookie x', '3.0'],
      ['init-state down', '3.2'],
    ] as const) {
      for (const version of [
        '2.6.12',
        '2.7.1',
        '2.8.0',
        '2.9.5',
        '3.0.11',
        '3.1.0',
        '3.2.26',
        '3.3.1',
        '4.0.0',
      ])
        assert.equal(
          takes(version, options),
          Number(version.slice(0, 3)) >= Number(since),
          `${options} ${version}`,
        );
    }
    assert.deepEqual(
      ['2.6.12', '2.9.0', '3.0.0-dev', '3.2.26'].map((version) => abilitiesOf(version).deletesDrained),
      [false, false, true, true],
    );
  });

  test('is refused when it is too old to be driven, or no version', () => {
    for (const version of ['2.5.9', '1.8.0', '', 'unknown'])
      assert.throws(() => abilitiesOf(version), { code: 'HAPROXY_TOO_OLD' });
  });

  test('is asked for options, not for their values', () => {
    const abilities = abilitiesOf('2.6.12');
    assert.equal(staticOption('sni init-addr check', abilities), undefined);
    assert.equal(staticOption('check init-addr last', abilities), 'init-addr');
    assert.equal(staticOption('', abilities), undefined);
  });
});

describe('a cookie of servers', () => {
  const structureFor = (section: Record<string, unknown>, defaults: string[] = []) => {
    const offered = service('web', '127.0.0.1:1', { server_options: 'cookie abc check', ...section });
    const offers = new Map([['web', { service: offered, instances: [], holds: new Map() }]]);
    return createDesiredBuilder({ ...HAPROXY, defaults })(offers).desired.structure.proxies[0]?.serverOptions;
  };

  test('is left out where nothing sets it', () => {
    assert.equal(structureFor({}), 'check');
    assert.equal(structureFor({ server_options: 'check cookie x' }), 'check');
  });

  test('stays where a line of the backend or of the defaults sets it', () => {
    assert.equal(structureFor({ backend: ['cookie SRV insert'] }), 'cookie abc check');
    assert.equal(structureFor({}, ['cookie SRV insert']), 'cookie abc check');
  });
});
