import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { type Instance, instanceId, silentLog } from '@tandem/core';
import { buildStructure, HaproxySection } from '@tandem/discovery';
import {
  createHoldsStore,
  createSnapshotStore,
  createStructureStore,
  type SavedCatalog,
} from '@tandem/discovery/testing';

import { eventually, recordingLog, service } from '../../support/haproxy.ts';
import { inDirectory } from '../../support/directory.ts';
import { structureOf } from './support.ts';

const A: Instance = { name: 'a', host: '10.0.0.1', port: 80, weight: 3, labels: { zone: 'x' } };
const B: Instance = { name: 'b', host: 'fe80::1', port: 81, haproxyServerOptions: 'backup' };

function catalogOf(...instances: Instance[]): SavedCatalog {
  return new Map([['web', { instances, origin: 'registry' }]]);
}

const HEADER = '{"version":2}';
const WEB = '{"service":"web","origin":"registry"}';
const RECORD = '{"host":"10.0.0.1","port":80,"name":"a"}';

describe('the catalog on disk', () => {
  test('comes back as it was', () =>
    inDirectory(async (directory) => {
      const file = path.join(directory, 'catalog.json');
      const store = createSnapshotStore(file, silentLog);
      assert.equal((await store.load()).size, 0);
      const catalog = new Map([...catalogOf(A, B), ['api', { instances: [], origin: 'elsewhere' }]]);
      store.save(() => catalog);
      await store.close();
      assert.deepEqual(await createSnapshotStore(file, silentLog).load(), catalog);
      assert.deepEqual(await readdir(directory), ['catalog.json']);
    }));

  test('costs itself only when it is damaged or of another version', () =>
    inDirectory(async (directory) => {
      const file = path.join(directory, 'catalog.json');
      const { log, entries } = recordingLog();
      const store = createSnapshotStore(file, log);
      const damaged = ['', '{', 'null', '[]', '\0\0\0', '{"version":1,"services":{"web":[]}}', `${WEB}\n`];
      for (const text of damaged) {
        await writeFile(file, text);
        assert.equal((await store.load()).size, 0, text);
      }
      assert.equal(entries.length, damaged.length);
    }));

  test('a line that is damaged costs only itself, wherever a power cut has left the file', () =>
    inDirectory(async (directory) => {
      const file = path.join(directory, 'catalog.json');
      const store = createSnapshotStore(file, silentLog);
      const instances = async (...lines: string[]) => {
        await writeFile(file, lines.join('\n'));
        return [...(await store.load())].map(([service, entry]) => [service, entry.instances.length]);
      };
      assert.deepEqual(await instances(HEADER, WEB, RECORD, 'no record', RECORD.slice(0, 9)), [['web', 1]]);
      assert.deepEqual(
        await instances(HEADER, '{"service":"api"', RECORD, WEB, RECORD),
        [['web', 1]],
        "the records of a service without a name are nobody else's",
      );
      assert.deepEqual(await instances(HEADER, RECORD), []);
    }));

  test('is written at once, then at most once a second; the newest wins, and close writes what waits', () =>
    inDirectory(async (directory) => {
      const file = path.join(directory, 'catalog.json');
      const store = createSnapshotStore(file, silentLog);
      store.save(() => catalogOf(A));
      const first = await eventually(() => readFile(file, 'utf8'));
      for (let weight = 1; weight <= 20; weight += 1) store.save(() => catalogOf({ ...B, weight }));
      await sleep(50);
      assert.equal(await readFile(file, 'utf8'), first);
      await store.close();
      assert.equal((await store.load()).get('web')?.instances[0]?.weight, 20);
    }));

  test('of 100,000 instances, a save costs what has changed', () =>
    inDirectory(async (directory) => {
      const file = path.join(directory, 'catalog.json');
      const store = createSnapshotStore(file, silentLog);
      let encoded = 0;
      const fleet = (service: number): Instance[] =>
        Array.from({ length: 1_000 }, (_, index) => ({
          get name() {
            encoded += 1;
            return `i-${index}`;
          },
          host: `10.1.${service}.1`,
          port: 1_000 + index,
        }));
      const catalog = new Map(
        Array.from({ length: 100 }, (_, index) => [`s${index}`, { instances: fleet(index), origin: '' }]),
      );
      store.save(() => catalog);
      await eventually(() => readFile(file, 'utf8'));
      assert.equal(encoded, 100_000);
      catalog.set('s7', { instances: fleet(7), origin: '' });
      store.save(() => catalog);
      await store.close();
      assert.equal(encoded, 101_000);
      assert.equal((await store.load()).size, 100);
    }));

  test('is tried again by itself when the disk was full', () =>
    inDirectory(async (directory) => {
      const file = path.join(directory, 'state', 'catalog.json');
      const { log, entries } = recordingLog();
      const store = createSnapshotStore(file, log);
      store.save(() => catalogOf(A));
      await eventually(() => assert.equal(entries.length, 1));
      assert.equal(entries[0]?.level, 'error');
      await mkdir(path.dirname(file));
      await eventually(() => assert.ok(existsSync(file)));
      await store.close();
      assert.equal(entries.length, 1);
    }));
});

