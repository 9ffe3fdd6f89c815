import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';

import { silentLog } from '@tandem/core';
import { DiscoverSection, HaproxySection } from '@tandem/discovery';
import {
  type Ask,
  createLayout,
  createRouting,
  executeMapSteps,
  ledMap,
  notesIn,
  parseMap,
  planMap,
  readMaps,
  renderMap,
  type RunningEntry,
  withdrawnMap,
} from '@tandem/discovery/testing';
import * as fc from 'fast-check';

import { service } from '../../support/haproxy.ts';
import { inDirectory } from '../../support/directory.ts';

const FILE = '/run/tandem/tandem-web.map';

/** A map of HAProxy 2.6, with its answers (HAProxy reference 1.7). */
function createHaproxyMap(entries: readonly (readonly [key: string, value: string])[], file = FILE) {
  let serial = 0;
  let current: RunningEntry[] = [];
  let version = 0;
  const prepared = new Map<number, RunningEntry[]>();
  const heard: string[] = [];
  const fresh = (key: string, value: string) => ({
    reference: `0x${(serial += 1).toString(16)}`,
    key,
    value,
  });
  current = entries.map(([key, value]) => fresh(key, value));

  const isMeant = (key: string) => (entry: RunningEntry) =>
    key.startsWith('#') ? `#${entry.reference}` === key : entry.key === key;
  const verbs: Readonly<Record<string, (at: number | undefined, key: string, value: string) => string>> = {
    show: () => current.map((entry) => `${entry.reference} ${entry.key} ${entry.value}\n`).join(''),
    prepare() {
      prepared.set((version += 1), []);
      return `New version created: ${version}\n`;
    },
    add(at, key, value) {
      const target = at === undefined ? current : prepared.get(at);
      target?.push(fresh(key, value));
      return target === undefined ? "Version number in the future, please use 'prepare map' before.\n" : '';
    },
    set(_, key, value) {
      if (!current.some(isMeant(key))) return 'entry not found.\n';
      current = current.map((entry) => (entry.key === key ? { ...entry, value } : entry));
      return '';
    },
    del(_, key) {
      if (!current.some(isMeant(key))) return 'Key not found.\n';
      current = current.filter((entry) => !isMeant(key)(entry));
      return '';
    },
    commit(at) {
      current = prepared.get(at ?? 0) ?? [];
      return '';
    },
    clear(at) {
      if (at === undefined) current = [];
      else prepared.set(at, []);
      return '';
    },
  };

  function answer(command: string): string {
    heard.push(command);
    const [verb = '', , ...words] = command.split(' ');
    const at = words[0]?.startsWith('@') === true ? Number(words.shift()?.slice(1)) : undefined;
    const [name, key = '', value = ''] = words;
    if (name !== file) return 'Unknown map identifier. Please use #<id> or <file>.\n';
    return verbs[verb]?.(at, key, value) ?? 'Unknown command.\n';
  }
  const ask: Ask = (commands) => Promise.resolve(commands.map(answer));
  return { ask, heard, answer, entries: () => current, prepared };
}

/** What is looked up, first come first served; and how many entries there are. */
function contentOf(entries: readonly { key: string; value: string }[]): [number, Map<string, string>] {
  const content = new Map<string, string>();
  for (const { key, value } of entries) if (!content.has(key)) content.set(key, value);
  return [entries.length, content];
}

const key = fc.constantFrom('a.example', 'b.example', 'c.example', '[::1]', '21000', '21001');
const value = fc.constantFrom('web', 'api', 'tandem-spare-http-1');
/** A few, with twins; or so many that they are replaced in one go. */
const running = fc.oneof(
  fc.array(fc.tuple(key, value), { maxLength: 12 }),
  fc.array(
    fc.tuple(
      fc.nat(400).map((number) => `h${number}.example`),
      value,
    ),
    { minLength: 80, maxLength: 300 },
  ),
);
const wanted = running.map((entries) => new Map(entries));

