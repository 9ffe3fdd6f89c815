import assert from 'node:assert/strict';
import { mkdtemp, mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

import {
  createServiceFiles,
  createServiceMemory,
  type HostSettings,
  loadHostSettings,
} from '@tandem/cli/testing';
import { type Log, silentLog } from '@tandem/core';

import { recordingLog } from '../../support/haproxy.ts';

const HOST = 'host: { name: h, address: 127.0.0.1 }\nregistry: { memory: {} }\n';

function both(name: string, port: number): string {
  return `service: ${name}\nregister: { port: ${port} }\ndiscover: { listen: ${port + 1} }\n`;
}

function messagesOf({ entries }: ReturnType<typeof recordingLog>): string[] {
  return entries.map(({ message }) => message);
}

describe('service files over a restart', () => {
  let root = '';
  before(async () => {
    root = await mkdtemp(path.join(tmpdir(), 'tandem-memory-'));
  });
  after(() => rm(root, { recursive: true, force: true }));

  /** A host with the services `a` and `b`, whose first life is over. */
  async function startScene() {
    const directory = await mkdtemp(path.join(root, 'host-'));
    await mkdir(path.join(directory, 'services.d'));
    const config = path.join(directory, 'tandem.yaml');
    const memory = path.join(directory, 'services.json');
    await writeFile(config, HOST);
    const write = (name: string, text: string) =>
      writeFile(path.join(directory, 'services.d', `${name}.yaml`), text);
    /** What a new life makes of the files. */
    async function live(log: Log = silentLog) {
      const loaded = await loadHostSettings(config);
      assert.ok(loaded.ok);
      const settings: HostSettings = loaded.value;
      const files = createServiceFiles(settings, createServiceMemory(memory, log));
      return {
        settings,
        async load() {
          const { registrations, discovered, problems, isKnown } = await files.load();
          await files.remember();
          return {
            registered: registrations.map(({ service, config: { port } }) => `${service}:${port}`),
            discovered: discovered.map(({ service }) => service),
            problems: problems.length,
            isKnown,
          };
        },
        /** Whether what an earlier life has done and nobody wants now may go. */
        async isComplete() {
          return (await files.load()).isComplete;
        },
      };
    }
    await write('a', both('a', 1000));
    await write('b', both('b', 2000));
    await (await live()).load();
    return { config, memory, write, live, services: path.join(directory, 'services.d') };
  }

  const BOTH = { registered: ['a:1000', 'b:2000'], discovered: ['a', 'b'], isKnown: true };

  test('that are broken go on with their last good version, life after life, until they are mended', async () => {
    const { write, live } = await startScene();
    await write('a', 'service: [\n');

    for (let life = 0; life < 2; life += 1)
      assert.deepEqual(await (await live()).load(), { ...BOTH, problems: 1 });
    await write('a', both('a', 3000));
    const mended = await (await live()).load();

    assert.deepEqual(mended.registered, ['a:3000', 'b:2000']);
    assert.equal(mended.problems, 0);
  });

  test('whose directory is away go on as they were; what is gone when it is back is gone', async () => {
    const { live, services } = await startScene();
    await rename(services, `${services}.away`);

    const life = await live();
    assert.deepEqual(await life.load(), { ...BOTH, problems: 1 });
    assert.deepEqual(await life.load(), { ...BOTH, problems: 1 });
    await rm(path.join(`${services}.away`, 'a.yaml'));
    await rename(`${services}.away`, services);
    assert.deepEqual(await life.load(), {
      registered: ['b:2000'],
      discovered: ['b'],
      problems: 0,
      isKnown: true,
    });
    await rename(services, `${services}.away`);
    assert.deepEqual((await (await live()).load()).discovered, ['b'], 'what is gone does not come back');
  });

  test('mean nothing while nobody has ever read them', async () => {
    const { memory, live, services } = await startScene();
    await rm(memory);
    await rename(services, `${services}.away`);

    const life = await live();
    assert.deepEqual(await life.load(), { registered: [], discovered: [], problems: 1, isKnown: false });
    await assert.rejects(stat(memory), /ENOENT/, 'that nothing is known is not remembered');
    await rename(`${services}.away`, services);
    assert.deepEqual(await life.load(), { ...BOTH, problems: 0 });
  });

  test('that had an address first have it still, whatever the newcomers are called', async () => {
    const { write, live } = await startScene();
    await write('0-thief', 'service: thief\ndiscover: { listen: 1001 }\n');

    const { discovered, problems } = await (await live()).load();

    assert.deepEqual([discovered, problems], [['a', 'b'], 1]);
  });

  test('are not remembered where the host file has no place for them any more', async () => {
    const { config, write, live } = await startScene();
    await write('a', 'service: [\n');
    await writeFile(config, `${HOST}haproxy: { port_range: { tcp: 1000-1001 } }\n`);

    const { discovered, problems } = await (await live()).load();

    assert.deepEqual([discovered, problems], [['b'], 1]);
  });

  test('are all accounted for, unless one that is set aside may have been in force in a way that nobody knows', async () => {
    const { config, memory, write, live } = await startScene();
    await write('a', 'service: [\n');
    assert.equal(await (await live()).isComplete(), true, 'its last good version is in force');
    await write('c', 'service: [\n');
    assert.equal(await (await live()).isComplete(), true, 'it never was in force');
    await writeFile(config, `${HOST}haproxy: { port_range: { tcp: 1000-1001 } }\n`);
    assert.equal(await (await live()).isComplete(), false, 'it was, and its last good version is of no use');
    await writeFile(config, HOST);
    await rm(memory);
    assert.equal(await (await live()).isComplete(), false, 'nobody remembers');
    await write('a', both('a', 3000));
    await write('c', both('c', 4000));
    assert.equal(await (await live()).isComplete(), true, 'nothing is set aside');
  });

  test('are read afresh when the memory is damaged, and that is said', async () => {
    for (const damage of ['', '{', '{"version":2,"files":{}}', '{"version":1,"files":{"a.yaml":3}}']) {
      const { memory, live } = await startScene();
      await writeFile(memory, damage);
      const log = recordingLog();

      assert.deepEqual(await (await live(log.log)).load(), { ...BOTH, problems: 0 });

      assert.deepEqual(messagesOf(log), ['cannot read the last good versions of service files'], damage);
      assert.deepEqual(Object.keys(JSON.parse(await readFile(memory, 'utf8')).files), ['a.yaml', 'b.yaml']);
    }
  });

  test('are remembered for nobody else to read, and only those of the directory', async () => {
    const { memory, live, services } = await startScene();
    assert.equal((await stat(memory)).mode & 0o777, 0o600);
    await rename(services, `${services}.away`);
    const files = { '../outside.yaml': both('x', 5000), 'b.yaml': both('b', 2000) };
    await writeFile(memory, JSON.stringify({ version: 1, files }));

    const { discovered } = await (await live()).load();

    assert.deepEqual(discovered, ['b']);
  });

  test('go on without a memory that cannot be written, which is said once', async () => {
    const { memory, write, live } = await startScene();
    const log = recordingLog();
    const life = await live(log.log);
    await rm(memory);
    await mkdir(memory);
    await write('a', both('a', 3000));

    for (let count = 0; count < 2; count += 1)
      assert.deepEqual((await life.load()).registered, ['a:3000', 'b:2000']);

    assert.equal(messagesOf(log).filter((message) => message.startsWith('cannot keep')).length, 1);
  });
});
