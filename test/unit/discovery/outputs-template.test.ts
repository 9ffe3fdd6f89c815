import assert from 'node:assert/strict';
import { existsSync, statSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';

import { type Instance, instanceId, silentLog } from '@tandem/core';
import {
  compileTemplate,
  createTemplateMemory,
  createTemplateOutput,
  DiscoverySection,
  FilesSection,
  type Offers,
  resolveOutputFiles,
  TemplateSection,
  toTemplateData,
} from '@tandem/discovery/testing';
import * as fc from 'fast-check';

import { eventually, type LogEntry, recordingLog, service } from '../../support/haproxy.ts';
import { coded } from '../core/support.ts';
import { inDirectory } from '../../support/directory.ts';
import { offersOf } from './support.ts';

const A: Instance = { name: 'a', host: '10.0.0.1', port: 80, weight: 3, labels: { zone: 'x' } };
const B: Instance = { name: 'b', host: '2001:DB8::1', port: 81 };

const knownOf = (offers: Offers) =>
  new Map([...offers].map(([name, { instances }]) => [name, instances ?? []] as const));

function dataOf(offers: Offers, trustLabels = false) {
  return toTemplateData(offers, knownOf(offers), { trustLabels });
}

function unknown(...names: string[]): Offers {
  const offers = offersOf(Object.fromEntries(names.map((name) => [name, []])));
  return new Map([...offers].map(([name, offer]) => [name, { ...offer, instances: undefined }]));
}

describe('what a template sees', () => {
  test('is plain data, the services and their instances in order', () => {
    const { data, rejected } = dataOf(offersOf({ web: [B, A], api: [] }));
    assert.equal(rejected.size, 0);
    assert.deepEqual(data.services, [
      {
        name: 'api',
        path: '/services/api',
        listen: '127.0.0.1:3210',
        isUnix: false,
        mode: 'http',
        instances: [],
        idle: [],
      },
      {
        name: 'web',
        path: '/services/web',
        listen: '127.0.0.1:3210',
        isUnix: false,
        mode: 'http',
        instances: [
          {
            name: 'a',
            host: '10.0.0.1',
            port: 80,
            endpoint: '10.0.0.1:80',
            weight: 3,
            labels: { zone: 'x' },
          },
          { name: 'b', host: '2001:db8::1', port: 81, endpoint: '[2001:db8::1]:81', weight: 1, labels: {} },
        ],
        idle: [],
      },
    ]);
    assert.equal(data.byName['web'], data.services[1]);
  });

  test('has those that get no traffic apart: held by an operator, or of weight 0', () => {
    const C = { ...A, name: 'c', weight: 0 };
    const [[name, offer] = assert.fail()] = offersOf({ web: [A, B, C] });
    const held: Offers = new Map([[name, { ...offer, holds: new Map([[instanceId(A), 'maint']]) }]]);
    const [web] = dataOf(held).data.services;
    assert.deepEqual(
      [web?.instances, web?.idle].map((list) => list?.map(({ name }) => name)),
      [['b'], ['a', 'c']],
    );
  });

  test('tells unix sockets from addresses, because other programs write them differently', () => {
    const offerOf = (listen: string) => ({
      service: service('web', listen),
      instances: [],
      holds: new Map<never, never>(),
    });
    const isUnix = (listen: string) => dataOf(new Map([['web', offerOf(listen)]])).data.services[0]?.isUnix;
    assert.deepEqual(['/run/web.sock', '127.0.0.1:80', '*:80'].map(isUnix), [true, false, false]);
  });

  for (const { what, hostile } of [
    { what: 'a name with another directive', hostile: { ...A, name: 'a; } include /etc/passwd' } },
    { what: 'a name with a line', hostile: { ...A, name: 'a\nb' } },
    { what: 'a host that would be resolved', hostile: { ...A, host: 'example.com' } },
    { what: 'a host with an option', hostile: { ...A, host: '10.0.0.1 backup' } },
    { what: 'the unspecified address', hostile: { ...A, host: '::0' } },
  ])
    test(`lacks an instance with ${what}, and says so`, () => {
      const { data, rejected } = dataOf(offersOf({ web: [hostile, B] }));
      assert.deepEqual(
        data.services[0]?.instances.map(({ name }) => name),
        ['b'],
      );
      assert.equal(rejected.get('web')?.length, 1);
    });

  test('lacks labels that are more than a word, unless they are trusted', () => {
    const labels = Object.fromEntries([
      ['zone', 'eu-1/Zürich'],
      ...['\n', '"', "'", '{', '}', ';', '$x', '\\', '`', 'a b', '#', ''].map((text, index) => [
        `l${index}`,
        text,
      ]),
      ['a"b', 'x'],
      ['__proto__', 'x'],
    ]) as Record<string, string>;
    const offers = offersOf({ web: [{ ...A, labels }] });
    const { data, rejected } = dataOf(offers);
    assert.deepEqual(Object.entries(data.services[0]?.instances[0]?.labels ?? {}), [
      ['__proto__', 'x'],
      ['zone', 'eu-1/Zürich'],
    ]);
    assert.equal(rejected.get('web')?.length, 1);
    assert.deepEqual(dataOf(offers, true).data.services[0]?.instances[0]?.labels, labels);
  });

  test('whatever is announced, no rendered value is more than one word', () => {
    const text = fc.string({ unit: 'binary' });
    const host = fc.oneof(text, fc.ipV4(), fc.ipV6());
    const word = fc.oneof(
      text,
      fc.stringMatching(/^[a-z.:_-]{1,9}$/),
      fc.stringMatching(/^[a-z ;{}"'$#\\\n]{1,3}$/),
    );
    const instance = fc.record({
      name: word,
      host,
      port: fc.integer({ min: 1, max: 65_535 }),
      weight: fc.integer(),
      labels: fc.dictionary(word, word),
    });
    const template = compileTemplate(
      '{{#each services}}{{#each instances}}|{{name}}|{{endpoint}}|{{weight}}|{{#each labels}}{{@key}}|{{this}}|{{/each}}\n{{/each}}{{/each}}.',
      'x.hbs',
    );
    fc.assert(
      fc.property(fc.array(instance), (instances) => {
        const offers = offersOf({ web: instances });
        const rendered = template.render(dataOf(offers).data);
        const lines = rendered.split('\n').slice(0, -1);
        assert.equal(lines.length, dataOf(offers).data.services[0]?.instances.length);
        for (const line of lines) assert.match(line, /^\|(?:[\p{L}\p{N}_.:/,%+=@~[\]-]*\|)+$/u);
        const again = template.render(dataOf(offersOf({ web: instances.toReversed() })).data);
        const isDistinct = new Set(instances.map(instanceId)).size === instances.length;
        if (isDistinct) assert.equal(again, rendered, 'the order of the source does not matter');
      }),
    );
  });
});

describe('a template', () => {
  const { data } = dataOf(offersOf({ web: [{ ...A, labels: { q: '{{json', constructor: 'own' } }] }));
  const render = (text: string) => compileTemplate(text, '/etc/x.hbs').render(data);

  test('has json and eq besides what Handlebars has, and escapes nothing', () => {
    assert.equal(
      render('{{#each services}}{{#if (eq mode "http")}}{{json name}}<&>{{/if}}{{/each}}'),
      '"web"<&>',
    );
    assert.equal(render('{{json byName.nobody}}'), 'null');
    assert.equal(render('{{byName.web.instances.[0].endpoint}}'), '10.0.0.1:80');
  });

  test('reaches no prototype, but own labels that are called like one', () => {
    assert.equal(render('.{{services.constructor}}{{byName.__proto__}}{{services.[0].toString}}.'), '..');
    assert.equal(render('{{lookup byName.web.instances.[0].labels "constructor"}}'), 'own');
  });

  for (const { what, text, place } of [
    { what: 'an open block', text: 'a\n\n{{#each services}}\n', place: /^\/etc\/x\.hbs:\d+: Parse error/ },
    { what: 'a stray brace', text: 'a\nb {{ name }\n', place: /^\/etc\/x\.hbs:2: / },
    { what: 'an unknown helper', text: 'a\nb\n{{jsom name}}\n', place: /^\/etc\/x\.hbs:3: .*jsom/ },
    { what: 'an unknown partial', text: 'a\n{{> other}}', place: /^\/etc\/x\.hbs.*other/ },
    { what: 'nothing in it', text: ' \n', place: /^\/etc\/x\.hbs: the template is empty/ },
    { what: 'nothing to show', text: '{{nobody}}\n', place: /^\/etc\/x\.hbs: it renders to nothing/ },
  ])
    test(`with ${what} is broken, and the error names the place`, () => {
      assert.throws(() => render(text), coded('TEMPLATE_BROKEN', place));
    });
});

/** A template output on files of its own. Commands leave a line in `log`. */
interface Scene {
  readonly directory: string;
  readonly template: string;
  readonly target: string;
  readonly calls: () => Promise<string[]>;
  start(): Promise<Life>;
}
interface Life {
  offer(offers: Offers): void;
  readonly entries: LogEntry[];
  logged(message: string): LogEntry[];
  stop(): Promise<void>;
}

const CANNOT = 'cannot bring the target of a template up to date, trying again';

async function inScene(
  body: (scene: Scene) => Promise<void>,
  settings: Record<string, unknown> = {},
  firstWaitMs = 10_000,
): Promise<void> {
  await inDirectory(async (directory) => {
    await mkdir(path.join(directory, 'state'));
    const template = path.join(directory, 'x.conf.hbs');
    const target = path.join(directory, 'etc', 'x.conf');
    const calls = path.join(directory, 'calls');
    await writeFile(
      template,
      '{{#each services}}{{name}}:{{#each instances}} {{endpoint}}{{/each}}\n{{/each}}',
    );
    // The check refuses what holds "bad", the reload fails while there is a file called "stuck".
    const script = (text: string) => ['sh', '-c', text, 'sh'];
    const config = TemplateSection.parse({
      name: 'x',
      template,
      target,
      check: [...script(`echo check >>${calls}; ! grep -n bad "$1"`), '{file}'],
      reload: script(`echo reload >>${calls}; ! cat ${directory}/stuck 2>/dev/null`),
      settle: { quiet: '10ms', max: '50ms' },
      timeout: '10s',
      ...settings,
    });
    const lives = new Set<Life>();
    try {
      await body({
        directory,
        template,
        target,
        calls: async () => (existsSync(calls) ? (await readFile(calls, 'utf8')).trim().split('\n') : []),
        start() {
          const { log, entries } = recordingLog();
          const stateDir = path.join(directory, 'state');
          const output = createTemplateOutput(config, { stateDir, log, firstWaitMs });
          const controller = new AbortController();
          const ended = output.run(controller.signal);
          const life: Life = {
            offer: (offers) => output.offer(offers),
            entries,
            logged: (message) => entries.filter((entry) => entry.message === message),
            async stop() {
              lives.delete(life);
              controller.abort();
              await ended;
            },
          };
          lives.add(life);
          return Promise.resolve(life);
        },
      });
    } finally {
      for (const life of lives) await life.stop();
    }
  });
}

function becomes(file: string, text: string): Promise<void> {
  return eventually(async () => assert.equal(await readFile(file, 'utf8'), text));
}

describe('the template output', { concurrency: 4 }, () => {
  test('checks a candidate, replaces the target, reloads, and does nothing for equal text', () =>
    inScene(
      async (scene) => {
        const life = await scene.start();
        life.offer(offersOf({ web: [A] }));
        await becomes(scene.target, 'web: 10.0.0.1:80\n');
        await eventually(async () => assert.deepEqual(await scene.calls(), ['check', 'reload']));
        life.offer(offersOf({ web: [{ ...A, weight: 9 }] }));
        life.offer(offersOf({ web: [A, B] }));
        await becomes(scene.target, 'web: 10.0.0.1:80 [2001:db8::1]:81\n');
        await eventually(async () => assert.equal((await scene.calls()).length, 4));
        assert.equal(statSync(scene.target).mode & 0o777, 0o640);
        assert.deepEqual(await readdir(path.dirname(scene.target)), ['x.conf']);
        assert.deepEqual(
          life.entries.filter(({ level }) => level !== 'info'),
          [],
        );
      },
      { mode: '0640' },
    ));

  test('a restart neither writes nor reloads, and removes what a crash left', () =>
    inScene(async (scene) => {
      const first = await scene.start();
      first.offer(offersOf({ web: [A] }));
      await eventually(async () => assert.deepEqual(await scene.calls(), ['check', 'reload']));
      await first.stop();
      const before = await stat(scene.target);
      const left = path.join(path.dirname(scene.target), '.x.conf.77.candidate');
      await writeFile(left, 'half');
      const second = await scene.start();
      second.offer(offersOf({ web: [A] }));
      await eventually(() => assert.equal(existsSync(left), false));
      await writeFile(scene.template, 'changed {{services.length}}\n');
      await becomes(scene.target, 'changed 1\n');
      await eventually(async () =>
        assert.deepEqual(await scene.calls(), ['check', 'reload', 'check', 'reload']),
      );
      assert.notEqual((await stat(scene.target)).ino, before.ino);
    }));

  test('a refused text leaves the target, is told once with what the check said, and tried again', () =>
    inScene(async (scene) => {
      const life = await scene.start();
      life.offer(offersOf({ web: [A] }));
      await becomes(scene.target, 'web: 10.0.0.1:80\n');
      await writeFile(scene.template, 'line\nbad {{services.length}}\n');
      await eventually(() => assert.equal(life.logged(CANNOT).length, 1));
      const [entry] = life.logged(CANNOT);
      assert.equal(entry?.facts['code'], 'TEMPLATE_REFUSED');
      assert.match(String(entry?.facts['err']), /^sh exited with 1: 2:bad 1$/);
      assert.equal(await readFile(scene.target, 'utf8'), 'web: 10.0.0.1:80\n');
      // The last template that was taken goes on with what comes and goes.
      life.offer(offersOf({ web: [B] }));
      await becomes(scene.target, 'web: [2001:db8::1]:81\n');
      assert.equal(life.logged(CANNOT).length, 1);
      await writeFile(scene.template, 'good {{services.length}}\n');
      await becomes(scene.target, 'good 1\n');
      await eventually(() =>
        assert.equal(life.logged('the target of a template is up to date again').length, 1),
      );
    }));

  test('a broken template is told with its line, and its last good version goes on', () =>
    inScene(async (scene) => {
      const life = await scene.start();
      life.offer(offersOf({ web: [A] }));
      await becomes(scene.target, 'web: 10.0.0.1:80\n');
      const message = 'a template is broken, its last good version stays in use';
      await writeFile(scene.template, 'x\n{{#each services}}\n{{/if}}\n');
      await eventually(() => assert.equal(life.logged(message).length, 1));
      assert.match(String(life.logged(message)[0]?.facts['err']), /x\.conf\.hbs:\d: /);
      life.offer(offersOf({ web: [B] }));
      await becomes(scene.target, 'web: [2001:db8::1]:81\n');
      await rm(scene.template);
      await eventually(() => assert.equal(life.logged(message).length, 2));
      await writeFile(scene.template, 'new\n');
      await becomes(scene.target, 'new\n');
      await eventually(() => assert.equal(life.logged('a template is whole again').length, 1));
    }));

  test('a reload that failed is run again, in this life and in the next', () =>
    inScene(async (scene) => {
      const stuck = path.join(scene.directory, 'stuck');
      await writeFile(stuck, 'not now');
      const first = await scene.start();
      first.offer(offersOf({ web: [A] }));
      await eventually(async () => assert.ok((await scene.calls()).length >= 3, 'it is run again'));
      assert.equal(first.logged(CANNOT).length, 1);
      assert.equal(first.logged(CANNOT)[0]?.facts['code'], 'TEMPLATE_RELOAD_FAILED');
      assert.match(String(first.logged(CANNOT)[0]?.facts['err']), /not now/);
      await first.stop();

      const before = (await scene.calls()).length;
      await rm(stuck);
      const second = await scene.start();
      second.offer(offersOf({ web: [A] }));
      await eventually(async () => assert.deepEqual((await scene.calls()).slice(before), ['reload']));
      await second.stop();

      const third = await scene.start();
      third.offer(offersOf({ web: [A] }));
      await writeFile(scene.template, 'next\n');
      await eventually(async () =>
        assert.deepEqual((await scene.calls()).slice(before), ['reload', 'check', 'reload']),
      );
    }));

  test('a target that is edited or deleted is put back, and read again', () =>
    inScene(async (scene) => {
      const life = await scene.start();
      life.offer(offersOf({ web: [A] }));
      for (const [index, spoil] of [
        () => writeFile(scene.target, 'mine'),
        () => rm(path.dirname(scene.target), { recursive: true }),
      ].entries()) {
        await becomes(scene.target, 'web: 10.0.0.1:80\n');
        await eventually(async () => assert.equal((await scene.calls()).length, 2 * (index + 1)));
        await spoil();
      }
      await becomes(scene.target, 'web: 10.0.0.1:80\n');
      await eventually(async () => assert.equal((await scene.calls()).length, 6));
    }));

  test('the first rendering waits for every service, but not for ever', () =>
    inScene(
      async (scene) => {
        const life = await scene.start();
        const startedAt = performance.now();
        life.offer(new Map([...offersOf({ web: [A] }), ...unknown('api')]));
        await becomes(scene.target, 'api:\nweb: 10.0.0.1:80\n');
        assert.ok(performance.now() - startedAt >= 400, 'it has waited');
      },
      {},
      500,
    ));

  test('a service of which nothing is known keeps its instances, also over a restart', () =>
    inScene(async (scene) => {
      const first = await scene.start();
      first.offer(offersOf({ web: [A], api: [B] }));
      await becomes(scene.target, 'api: [2001:db8::1]:81\nweb: 10.0.0.1:80\n');
      first.offer(new Map([...offersOf({ api: [] }), ...unknown('web')]));
      await becomes(scene.target, 'api:\nweb: 10.0.0.1:80\n');
      await eventually(async () => assert.equal((await scene.calls()).length, 4));
      await first.stop();
      const second = await scene.start();
      second.offer(new Map([...offersOf({ api: [A] }), ...unknown('web')]));
      await becomes(scene.target, 'api: 10.0.0.1:80\nweb: 10.0.0.1:80\n');
    }));

  test('a command that hangs or does not exist is told, and does not end it', () =>
    inScene(
      async (scene) => {
        const life = await scene.start();
        life.offer(offersOf({ web: [A] }));
        await eventually(() => assert.equal(life.logged(CANNOT).length, 1));
        assert.match(String(life.logged(CANNOT)[0]?.facts['err']), /took longer than 200 ms/);
        assert.equal(existsSync(scene.target), false);
        assert.deepEqual(await readdir(path.dirname(scene.target)), []);
      },
      { check: ['sh', '-c', 'exec sleep 60', 'sh', '{file}'], timeout: '200ms' },
    ));

  test('the words of a check are no shell', () =>
    inScene(
      async (scene) => {
        const life = await scene.start();
        life.offer(offersOf({ web: [A] }));
        await eventually(() => assert.equal(life.logged(CANNOT).length, 1));
        assert.match(String(life.logged(CANNOT)[0]?.facts['err']), /cannot be started/);
        assert.equal(existsSync(path.join(scene.directory, 'made')), false);
      },
      { check: ['true; touch made {file}'] },
    ));

  test('text that was kept out is told once', () =>
    inScene(async (scene) => {
      const life = await scene.start();
      const message = 'kept text of the registry out of a template';
      life.offer(offersOf({ web: [A, { ...B, name: 'x y' }] }));
      await becomes(scene.target, 'web: 10.0.0.1:80\n');
      life.offer(offersOf({ web: [A, { ...B, name: 'x y' }], api: [] }));
      await becomes(scene.target, 'api:\nweb: 10.0.0.1:80\n');
      assert.equal(life.logged(message).length, 1);
    }));
});

describe('the memory of a template output', () => {
  test('comes back as it was, and turns only those services into text that have changed', () =>
    inDirectory(async (directory) => {
      let looks = 0;
      const watched = {
        name: 'a',
        port: 80,
        get host() {
          looks += 1;
          return '10.0.0.1';
        },
      };
      const memory = createTemplateMemory(directory, '/etc/x.conf', silentLog);
      const web = [watched];
      const other = { name: '"b', host: 'fe80::1', port: 81 };
      await memory.save({ loaded: undefined, known: new Map([['web', web]]) });
      const before = looks;
      assert.ok(before > 0);
      const known = new Map([
        ['web', web],
        ['api', [other]],
      ]);
      await memory.save({ loaded: 'mark', known });
      assert.equal(looks, before);
      const [file = ''] = await readdir(directory);
      const { mtimeMs } = await stat(path.join(directory, file));
      await memory.save({ loaded: 'mark', known: new Map(known) });
      assert.equal((await stat(path.join(directory, file))).mtimeMs, mtimeMs);
      const read = await createTemplateMemory(directory, '/etc/x.conf', silentLog).load();
      assert.equal(read.loaded, 'mark');
      assert.deepEqual(read.known.get('web'), [{ name: 'a', host: '10.0.0.1', port: 80 }]);
    }));
});

describe('the configuration of outputs', () => {
  const template = { template: 'x.hbs', target: 'x' };

  test('has defaults', () => {
    assert.deepEqual(TemplateSection.parse(template), {
      name: 'x',
      template: 'x.hbs',
      target: 'x',
      mode: 0o644,
      check: undefined,
      reload: undefined,
      timeoutMs: 30_000,
      settle: { quietMs: 100, maxMs: 1_000 },
      trustLabels: false,
    });
    assert.deepEqual(FilesSection.parse({ directory: 'd' }), { directory: 'd', minIntervalMs: 100 });
  });

  test('reads a mode as it was meant, and refuses one that cannot have been', () => {
    const modeOf = (mode: unknown) => TemplateSection.safeParse({ ...template, mode }).data?.mode;
    for (const [written, meant] of [
      ['0644', 0o644],
      [644, 0o644],
      ['600', 0o600],
      ['0750', 0o750],
    ] as const)
      assert.equal(modeOf(written), meant);
    for (const wrong of [0o644, 0o640, 0o600, 0o660, 0o755, '0466', '0444', '1777', 'rw-r--r--', '', 6.44])
      assert.equal(modeOf(wrong), undefined, String(wrong));
  });

  for (const wrong of [
    { target: 'x.hbs' },
    { check: ['nginx', '-t'] },
    { check: [] },
    { reload: [''] },
    { reload: ['a\0b'] },
    { timeout: '1ms' },
    { colour: 'red' },
  ])
    test(`refuses ${JSON.stringify(wrong)}`, () => {
      assert.equal(TemplateSection.safeParse({ ...template, ...wrong }).success, false);
    });

  test('refuses two templates for one target, and makes paths absolute', () => {
    const twice = DiscoverySection.safeParse({ templates: [template, { ...template, target: './x' }] });
    assert.deepEqual(
      twice.error?.issues.map(({ path }) => path),
      [['templates', 1, 'target']],
    );
    const settings = DiscoverySection.parse({ files: { directory: 'd' }, templates: [template] });
    const resolved = resolveOutputFiles(settings, (part) => path.resolve('/etc/tandem', part));
    assert.equal(resolved.files?.directory, '/etc/tandem/d');
    assert.equal(resolved.templates[0]?.template, '/etc/tandem/x.hbs');
    assert.equal(resolved.templates[0]?.target, '/etc/tandem/x');
    assert.equal(resolved.control, settings.control);
  });
});