describe('the steps of a map', () => {
  test('lead from any running map to any wanted one, and equal ones need none', () =>
    fc.assert(
      fc.asyncProperty(running, wanted, async (before, after) => {
        const haproxy = createHaproxyMap(before);
        const steps = planMap(haproxy.entries(), after);
        assert.deepEqual(await executeMapSteps(haproxy.ask, FILE, steps), { kind: 'done' });
        assert.deepEqual(contentOf(haproxy.entries()), [after.size, after]);
        assert.deepEqual(planMap(haproxy.entries(), after), []);
      }),
      { numRuns: 300 },
    ));

  test('never leave a key that stays without its entry', () =>
    fc.assert(
      fc.asyncProperty(running, wanted, async (before, after) => {
        const haproxy = createHaproxyMap(before);
        const staying = before.map(([one]) => one).filter((one) => after.has(one));
        const watched: Ask = async (commands) => {
          const answers: string[] = [];
          for (const command of commands) {
            answers.push(haproxy.answer(command));
            const [, content] = contentOf(haproxy.entries());
            for (const one of staying) assert.ok(content.has(one), `${one} after ${command}`);
          }
          return Promise.resolve(answers);
        };
        await executeMapSteps(watched, FILE, planMap(haproxy.entries(), after));
      }),
      { numRuns: 100 },
    ));

  test('are one new map when they would be many, and only what is different when they are few', async () => {
    const many = new Map(Array.from({ length: 5_000 }, (_, index) => [`h${index}.example`, 'web']));
    const haproxy = createHaproxyMap([['old.example', 'web']]);
    const steps = planMap(haproxy.entries(), many);
    assert.deepEqual(
      steps.map(({ kind }) => kind),
      ['replace'],
    );
    await executeMapSteps(haproxy.ask, FILE, steps);
    assert.equal(haproxy.heard.at(-1), `commit map @1 ${FILE}`);
    assert.ok(haproxy.heard.every((line) => Buffer.byteLength(line) < 12 * 1_024));
    assert.deepEqual(planMap(haproxy.entries(), new Map(many).set('new.example', 'api')), [
      { kind: 'add', key: 'new.example', value: 'api' },
    ]);
  });

  test('never hold anything but safe words, whatever is wanted or found', () => {
    const hostile = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.constantFrom('a b', 'a\nb', 'a;show info', '#1', '<<', 'a\\', '$X', '', '@1', 'ok.example'),
    );
    fc.assert(
      fc.property(
        fc.array(fc.record({ reference: fc.constant('0x1'), key: hostile, value: hostile })),
        fc.array(fc.tuple(hostile, hostile)),
        (present, pairs) => {
          const table = new Map(pairs);
          for (const step of planMap(present, table)) {
            const entries = step.kind === 'replace' ? [...step.entries] : [];
            const words = [
              ...('key' in step ? [step.key] : []),
              ...('value' in step ? [step.value] : []),
              ...entries.flat(),
            ];
            for (const word of words) assert.match(word, /^[A-Za-z0-9_.:[\]-]+$/);
          }
          for (const line of renderMap({ entries: table, notes: [] }).split('\n').slice(1, -1))
            assert.match(line, /^[A-Za-z0-9_.:[\]-]+ [A-Za-z0-9_.:[\]-]+$/);
        },
      ),
    );
  });

  test('that are refused say so, and leave no half-filled map behind', async () => {
    const haproxy = createHaproxyMap([['a.example', 'web']]);
    const missing = await executeMapSteps(haproxy.ask, FILE, [{ kind: 'delete', key: 'x.example' }]);
    assert.deepEqual(missing, { kind: 'refused', replies: ['Key not found.'] });
    const full: Ask = (commands) =>
      Promise.resolve(
        commands.map((line) =>
          line.endsWith(' b.example web') ? 'Out of memory error.\n' : haproxy.answer(line),
        ),
      );
    const entries = new Map([
      ['a.example', 'api'],
      ['b.example', 'web'],
    ]);
    assert.deepEqual(await executeMapSteps(full, FILE, [{ kind: 'replace', entries }]), {
      kind: 'refused',
      replies: ['Out of memory error.'],
    });
    assert.deepEqual(contentOf(haproxy.entries())[1], new Map([['a.example', 'web']]));
    assert.deepEqual(haproxy.prepared.get(1), []);
  });

  test('stop when another worker has taken over, at whatever command', async () => {
    for (const answered of [0, 1, 2]) {
      const haproxy = createHaproxyMap([]);
      let asked = 0;
      const gone: Ask = (commands) =>
        asked++ < answered ? haproxy.ask(commands) : Promise.resolve(undefined);
      const steps = [{ kind: 'replace' as const, entries: new Map([['a.example', 'web']]) }];
      assert.deepEqual(await executeMapSteps(gone, FILE, steps), { kind: 'other-worker' });
      assert.deepEqual(haproxy.entries(), []);
    }
  });
});

describe('reading maps', () => {
  test('gives every entry with its reference, and passes over a map that HAProxy does not know', async () => {
    const haproxy = createHaproxyMap([
      ['a.example', 'web'],
      ['a.example', 'api'],
    ]);
    assert.deepEqual(
      await readMaps(haproxy.ask, [FILE, '/run/other.map']),
      new Map([
        [
          FILE,
          [
            { reference: '0x1', key: 'a.example', value: 'web' },
            { reference: '0x2', key: 'a.example', value: 'api' },
          ],
        ],
      ]),
    );
    assert.equal(await readMaps(() => Promise.resolve(undefined), [FILE]), undefined);
    assert.deepEqual(await readMaps(() => assert.fail('nothing to ask'), []), new Map());
  });

  test('takes a value as it stands, and no line that is none', () => {
    assert.deepEqual(parseMap('0x5594e1353440 a.example two words\n\nUnknown command\n'), [
      { reference: '0x5594e1353440', key: 'a.example', value: 'two words' },
    ]);
  });
});