describe('what operators hold', () => {
  const id = instanceId(A);

  test('is remembered by service, until it is released', () =>
    inDirectory(async (directory) => {
      const file = path.join(directory, 'holds.json');
      const store = createHoldsStore(file, silentLog);
      assert.deepEqual(await Promise.all([store.set('web', id, 'drain'), store.set('api', id, 'maint')]), [
        true,
        true,
      ]);
      const next = createHoldsStore(file, silentLog);
      await next.load();
      assert.deepEqual(next.holds, store.holds);
      assert.deepEqual([next.holds.get('web')?.get(id), next.holds.get('api')?.get(id)], ['drain', 'maint']);
      const api = next.holds.get('api');
      await next.set('web', id, undefined);
      assert.deepEqual([...next.holds.keys()], ['api']);
      assert.equal(next.holds.get('api'), api, 'what has not changed is the same');
    }));

  test('is known before anything is added to it', () =>
    inDirectory(async (directory) => {
      const file = path.join(directory, 'holds.json');
      await createHoldsStore(file, silentLog).set('web', id, 'drain');
      const store = createHoldsStore(file, silentLog);
      await store.set('api', id, 'drain');
      await store.load();
      assert.deepEqual([...store.holds.keys()], ['web', 'api']);
    }));

  test('is in force, and said not to be remembered, when the disk does not take it', () =>
    inDirectory(async (directory) => {
      const { log, entries } = recordingLog();
      const store = createHoldsStore(path.join(directory, 'nowhere', 'holds.json'), log);
      assert.equal(await store.set('web', id, 'drain'), false);
      assert.equal(store.holds.get('web')?.get(id), 'drain');
      assert.equal(entries.length, 1);
    }));

  test('is nothing, loudly, when the file cannot be read', () =>
    inDirectory(async (directory) => {
      const file = path.join(directory, 'holds.json');
      const { log, entries } = recordingLog();
      for (const text of ['', '{"version":1,"holds":{"web":{"a":"elsewhere"}}}', '{"version":9}']) {
        await writeFile(file, text);
        const store = createHoldsStore(file, log);
        await store.load();
        assert.equal(store.holds.size, 0);
      }
      assert.deepEqual(
        entries.map(({ level }) => level),
        ['error', 'error', 'error'],
      );
    }));
});

describe('the structure on disk', () => {
  const everything = buildStructure(
    HaproxySection.parse({
      socket_group: 'haproxy',
      extra_sections: { 'listen x': ['mode tcp'] },
      shared_frontends: { edge: { listen: [80, '/run/edge.sock'], lines: ['maxconn 5'] } },
      port_range: { http: '21000-21009', tcp: '22000-22009', spares: 2 },
    }),
    [
      service('web', '127.0.0.1:3210', {
        server_options: 'check',
        gate: { first_check: '2s' },
        backend: ['option httpchk'],
      }),
      service('shop', undefined, { shared_frontend: 'edge', hosts: ['shop.example'] }),
    ],
  );

  for (const [name, structure] of Object.entries({ plain: structureOf(), everything }))
    test(`comes back as it was: ${name}`, () =>
      inDirectory(async (directory) => {
        const { log, entries } = recordingLog();
        const store = createStructureStore(path.join(directory, 'structure.json'), log);
        assert.equal(await store.load(), undefined);
        await store.save(structure);
        assert.deepEqual(await store.load(), structure);
        assert.equal(entries.length, 0);
      }));

  test('is a pity when it is damaged, of another version or cannot be written, and no failure', () =>
    inDirectory(async (directory) => {
      const file = path.join(directory, 'structure.json');
      const { log, entries } = recordingLog();
      const store = createStructureStore(file, log);
      await store.save(structureOf());
      const stored = JSON.parse(await readFile(file, 'utf8')) as { structure: object };
      const former = { ...stored.structure, sharedFrontends: undefined };
      for (const text of [
        '{"proxies":[{}]}',
        '{"version":2,"struc',
        '',
        'null',
        JSON.stringify(stored.structure),
        JSON.stringify({ ...stored, version: 1 }),
        JSON.stringify({ ...stored, version: 99 }),
        JSON.stringify({ ...stored, structure: former }),
      ]) {
        await writeFile(file, text);
        assert.equal(await store.load(), undefined, text);
        assert.equal(entries.pop()?.message, 'cannot use the saved structure');
      }
      await rm(directory, { recursive: true });
      await store.save(structureOf());
      assert.deepEqual(
        entries.map(({ message }) => message),
        ['cannot save the structure'],
      );
    }));
});
