import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import type { Instance, Log } from '@tandem/core';
import { silentLog } from '@tandem/core';
import { createSource, type Source } from '@tandem/discovery/testing';
import { openRegistry, RegistrySection } from '@tandem/registry';

import { follow, sourceConformance, type SourceSubject } from '../../conformance/source.ts';
import { eventually } from '../../support/eventually.ts';
import { listen } from '../../support/registries.ts';

async function sourceOf(file: string, log: Log = silentLog): Promise<Source> {
  const registry = await openRegistry(RegistrySection.parse({ memory: {} }), { log: silentLog });
  return createSource(
    { kind: 'file', options: { path: file } },
    { registry, path: '/services/web', format: { kind: 'nerve' }, hostName: 'host-1', log },
  );
}

function member(number: number): Instance {
  return { name: `i-${number}`, host: '10.0.0.1', port: 8000 + number, weight: 2, labels: { zone: 'a' } };
}

function temporary(): string {
  return mkdtempSync(path.join(tmpdir(), 'tandem-file-source-'));
}

function replace(file: string, text: string): void {
  writeFileSync(`${file}.new`, text);
  renameSync(`${file}.new`, file);
}

/** Watchers and timers of this process. */
function resources(): number {
  return process.getActiveResourcesInfo().filter((name) => /^(FSEVENTWRAP|FSEvent|Timeout)/i.test(name))
    .length;
}

async function fileSubject(...first: number[]): Promise<SourceSubject> {
  const directory = temporary();
  const file = path.join(directory, 'web.json');
  const before = resources();
  let text = JSON.stringify(first.map(member));
  let isHidden = first.length === 0;
  const write = (next: string) => {
    text = next;
    if (!isHidden) replace(file, text);
  };
  if (!isHidden) write(text);
  return {
    source: await sourceOf(file),
    instanceOf: member,
    serve: (...members) => write(JSON.stringify(members.map(member))),
    hide() {
      isHidden = true;
      unlinkSync(file);
    },
    restore() {
      isHidden = false;
      write(text);
    },
    serveWithBroken(...members) {
      const [one, ...others] = members.map(member);
      write(JSON.stringify([one, { host: '10.0.0.1', port: 0 }, 7, null, ...others]));
    },
    leftovers: () => Math.max(0, resources() - before),
    close: () => rmSync(directory, { recursive: true, force: true }),
  };
}

sourceConformance('file', fileSubject);

async function watching(t: TestContext, text?: string) {
  const directory = temporary();
  const file = path.join(directory, 'web.yaml');
  if (text !== undefined) writeFileSync(file, text);
  const { log, lines } = listen();
  const watch = follow(await sourceOf(file, log));
  t.after(async () => {
    await watch.stop();
    rmSync(directory, { recursive: true, force: true });
  });
  return { directory, file, watch, lines };
}

const LIST = '- host: 10.0.0.1\n  port: 80\n';
const ONE: Instance = { name: '', host: '10.0.0.1', port: 80 };