describe('a map file', () => {
  test('is the same text for equal tables, in whatever order', () => {
    const entries = [
      ['b.example', 'web'],
      ['a.example', 'api'],
    ] as const;
    const text = renderMap({ entries: new Map(entries), notes: ['a note'] });
    assert.equal(renderMap({ entries: new Map(entries.toReversed()), notes: ['a note'] }), text);
    assert.match(text, /^# Written by Tandem.*\n# a note\na\.example api\nb\.example web\n$/);
    assert.ok(notesIn(text).includes('a note'));
  });
});

describe('the maps of a layout', () => {
  const config = HaproxySection.parse({
    config_file: '/run/tandem/haproxy.cfg',
    shared_frontends: { web: { listen: 80 } },
    port_range: { http: '21000-21009', spares: 2 },
  });
  const tables = (...services: ReturnType<typeof service>[]) =>
    new Map(
      [...createLayout(config)(services).routes].map(([file, { entries }]) => [
        path.basename(file),
        Object.fromEntries(entries),
      ]),
    );

  test('lead hosts to the backend of their service, and ports to the spare that serves it', () => {
    assert.deepEqual(
      tables(
        service('api', undefined, { shared_frontend: 'web', hosts: ['API.example', 'two.example'] }),
        service('jobs', '127.0.0.1:21003', { shared_frontend: 'web', hosts: ['jobs.example'] }),
        service('own', '127.0.0.1:3210'),
      ),
      new Map<string, object>([
        [
          'tandem-web.map',
          { 'api.example': 'api', 'two.example': 'api', 'jobs.example': 'tandem-spare-http-1' },
        ],
        ['tandem-ports-http.map', { 21003: 'tandem-spare-http-1' }],
      ]),
    );
  });

  test('are there without any service, because haproxy.cfg names them', () => {
    assert.deepEqual(
      tables(),
      new Map([
        ['tandem-web.map', {}],
        ['tandem-ports-http.map', {}],
      ]),
    );
  });

  test('have no entry for a host on a frontend that does not exist', () => {
    const config = DiscoverSection.parse({ shared_frontend: 'wbe', hosts: ['x.example'] });
    assert.deepEqual(tables({ service: 'x', path: '/x', config }).get('tandem-web.map'), {});
  });
});

describe('keeping maps', () => {
  const routesOf = (file: string, entries: Record<string, string>) =>
    new Map([[file, { entries: new Map(Object.entries(entries)), notes: [] }]]);

  test('on disk: written when something is new or somebody has changed them, removed when nothing names them', () =>
    inDirectory(async (directory) => {
      const file = path.join(directory, 'tandem-web.map');
      const former = path.join(directory, 'tandem-former.map');
      const routing = createRouting({ log: silentLog });
      const routes = routesOf(file, { 'a.example': 'web' });
      await routing.write(routes, [file, former]);
      const text = await readFile(file, 'utf8');
      assert.match(text, /^a\.example web$/m);
      assert.match(await readFile(former, 'utf8'), /^# .*\n$/);
      await writeFile(file, 'evil.example web\n');
      await routing.write(routes, []);
      assert.equal(await readFile(file, 'utf8'), text);
      await rm(file);
      await routing.write(routes, []);
      assert.equal(await readFile(file, 'utf8'), text);
      await routing.tidy([file]);
      assert.deepEqual([existsSync(file), existsSync(former)], [true, false]);
    }));

  test('at run time: deletions first, additions later, and nothing is asked while nothing is to be done', async () => {
    let clock = 0;
    const routing = createRouting({ log: silentLog, now: () => clock });
    const haproxy = createHaproxyMap([['old.example', 'web']]);
    const worker = { incarnation: '1', ask: haproxy.ask };
    const routes = routesOf(FILE, { 'new.example': 'web' });
    assert.deepEqual(await routing.withdraw(routes, worker), { kind: 'done', changes: 1 });
    assert.deepEqual(haproxy.entries(), []);
    assert.deepEqual(await routing.complete(routes, worker), { kind: 'done', changes: 1 });
    assert.deepEqual(contentOf(haproxy.entries())[1], new Map([['new.example', 'web']]));

    const before = haproxy.heard.length;
    await routing.withdraw(routes, worker);
    await routing.complete(routes, worker);
    assert.equal(haproxy.heard.length, before);
    haproxy.answer(`clear map ${FILE}`);
    clock += 1_000;
    assert.deepEqual(await routing.complete(routes, worker), { kind: 'done', changes: 1 });
    haproxy.answer(`clear map ${FILE}`);
    const next = { ...worker, incarnation: '2' };
    assert.deepEqual(await routing.complete(routes, next), { kind: 'done', changes: 1 });
  });

  const spare = (number: number) => `tandem-spare-http-${number}`;
  const portsTo = (first: number, count: number): [string, string][] =>
    Array.from({ length: count }, (_, index) => [String(first + index), spare(index + 1)]);

  for (const count of [60, 300])
    test(`withdraws every port that goes before servers change, also ${count} at once`, async () => {
      const kept: [string, string] = ['20000', spare(999)];
      const haproxy = createHaproxyMap([kept, ...portsTo(21_000, count)]);
      const worker = { incarnation: '1', ask: haproxy.ask };
      const routing = createRouting({ log: silentLog });
      const routes = routesOf(FILE, Object.fromEntries([kept, ...portsTo(22_000, count)]));
      assert.equal((await routing.withdraw(routes, worker)).kind, 'done');
      assert.deepEqual(contentOf(haproxy.entries()), [1, new Map([kept])]);
      assert.equal((await routing.complete(routes, worker)).kind, 'done');
      assert.deepEqual(contentOf(haproxy.entries())[1], new Map([kept, ...portsTo(22_000, count)]));
    });

  test('withdraws what leaves a spare for another backend, and leaves a host where it is until the other is ready', async () => {
    const haproxy = createHaproxyMap([
      ['21000', spare(1)],
      ['a.example', 'web'],
      ['b.example', 'web'],
      ['b.example', spare(1)],
      ['c.example', spare(2)],
    ]);
    const worker = { incarnation: '1', ask: haproxy.ask };
    const routing = createRouting({ log: silentLog });
    const wanted = { 21000: spare(2), 'a.example': 'api', 'b.example': 'api', 'c.example': 'api' };
    await routing.withdraw(routesOf(FILE, wanted), worker);
    const left = new Map([
      ['a.example', 'web'],
      ['b.example', 'web'],
    ]);
    assert.deepEqual(contentOf(haproxy.entries()), [2, left]);
    // While the backend `api` waits for its reload, the spare serves already.
    await routing.lead(routesOf(FILE, wanted), worker);
    assert.deepEqual(contentOf(haproxy.entries())[1], new Map([...left, ['21000', spare(2)]]));
    await routing.complete(routesOf(FILE, wanted), worker);
    assert.deepEqual(contentOf(haproxy.entries())[1], new Map(Object.entries(wanted)));
  });

  test('whatever was there and is wanted, nothing that is withdrawn leads to a spare but what stays there', () =>
    fc.assert(
      fc.property(running, fc.array(fc.tuple(key, value)), (entries, pairs) => {
        const list = entries.map(([key, value], index) => ({ reference: `0x${index}`, key, value }));
        const wanted = new Map<string, string>(pairs);
        const [, before] = contentOf(list);
        for (const left of [withdrawnMap(list, wanted), ledMap(list, wanted)])
          for (const [key, value] of left) {
            if (before.get(key) === value) assert.ok(wanted.has(key));
            if (value.startsWith('tandem-spare')) assert.equal(value, wanted.get(key));
          }
        for (const [key, value] of before) {
          const stays = wanted.has(key) && !value.startsWith('tandem-spare');
          if (stays) assert.equal(ledMap(list, wanted).get(key), value, 'no gap for a host');
        }
      }),
    ));

  test('and somebody else’s changes of either are seen within a second', () =>
    inDirectory(async (directory) => {
      let clock = 0;
      const file = path.join(directory, 'tandem-web.map');
      const routing = createRouting({ log: silentLog, now: () => clock });
      const haproxy = createHaproxyMap([], file);
      const worker = { incarnation: '1', ask: haproxy.ask };
      const routes = routesOf(file, { 'a.example': 'web' });
      const heal = async () => {
        await routing.write(routes, []);
        await routing.complete(routes, worker);
      };
      await heal();
      for (const meddle of [
        () => haproxy.answer(`clear map ${file}`),
        () => haproxy.answer(`add map ${file} evil.example web`),
        () => writeFile(file, 'evil.example web\n'),
        () => rm(file),
      ]) {
        assert.equal(await routing.isAsLeft(worker), true);
        await meddle();
        clock += 800;
        assert.equal(await routing.isAsLeft(worker), false);
        assert.equal(await routing.isAsLeft(worker), false, 'until it was put right');
        await heal();
        clock += 800;
        assert.equal(await routing.isAsLeft(worker), true);
      }
      const before = haproxy.heard.length;
      assert.equal(await routing.isAsLeft(worker), true);
      assert.equal(haproxy.heard.length, before, 'and nobody is asked more often');
    }));
});
