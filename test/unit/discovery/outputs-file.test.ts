import assert from 'node:assert/strict';
import { createHook } from 'node:async_hooks';
import { existsSync, statSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { type Instance, instanceId } from '@tandem/core';
import { createFileOutput, FilesSection, type Offers, renderInstances } from '@tandem/discovery/testing';
import * as fc from 'fast-check';

import { eventually, type LogEntry, recordingLog } from '../../support/haproxy.ts';
import { inDirectory } from '../../support/directory.ts';
import { offersOf } from './support.ts';

const A: Instance = { name: 'a', host: '10.0.0.1', port: 80, weight: 3, labels: { zone: 'x', az: 'y' } };
const B: Instance = { name: '', host: 'fe80::1', port: 81, haproxyServerOptions: 'backup' };

interface Running {
  offer(offers: Offers): void;
  readonly entries: LogEntry[];
  logged(message: string): LogEntry[];
}

/** A file output while the body runs. */
async function running(
  directory: string,
  body: (output: Running) => Promise<void>,
  settings: Record<string, unknown> = {},
): Promise<void> {
  const { log, entries } = recordingLog();
  const output = createFileOutput(FilesSection.parse({ directory, ...settings }), log);
  const controller = new AbortController();
  const ended = output.run(controller.signal);
  try {
    await body({
      offer: (offers) => output.offer(offers),
      entries,
      logged: (message) => entries.filter((entry) => entry.message === message),
    });
  } finally {
    controller.abort();
    await ended;
  }
}

function becomes(directory: string, texts: Readonly<Record<string, string | undefined>>): Promise<void> {
  return eventually(async () => {
    for (const [name, text] of Object.entries(texts)) {
      const file = path.join(directory, name);
      assert.equal(existsSync(file) ? await readFile(file, 'utf8') : undefined, text, name);
    }
  });
}

const NOTHING_KNOWN: Offers = new Map(
  [...offersOf({ web: [] })].map(([name, offer]) => [name, { ...offer, instances: undefined }]),
);

describe('the file of a service', () => {
  const holds = new Map();

  test('is a compact JSON array, as file_output of Synapse writes it', () => {
    assert.equal(
      renderInstances({ instances: [A, B], holds }),
      '[{"name":"a","host":"10.0.0.1","port":80,"weight":3,"labels":{"az":"y","zone":"x"}},' +
        '{"name":"","host":"fe80::1","port":81}]',
    );
    assert.equal(renderInstances({ instances: [], holds }), '[]');
  });

  test('leaves out what an operator holds: its readers know of no other way', () => {
    const held = new Map([[instanceId(A), 'drain' as const]]);
    assert.equal(
      renderInstances({ instances: [A, B], holds: held }),
      '[{"name":"","host":"fe80::1","port":81}]',
    );
  });

  test('is one line of JSON whatever was announced, and says the same of equal instances', () => {
    const text = fc.string({ unit: 'binary' });
    const instance = fc.record({
      name: text,
      host: text,
      port: fc.integer({ min: 1, max: 65_535 }),
      weight: fc.nat(),
      labels: fc.dictionary(text, text),
    });
    fc.assert(
      fc.property(fc.array(instance), (instances) => {
        const rendered = renderInstances({ instances, holds });
        const shuffled = instances.map((one) => ({
          ...one,
          labels: Object.fromEntries(Object.entries(one.labels).toReversed()),
        }));
        assert.deepEqual(JSON.parse(rendered), JSON.parse(JSON.stringify(instances)));
        assert.equal(renderInstances({ instances: shuffled, holds }), rendered);
        assert.doesNotMatch(rendered, /\n/);
      }),
    );
  });
});

describe('the file output', () => {
  test('looks at the file of the service that has changed, and at the others now and then', () =>
    inDirectory(async (directory) => {
      const count = 500;
      const all = offersOf(
        Object.fromEntries(Array.from({ length: count }, (_, index) => [`s-${index}`, [A]])),
      );
      let operations = 0;
      const hook = createHook({
        init(_, type) {
          if (type === 'FSREQPROMISE') operations += 1;
        },
      });
      await running(
        directory,
        async (output) => {
          output.offer(all);
          await eventually(() => assert.ok(existsSync(path.join(directory, `s-${count - 1}.json`))));
          hook.enable();
          const costs: number[] = [];
          for (let change = 0; change < 10; change += 1) {
            await sleep(50);
            operations = 0;
            output.offer(new Map([...all, ...offersOf({ 's-1': change % 2 === 0 ? [B] : [A, B] })]));
            await sleep(50);
            costs.push(operations);
          }
          assert.ok(Math.min(...costs.filter((cost) => cost > 0)) < 50, costs.join(' '));
          operations = 0;
          await eventually(() => assert.ok(operations >= count));
        },
        { max_writes_per_second: 1_000 },
      );
      hook.disable();
    }));

  test('writes a file per service, follows changes, and makes the directory', () =>
    inDirectory(async (parent) => {
      const directory = path.join(parent, 'run', 'services');
      await running(directory, async (output) => {
        output.offer(offersOf({ web: [A], api: [] }));
        await becomes(directory, {
          'web.json': renderInstances({ instances: [A], holds: new Map() }),
          'api.json': '[]',
        });
        output.offer(offersOf({ web: [B], api: [] }));
        await becomes(directory, { 'web.json': '[{"name":"","host":"fe80::1","port":81}]' });
        assert.equal(statSync(path.join(directory, 'web.json')).mode & 0o777, 0o644);
        assert.deepEqual((await readdir(directory)).toSorted(), ['.tandem-files', 'api.json', 'web.json']);
        assert.deepEqual(output.entries, []);
      });
    }));

  test('is readable for others even under a strict umask', () =>
    inDirectory(async (directory) => {
      const before = process.umask(0o077);
      try {
        await running(directory, async (output) => {
          output.offer(offersOf({ web: [A] }));
          await eventually(() =>
            assert.equal(statSync(path.join(directory, 'web.json')).mode & 0o777, 0o644),
          );
        });
      } finally {
        process.umask(before);
      }
    }));

  test('keeps the file of a service of which nothing is known', () =>
    inDirectory(async (directory) => {
      await writeFile(path.join(directory, 'web.json'), '[1]');
      await writeFile(path.join(directory, '.tandem-files'), '{"version":1,"services":["web"]}\n');
      await running(directory, async (output) => {
        output.offer(new Map([...NOTHING_KNOWN, ...offersOf({ api: [] })]));
        await becomes(directory, { 'api.json': '[]', 'web.json': '[1]' });
      });
    }));

  test('a restart writes nothing that stands there already', () =>
    inDirectory(async (directory) => {
      const file = path.join(directory, 'web.json');
      await running(directory, async (output) => {
        output.offer(offersOf({ web: [A] }));
        await eventually(() => assert.ok(existsSync(file)));
      });
      const before = await stat(file);
      await running(directory, async (output) => {
        output.offer(offersOf({ web: [A], api: [] }));
        await becomes(directory, { 'api.json': '[]' });
      });
      const after = await stat(file);
      assert.deepEqual([after.ino, after.mtimeMs], [before.ino, before.mtimeMs]);
    }));

  test('deletes the files of services that are gone, also of those before a restart, and no others', () =>
    inDirectory(async (directory) => {
      for (const foreign of ['foreign.json', 'notes.txt', '.hidden.json.1.1.tmp'])
        await writeFile(path.join(directory, foreign), 'x');
      await running(directory, async (output) => {
        output.offer(offersOf({ web: [A], api: [A], old: [A] }));
        await eventually(() => assert.ok(existsSync(path.join(directory, 'old.json'))));
        output.offer(offersOf({ web: [A], api: [A] }));
        await becomes(directory, { 'old.json': undefined });
      });
      // What a crash in the middle of a write leaves.
      await writeFile(path.join(directory, '.api.json.77.3.tmp'), '[{"na');
      await running(directory, async (output) => {
        output.offer(offersOf({ web: [A] }));
        await becomes(directory, { 'api.json': undefined, '.api.json.77.3.tmp': undefined });
        await becomes(directory, { '.tandem-files': '{"version":1,"services":["web"]}\n' });
      });
      assert.deepEqual((await readdir(directory)).toSorted(), [
        '.hidden.json.1.1.tmp',
        '.tandem-files',
        'foreign.json',
        'notes.txt',
        'web.json',
      ]);
    }));

  test('a manifest that cannot be read, or names what is no service, deletes nothing', () =>
    inDirectory(async (parent) => {
      const directory = path.join(parent, 'services');
      await mkdir(directory);
      await writeFile(path.join(parent, 'precious.json'), 'x');
      await writeFile(path.join(directory, 'precious.json'), 'x');
      for (const manifest of ['{"version":1,"serv', '{"version":1,"services":["../precious","precious"]}']) {
        await writeFile(path.join(directory, '.tandem-files'), manifest);
        await running(directory, async (output) => {
          output.offer(offersOf({ web: [A] }));
          await becomes(directory, { '.tandem-files': '{"version":1,"services":["web"]}\n' });
          await eventually(() => assert.ok(existsSync(path.join(directory, 'web.json'))));
          assert.equal(
            output.logged('nobody knows which files are ours, those of services that are gone stay').length,
            1,
          );
        });
      }
      await becomes(parent, { 'precious.json': 'x', 'services/precious.json': 'x' });
    }));

  test('what is edited, deleted or replaced is put back, and told', () =>
    inDirectory(async (parent) => {
      const directory = path.join(parent, 'services');
      const file = path.join(directory, 'web.json');
      await running(directory, async (output) => {
        output.offer(offersOf({ web: [A] }));
        const text = renderInstances({ instances: [A], holds: new Map() });
        await becomes(directory, { 'web.json': text });
        for (const spoil of [
          () => writeFile(file, '[]'),
          () => rm(file),
          async () => {
            // The same size, and an old time.
            await writeFile(file, text.replace('10.0.0.1', '10.0.0.2'));
            await utimes(file, 1, 1);
          },
          async () => {
            await writeFile(path.join(parent, 'elsewhere'), '[]');
            await rm(file);
            await symlink(path.join(parent, 'elsewhere'), file);
          },
          () => rm(directory, { recursive: true }),
        ]) {
          const told = output.logged('somebody has changed the file of a service, it is put back').length;
          await spoil();
          await eventually(() => {
            const now = output.logged('somebody has changed the file of a service, it is put back').length;
            assert.equal(now, told + 1, String(spoil));
          });
          await becomes(directory, { 'web.json': text });
        }
        await becomes(directory, { '.tandem-files': '{"version":1,"services":["web"]}\n' });
        assert.equal(await readFile(path.join(parent, 'elsewhere'), 'utf8'), '[]', 'a link is not followed');
      });
    }));

  test('what cannot be written is told once and tried again, and costs the others nothing', () =>
    inDirectory(async (directory) => {
      await mkdir(path.join(directory, 'web.json', 'full'), { recursive: true });
      await running(directory, async (output) => {
        output.offer(offersOf({ web: [A], api: [] }));
        const failure = 'cannot keep the file of a service, trying again';
        await eventually(() => assert.equal(output.logged(failure).length, 1));
        await becomes(directory, { 'api.json': '[]' });
        output.offer(offersOf({ web: [A], api: [B] }));
        await becomes(directory, { 'api.json': '[{"name":"","host":"fe80::1","port":81}]' });
        await sleep(500);
        const [entry] = output.logged(failure);
        assert.equal(output.logged(failure).length, 1);
        assert.equal(entry?.facts['code'], 'FILE_WRITE_FAILED');
        await rename(path.join(directory, 'web.json'), path.join(directory, 'aside'));
        await eventually(() => assert.equal(output.logged('the file of a service is kept again').length, 1));
        await becomes(directory, { 'web.json': renderInstances({ instances: [A], holds: new Map() }) });
        assert.deepEqual((await readdir(directory)).toSorted(), [
          '.tandem-files',
          'api.json',
          'aside',
          'web.json',
        ]);
      });
    }));

  test('a directory that cannot be is told once, and used when it can', () =>
    inDirectory(async (parent) => {
      const directory = path.join(parent, 'file', 'services');
      await writeFile(path.join(parent, 'file'), '');
      await running(directory, async (output) => {
        output.offer(offersOf({ web: [], api: [] }));
        await eventually(() => assert.equal(output.entries.length, 2));
        await rm(path.join(parent, 'file'));
        await becomes(directory, { 'web.json': '[]', 'api.json': '[]' });
      });
    }));

  test('a file that changes all the time is written so often and no more, and ends up as the last', () =>
    inDirectory(async (directory) => {
      const file = path.join(directory, 'web.json');
      const limited = { max_writes_per_second: 5 };
      await running(
        directory,
        async (output) => {
          const texts = new Set<string>();
          const startedAt = performance.now();
          for (let port = 1; port <= 200; port += 1) {
            output.offer(offersOf({ web: [{ name: 'a', host: '10.0.0.1', port }] }));
            await sleep(4);
            if (existsSync(file)) texts.add(await readFile(file, 'utf8'));
          }
          const most = 2 + ((performance.now() - startedAt) / 1_000) * 5;
          assert.ok(texts.size <= most, `${texts.size} writes, at most ${most}`);
          await becomes(directory, { 'web.json': '[{"name":"a","host":"10.0.0.1","port":200}]' });
        },
        limited,
      );
    }));

  test('ends with its signal, also when that is aborted before', async () => {
    const output = createFileOutput(FilesSection.parse({ directory: '/nonexistent' }), recordingLog().log);
    await output.run(AbortSignal.abort());
  });
});
