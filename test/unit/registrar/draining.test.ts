import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test, type TestContext } from 'node:test';

import { createScriptedCheck } from './scripted.ts';
import { enter, type Scene, watchOver } from './scene.ts';
import { createFakeRegistry, eventually, registration } from './support.ts';

const CHECKS = [{ tcp: { interval: '1s', timeout: '500ms' } }];
const WEB = registration('web', { port: 80, checks: CHECKS });
const DB = registration('db', { port: 81 });
const AT_WEB = '/services/web 80';
const AT_DB = '/services/db 81';

async function stateDir(context: TestContext): Promise<string> {
  const directory = await mkdtemp(path.join(tmpdir(), 'tandem-overrides-'));
  context.after(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

function standing({ registry }: Scene): string[] {
  return [...registry.standing.keys()].toSorted();
}

function drained({ registrar }: Scene): unknown[] {
  return registrar.status().map(({ service, drained }) => [service, ...drained]);
}

test('a drained service is withdrawn at once, its checks go on, and undrained it is announced at once', async (t) => {
  const check = createScriptedCheck('pass');
  const scene = await enter(t, { checks: { 80: check } });
  const { registrar, clock, news } = scene;
  registrar.update([WEB, DB]);
  await clock.advance(100);
  assert.deepEqual(standing(scene), [AT_DB, AT_WEB]);
  news();
  const answer = registrar.drain('web');
  assert.deepEqual(news(), [`withdraw ${AT_WEB}`]);
  assert.deepEqual(await answer, { ok: true, remembered: false });
  assert.deepEqual(drained(scene), [['web', 'operator'], ['db']]);
  const { probes } = check;
  await clock.advance(5_000);
  assert.ok(check.probes >= probes + 4);
  assert.deepEqual(news(), []);
  assert.equal(registrar.status()[0]?.health, 'up');
  const back = registrar.undrain('web');
  assert.deepEqual(news(), [`set ${AT_WEB}`]);
  assert.ok((await back).ok);
});

test('undrained while it is down, a service is announced when it is up', async (t) => {
  const check = createScriptedCheck('pass');
  const scene = await enter(t, { checks: { 80: check } });
  scene.registrar.update([WEB]);
  await scene.clock.advance(100);
  await scene.registrar.drain('web');
  check.result = 'fail';
  await scene.clock.advance(2_000);
  await scene.registrar.undrain('web');
  await scene.clock.advance(2_000);
  assert.deepEqual(standing(scene), []);
  check.result = 'pass';
  await scene.clock.advance(2_000);
  assert.deepEqual(standing(scene), [AT_WEB]);
});

test('all may be drained, those that come later too, and single ones brought back before all are', async (t) => {
  const scene = await enter(t);
  const { registrar, clock } = scene;
  registrar.update([WEB]);
  await clock.advance(100);
  await registrar.drain(undefined);
  registrar.update([WEB, DB]);
  await clock.advance(100);
  assert.deepEqual(standing(scene), []);
  assert.ok(!scene.registry.history.includes(`set ${AT_DB}`), 'never, not for a moment');
  await registrar.undrain('db');
  await clock.advance(100);
  assert.deepEqual(standing(scene), [AT_DB]);
  await registrar.drain('db');
  await registrar.undrain(undefined);
  await clock.advance(100);
  assert.deepEqual(standing(scene), [AT_DB, AT_WEB]);
});

test('a service that is not configured is not drained, and what could have been meant is said', async (t) => {
  const { registrar } = await enter(t);
  registrar.update([WEB, DB]);
  const refused = { ok: false, reason: 'unknown-service', candidates: ['db', 'web'] };
  assert.deepEqual(await registrar.drain('wbe'), refused);
  assert.deepEqual(await registrar.undrain('wbe'), refused);
  assert.deepEqual(await registrar.setWeight('wbe', 5), refused);
});

test('drains and weights outlive the registrar, and the absence of the file of a service', async (t) => {
  const directory = await stateDir(t);
  const registry = createFakeRegistry();
  const first = await enter(t, { registry, stateDir: directory });
  first.registrar.update([WEB, DB]);
  await first.clock.advance(100);
  assert.deepEqual(await first.registrar.drain('web'), { ok: true, remembered: true });
  assert.deepEqual(await first.registrar.setWeight('db', 7), { ok: true, remembered: true });
  await first.clock.advance(100);
  first.registrar.update([DB]);
  await first.clock.advance(100);
  first.registrar.update([WEB, DB]);
  await first.clock.advance(100);
  assert.deepEqual(standing(first), [AT_DB]);
  const { mode } = await stat(path.join(directory, 'registrar-overrides.json'));
  assert.equal(mode & 0o777, 0o640 & ~process.umask());
  await first.registrar.stop();

  registry.history.splice(0);
  const second = await enter(t, { registry, stateDir: directory });
  second.registrar.update([DB]);
  await second.clock.advance(100);
  assert.equal(second.weight(AT_DB), 7);
  assert.deepEqual(
    await second.registrar.undrain('web'),
    { ok: true, remembered: true },
    'though it is not there',
  );
  second.registrar.update([WEB, DB]);
  await second.clock.advance(100);
  assert.deepEqual(standing(second), [AT_DB, AT_WEB]);
});

test('after a restart a drained service is not announced, not even for a moment', async (t) => {
  const directory = await stateDir(t);
  const first = await enter(t, { stateDir: directory });
  first.registrar.update([DB]);
  await first.registrar.drain('db');
  await first.registrar.stop();
  const second = await enter(t, { stateDir: directory });
  second.registrar.update([DB]);
  await second.clock.advance(1_000);
  assert.ok(!second.registry.history.includes(`set ${AT_DB}`));
  assert.deepEqual(drained(second), [['db', 'operator']]);
});

test('what was remembered and makes no sense is said, set aside for a person, and stops nobody', async (t) => {
  const directory = await stateDir(t);
  const file = path.join(directory, 'registrar-overrides.json');
  for (const text of ['{"version":1,"drain', '', '[]', '{"version":1,"drained":"web"}']) {
    await writeFile(file, text);
    const scene = await enter(t, { stateDir: directory });
    assert.equal(scene.said('cannot read what was remembered, going on without it'), 1);
    assert.equal(await readFile(`${file}.broken`, 'utf8'), text);
    scene.registrar.update([DB]);
    assert.deepEqual(await scene.registrar.drain('db'), { ok: true, remembered: true });
  }
});

test('where nothing can be written, a drain has its effect and says that it will be forgotten', async (t) => {
  const directory = await stateDir(t);
  const scene = await enter(t, { stateDir: directory });
  scene.registrar.update([DB]);
  await scene.clock.advance(100);
  await rm(directory, { recursive: true });
  assert.deepEqual(await scene.registrar.drain('db'), { ok: true, remembered: false });
  assert.deepEqual(await scene.registrar.undrain('db'), { ok: true, remembered: false });
  assert.deepEqual(await scene.registrar.drain('db'), { ok: true, remembered: false });
  await scene.clock.advance(100);
  assert.deepEqual(standing(scene), []);
  assert.equal(scene.said('cannot remember this, a restart will forget it'), 1);
});

test('a weight of an operator is announced in place of the configured one, until it is taken back', async (t) => {
  const scene = await enter(t);
  const { registrar, clock } = scene;
  registrar.update([registration('web', { port: 80, weight: 10 })]);
  await clock.advance(100);
  await registrar.setWeight('web', 0);
  await clock.advance(100);
  assert.equal(scene.weight(AT_WEB), 0);
  assert.deepEqual(registrar.status()[0]?.weight, { configured: 10, override: 0, announced: 0 });
  registrar.update([registration('web', { port: 80, weight: 20 })]);
  await clock.advance(100);
  assert.equal(scene.weight(AT_WEB), 0);
  await registrar.setWeight('web', undefined);
  await clock.advance(100);
  assert.equal(scene.weight(AT_WEB), 20);
  for (const weight of [-1, 257, 1.5, Number.NaN])
    await assert.rejects(registrar.setWeight('web', weight), RangeError);
});

test('a drain file drains within a second of being there, for one service or for all, and brings back when it goes', async (t) => {
  const directory = await stateDir(t);
  const [own, all] = [path.join(directory, 'web.drain'), path.join(directory, 'down', 'all')];
  const scene = await enter(t, { settings: { drainFile: all } });
  const { registrar, clock } = scene;
  registrar.update([registration('web', { port: 80, drain_file: own }), DB]);
  const becomes = async (keys: readonly string[]) => {
    await clock.advance(500);
    await eventually(() => standing(scene).join() === keys.join(), keys.join());
  };
  await becomes([AT_DB, AT_WEB]);
  await writeFile(own, '');
  await becomes([AT_DB]);
  assert.deepEqual(drained(scene), [['web', 'file'], ['db']]);
  await registrar.drain('web');
  assert.deepEqual(drained(scene)[0], ['web', 'operator', 'file']);
  await rm(own);
  await clock.advance(500);
  await eventually(() => drained(scene)[0]?.toString() === 'web,operator', 'the file is gone');
  assert.deepEqual(standing(scene), [AT_DB]);
  await registrar.undrain('web');
  await becomes([AT_DB, AT_WEB]);
  await mkdir(path.dirname(all));
  await writeFile(all, '');
  await becomes([]);
  await rm(path.dirname(all), { recursive: true });
  await becomes([AT_DB, AT_WEB]);
});

test('with a drain file there from the start, a service is not announced for a moment', async (t) => {
  const directory = await stateDir(t);
  const file = path.join(directory, 'web.drain');
  await writeFile(file, '');
  const scene = await enter(t);
  scene.registrar.update([registration('web', { port: 80, drain_file: file })]);
  await eventually(() => drained(scene).join() === 'web,file', 'drained');
  await scene.clock.advance(5_000);
  assert.ok(!scene.registry.history.includes(`set ${AT_WEB}`));
});

test('a directory that cannot be read leaves what was known of its files, and is said once', async (t) => {
  let answer: () => Promise<readonly string[]> = () => Promise.resolve(['web.drain']);
  let reads = 0;
  const readDirectory = () => {
    reads += 1;
    return answer();
  };
  const scene = await enter(t, { readDirectory });
  const files = { drain_file: '/somewhere/web.drain' };
  const others = { drain_file: '/somewhere/db.drain' };
  scene.registrar.update([
    registration('web', { port: 80, ...files }),
    registration('db', { port: 81, ...others }),
  ]);
  await scene.clock.advance(2_000);
  assert.deepEqual(standing(scene), [AT_DB]);
  assert.ok(reads <= 6, 'once for both');
  answer = () => Promise.reject(new Error('input/output error'));
  await scene.clock.advance(5_000);
  assert.deepEqual(standing(scene), [AT_DB]);
  assert.equal(scene.said('cannot look for drain files, what was known of them stays'), 1);
  answer = () => Promise.resolve([]);
  await scene.clock.advance(1_000);
  assert.deepEqual(standing(scene), [AT_DB, AT_WEB]);
});

test('directories that never answer keep a service waiting for a moment only, and others not at all', async (t) => {
  const readDirectory = (directory: string) =>
    directory === '/well' ? Promise.resolve([]) : new Promise<readonly string[]>(() => {});
  const scene = await enter(t, { readDirectory });
  scene.registrar.update([
    DB,
    ...['/well', '/dead1', '/dead2', '/dead3'].map((directory, index) =>
      registration(`s${index}`, { port: index + 1, drain_file: `${directory}/drain` }),
    ),
  ]);
  await scene.clock.advance(1_000);
  assert.deepEqual(standing(scene), [AT_DB, '/services/s0 1']);
  await scene.clock.advance(2_000);
  assert.equal(standing(scene).length, 5);
});

test('before a shutdown everything is withdrawn while the checks go on, and nothing comes back', async (t) => {
  const check = createScriptedCheck('pass');
  const scene = await enter(t, { checks: { 80: check } });
  const { registrar, registry, clock } = scene;
  registrar.update([WEB, DB]);
  await clock.advance(100);
  registry.silence();
  const begun = watchOver(registrar.beginShutdown(new AbortController().signal));
  await clock.advance(1_000);
  assert.equal(begun.isOver, false);
  registry.answer();
  await begun.over;
  assert.deepEqual(standing(scene), []);
  assert.deepEqual(drained(scene), [
    ['web', 'shutdown'],
    ['db', 'shutdown'],
  ]);
  const { probes } = check;
  registrar.update([WEB, DB, registration('late', { port: 82 })]);
  await clock.advance(3_000);
  assert.ok(check.probes >= probes + 2);
  assert.deepEqual(standing(scene), []);
  await registrar.withdrawAll(new AbortController().signal);
  const ended = check.probes;
  await clock.advance(3_000);
  assert.equal(check.probes, ended);
});

test('whoever waits for the registry to agree hears of what is meant at the end, or of the end of its patience', async (t) => {
  const scene = await enter(t);
  const { registrar, registry, clock } = scene;
  registrar.update([WEB, DB]);
  await clock.advance(100);
  registry.silence();
  await registrar.drain('web');
  const patience = new AbortController();
  const agreed = registrar.agreed('web', patience.signal);
  const others = registrar.agreed(undefined, new AbortController().signal);
  patience.abort(new Error('no longer'));
  await assert.rejects(agreed, /no longer/);
  registry.answer();
  await others;
  assert.deepEqual(standing(scene), [AT_DB]);
  await registrar.agreed('nobody', new AbortController().signal);
});