describe('a file of instances', () => {
  test('is a list or a map by name, in YAML or JSON, as Nerve and Synapse write records', async (t) => {
    const { file, watch } = await watching(t, LIST);
    await watch.shows(ONE);
    replace(
      file,
      'one: { host: 10.0.0.1, port: "81" }\ntwo:\n  { name: other, host: web.example.com, port: 82 }\n',
    );
    await watch.shows(
      { name: 'one', host: '10.0.0.1', port: 81 },
      { name: 'other', host: 'web.example.com', port: 82 },
    );
    replace(
      file,
      '[{"name":"i-1","host":"10.0.0.2","port":83,"id":7,"weight":null,"haproxy_server_options":"backup","labels":{"az":"a"}}]',
    );
    await watch.shows({
      name: 'i-1',
      host: '10.0.0.2',
      port: 83,
      haproxyServerOptions: 'backup',
      labels: { az: 'a' },
    });
    replace(file, '[]');
    await watch.shows();
  });

  test('keeps what it last said while it is broken, and says so once, with the place', async (t) => {
    const { file, watch, lines } = await watching(t, LIST);
    await watch.shows(ONE);
    for (const [text, problem] of [
      ['- host: 10.0.0.1\n  port: [\n', /web\.yaml:\d+:\d+: not valid YAML/],
      ['', /web\.yaml:1:1: is empty/],
      ['- host: 10.0.0.1\n  port: 8', /web\.yaml:2:1: the last line has no end/],
      ['just a word\n', /web\.yaml:1:1: must be/],
      ['{}', /web\.yaml:1:1: is empty/],
      ['# two lines\n- port: 80\n', /web\.yaml:2:3: \[0\]: host is missing/],
      ['# nothing yet\n', /web\.yaml:1:1: is empty\. Write \[\] for none/],
      ['instances:\n  - { host: 10.0.0.1, port: 80 }\n', /web\.yaml:2:3: \[instances\]: host is missing/],
    ] as const) {
      lines.length = 0;
      replace(file, text);
      await eventually(() => assert.match(String(lines[0]?.facts['problem']), problem));
      await sleep(20);
      assert.equal(lines.length, 1, text);
    }
    replace(file, LIST);
    await eventually(() => assert.equal(lines.at(-1)?.message, 'a file of instances can be used again'));
    assert.equal(watch.snapshots.length, 1);
    // The look that comes by the clock finds nothing new to say.
    await sleep(1_100);
    assert.equal(watch.snapshots.length, 1);
    assert.equal(lines.length, 2);
  });

  test('that is written bit by bit is read when it is whole', async (t) => {
    const { file, watch } = await watching(t, '[]');
    await watch.shows();
    const text = JSON.stringify([1, 2, 3].map(member));
    for (let length = 0; length <= text.length; length += 40) {
      writeFileSync(file, text.slice(0, length));
      await sleep(5);
    }
    writeFileSync(file, text);
    await watch.shows(...[1, 2, 3].map(member));
    assert.equal(watch.snapshots.length, 2);
  });

  test('may be large if it is JSON', async (t) => {
    const { file, watch, lines } = await watching(t, '[]');
    await watch.shows();
    const many = Array.from({ length: 20_000 }, (_, index) => ({
      ...ONE,
      name: `instance-${String(index).padStart(6, '0')}`,
    }));
    replace(file, JSON.stringify([...many, 7]));
    await eventually(() => assert.equal(watch.latest?.instances.length, many.length));
    assert.match(watch.latest?.rejected[0]?.place ?? '', /web\.yaml\[20000\]$/);
    replace(file, many.map(({ name }) => `- { name: ${name}, host: 10.0.0.1, port: 80 }\n`).join(''));
    await eventually(() =>
      assert.match(String(lines.at(-1)?.facts['problem']), /is not JSON, and too large for YAML/),
    );
    replace(file, `[]${' '.repeat(16 * 1024 * 1024)}`);
    await eventually(() => assert.match(String(lines.at(-1)?.facts['problem']), /is larger than \d+ bytes/));
    assert.equal(watch.snapshots.length, 2);
  });

  test('that is gone says nothing, and is read again when it is back', async (t) => {
    const { file, watch, lines } = await watching(t, LIST);
    await watch.shows(ONE);
    unlinkSync(file);
    await eventually(() => assert.equal(lines.at(-1)?.facts['problem'], 'does not exist'));
    replace(file, '- { host: 10.0.0.2, port: 80 }');
    await watch.shows({ ...ONE, host: '10.0.0.2' });
    assert.equal(watch.snapshots.length, 2);
  });

  test('whose directory is deleted and made again is found', async (t) => {
    const { directory, file, watch } = await watching(t, LIST);
    await watch.shows(ONE);
    rmSync(directory, { recursive: true });
    await sleep(100);
    mkdirSync(directory);
    replace(file, '- { host: 10.0.0.2, port: 80 }');
    await watch.shows({ ...ONE, host: '10.0.0.2' });
  });

  test('behind links is followed when one of them is swapped, as a mounted ConfigMap does', async (t) => {
    const { directory, file, watch } = await watching(t);
    const release = (name: string, host: string) => {
      mkdirSync(path.join(directory, name));
      writeFileSync(path.join(directory, name, 'web.yaml'), `- { host: ${host}, port: 80 }\n`);
      symlinkSync(name, path.join(directory, '..data.new'));
      renameSync(path.join(directory, '..data.new'), path.join(directory, '..data'));
    };
    release('1', '10.0.0.1');
    symlinkSync('..data/web.yaml', file);
    await watch.shows(ONE);
    release('2', '10.0.0.2');
    await watch.shows({ ...ONE, host: '10.0.0.2' });
  });

  test('that is a directory, a pipe or a link to itself costs a message, not the watch', async (t) => {
    const { file, watch, lines } = await watching(t, LIST);
    await watch.shows(ONE);
    unlinkSync(file);
    mkdirSync(file);
    await eventually(() => assert.equal(lines.at(-1)?.facts['problem'], 'is not a file'));
    rmSync(file, { recursive: true });
    symlinkSync('web.yaml', file);
    await eventually(() => assert.match(String(lines.at(-1)?.facts['problem']), /cannot be read: ELOOP/));
    replace(file, '[]');
    await watch.shows();
  });

  test('of hostile text sets aside what it cannot use, each with its place', async (t) => {
    const { watch } = await watching(
      t,
      [
        '- { host: 10.0.0.1, port: 80 }',
        `- { host: "${'x'.repeat(300)}", port: 80 }`,
        '- &loop { host: [*loop], port: 80 }',
        '- __proto__: { host: 10.0.0.2, port: 80 }',
        '- "\\0\\n"',
        '',
      ].join('\n'),
    );
    await watch.shows(ONE);
    assert.deepEqual(
      watch.latest?.rejected.map(({ place }) => place.slice(place.lastIndexOf('web.yaml'))),
      ['2:3', '3:9', '4:3', '5:3'].map((place) => `web.yaml:${place}`),
    );
  });
});
