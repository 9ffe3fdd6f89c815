import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { type Instance, silentLog } from '@tandem/core';
import { buildStructure, type Catalog, HaproxySection } from '@tandem/discovery';
import {
  createSnapshotStore,
  createStructureStore,
  emptyCatalog,
  forgetService,
  recordSnapshot,
} from '@tandem/discovery/testing';

import { eventually, recordingLog, service } from '../../support/haproxy.ts';
import { inDirectory, structureOf } from './support.ts';

const A: Instance = { name: 'a', host: '10.0.0.1', port: 80, weight: 3, labels: { zone: 'x' } };
const B: Instance = { name: 'b', host: 'fe80::1', port: 81, haproxyServerOptions: 'backup' };

function catalogOf(...instances: Instance[]): Catalog {
  return new Map([['web', { instances, kept: false }]]);
}

function snapshot(...instances: Instance[]) {
  return { instances, rejected: [] };
}

describe('the catalog', () => {
  const isUsable = () => true;
  const strict = { allowEmpty: false, isUsable };

  test('has the last snapshot of every service', () => {
    const first = recordSnapshot(emptyCatalog, 'web', snapshot(A), strict);
    const second = recordSnapshot(first, 'web', snapshot(B), strict);
    assert.deepEqual(second.get('web'), { instances: [B], kept: false });
    assert.deepEqual(first.get('web'), { instances: [A], kept: false }, 'values do not change');
  });

  test('keeps the last instances of a service that becomes empty, until it has others', () => {
    const before = recordSnapshot(emptyCatalog, 'web', snapshot(A), strict);
    const kept = recordSnapshot(before, 'web', snapshot(), strict);
    assert.deepEqual(kept.get('web'), { instances: [A], kept: true });
    assert.deepEqual(recordSnapshot(kept, 'web', snapshot(), strict).get('web'), {
      instances: [A],
      kept: true,
    });
    assert.deepEqual(recordSnapshot(kept, 'web', snapshot(B), strict).get('web'), {
      instances: [B],
      kept: false,
    });
  });

  test('lets a service be empty that always was, or that may be', () => {
    const empty = { instances: [], kept: false };
    assert.deepEqual(recordSnapshot(emptyCatalog, 'web', snapshot(), strict).get('web'), empty);
    assert.deepEqual(
      recordSnapshot(catalogOf(A), 'web', snapshot(), { allowEmpty: true, isUsable }).get('web'),
      empty,
    );
  });

  test('keeps the last instances, too, when none of the new ones can be used', () => {
    const policy = { allowEmpty: false, isUsable: (instance: Instance) => instance === A };
    const kept = recordSnapshot(catalogOf(A), 'web', snapshot(B), policy);
    assert.deepEqual(kept.get('web'), { instances: [A], kept: true });
  });

  test('forgets only what it is told to', () => {
    const both = recordSnapshot(catalogOf(A), 'api', snapshot(B), strict);
    assert.deepEqual([...forgetService(both, 'web').keys()], ['api']);
    assert.equal(forgetService(both, 'nobody').size, 2);
    assert.equal(both.size, 2);
  });
});

describe('the catalog on disk', () => {
  test('comes back as it was', () =>
    inDirectory(async (directory) => {
      const file = path.join(directory, 'catalog.json');
      const store = createSnapshotStore(file, silentLog);
      assert.equal((await store.load()).size, 0);
      store.save(catalogOf(A, B));
      await store.close();
      assert.deepEqual(await createSnapshotStore(file, silentLog).load(), catalogOf(A, B));
      assert.deepEqual(await readdir(directory), ['catalog.json']);
    }));

  test('costs itself only when it is damaged, and a record only itself', () =>
    inDirectory(async (directory) => {
      const file = path.join(directory, 'catalog.json');
      const { log, entries } = recordingLog();
      const store = createSnapshotStore(file, log);
      const damaged = [
        '',
        '{',
        'null',
        '[]',
        '{"version":2,"services":{}}',
        '{"version":1,"services":{"web":"x"}}',
      ];
      for (const text of damaged) {
        await writeFile(file, text);
        assert.equal((await store.load()).size, 0, text);
      }
      assert.equal(entries.length, damaged.length);
      const good = JSON.stringify({ host: '10.0.0.1', port: 80, name: 'a' });
      await writeFile(file, JSON.stringify({ version: 1, services: { web: [good, 'not a record'] } }));
      assert.deepEqual((await store.load()).get('web')?.instances, [
        { host: '10.0.0.1', port: 80, name: 'a' },
      ]);
    }));

  test('is written at once, then at most once a second; the newest wins, and close writes what waits', () =>
    inDirectory(async (directory) => {
      const file = path.join(directory, 'catalog.json');
      const store = createSnapshotStore(file, silentLog);
      store.save(catalogOf(A));
      const first = await eventually(() => readFile(file, 'utf8'));
      for (let weight = 1; weight <= 20; weight += 1) store.save(catalogOf({ ...B, weight }));
      await sleep(50);
      assert.equal(await readFile(file, 'utf8'), first);
      await store.close();
      assert.equal((await store.load()).get('web')?.instances[0]?.weight, 20);
    }));

  test('is tried again when the disk was full', () =>
    inDirectory(async (directory) => {
      const file = path.join(directory, 'state', 'catalog.json');
      const { log, entries } = recordingLog();
      const store = createSnapshotStore(file, log);
      const catalog = catalogOf(A);
      store.save(catalog);
      await eventually(() => assert.equal(entries.length, 1));
      assert.equal(entries[0]?.level, 'error');
      await mkdir(path.dirname(file));
      store.save(catalog);
      await store.close();
      assert.ok(existsSync(file));
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
