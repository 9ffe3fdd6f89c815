import assert from 'node:assert/strict';
import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test, type TestContext } from 'node:test';

import { sleep, watchDirectories } from '@tandem/core';

import { temporaryDirectory } from './support.ts';

/** How often a watcher has said that it is time to read again. */
function watching(context: TestContext, directories: readonly string[], rescanMs: number) {
  const controller = new AbortController();
  let times = 0;
  async function read() {
    for await (const _ of watchDirectories(directories, {
      quietMs: 5,
      rescanMs,
      signal: controller.signal,
    })) {
      times += 1;
    }
  }
  const ended = read();
  const hasGrown = (before: number) => times > before;
  const stop = () => {
    controller.abort();
    return ended;
  };
  context.after(stop);
  return {
    stop,
    times: () => times,
    async next(change: () => void) {
      // Whatever happened before has been told by now.
      await sleep(30);
      const before = times;
      change();
      const deadline = Date.now() + 5000;
      do {
        assert.ok(Date.now() < deadline, 'the change was not seen');
        await sleep(2);
      } while (!hasGrown(before));
    },
  };
}

test('new, changed, replaced and deleted files are seen', async (t) => {
  const directory = temporaryDirectory(t);
  const file = path.join(directory, 'a.yaml');
  const watcher = watching(t, [directory], 60_000);
  await watcher.next(() => writeFileSync(file, '1'));
  await watcher.next(() => writeFileSync(file, '2'));
  await watcher.next(() => {
    writeFileSync(`${file}.new`, '3');
    renameSync(`${file}.new`, file);
  });
  await watcher.next(() => rmSync(file));
});

test('every one of several directories is watched', async (t) => {
  const [one, two] = [temporaryDirectory(t), temporaryDirectory(t)];
  const watcher = watching(t, [one, two], 60_000);
  await watcher.next(() => writeFileSync(path.join(one, 'a'), ''));
  await watcher.next(() => writeFileSync(path.join(two, 'a'), ''));
});

test('a burst of changes is told once it is quiet, not once each', async (t) => {
  const directory = temporaryDirectory(t);
  const watcher = watching(t, [directory], 60_000);
  await watcher.next(() => {
    for (let index = 0; index < 200; index += 1) writeFileSync(path.join(directory, `${index}`), '');
  });
  await sleep(50);
  assert.ok(watcher.times() <= 20, `told ${watcher.times()} times`);
});

test('changes in a row are told once after the last, but not later than the limit', async (t) => {
  const directory = temporaryDirectory(t);
  const controller = new AbortController();
  t.after(() => controller.abort());
  const tellings: string[][] = [];
  const files: string[] = [];
  async function read(maxMs: number) {
    const options = { quietMs: 400, maxMs, signal: controller.signal };
    for await (const _ of watchDirectories([directory], options)) {
      tellings.push([...files]);
      return;
    }
  }
  const patient = read(60_000);
  const impatient = read(500);
  for (let index = 0; index < 12; index += 1) {
    await sleep(60);
    files.push(`${index}`);
    writeFileSync(path.join(directory, `${index}`), '');
  }
  await Promise.all([patient, impatient]);

  const [first = [], second = []] = tellings;
  assert.ok(first.length > 0 && first.length < 12, `told first of ${first.join()}`);
  assert.equal(second.length, 12);
});

test('a directory that is replaced by another one is seen at once, not at the next rescan', async (t) => {
  const parent = temporaryDirectory(t);
  const directory = path.join(parent, 'services.d');
  mkdirSync(directory);
  const watcher = watching(t, [directory], 60_000);
  await watcher.next(() => {
    mkdirSync(path.join(parent, 'new'));
    renameSync(directory, path.join(parent, 'old'));
    renameSync(path.join(parent, 'new'), directory);
  });
  await watcher.next(() => writeFileSync(path.join(directory, 'a.yaml'), ''));
  await watcher.next(() => rmSync(directory, { recursive: true }));
  await watcher.next(() => mkdirSync(directory));
  await watcher.next(() => writeFileSync(path.join(directory, 'a.yaml'), ''));
});

test('a directory that was deleted and made again is seen again', async (t) => {
  const directory = path.join(temporaryDirectory(t), 'services.d');
  mkdirSync(directory);
  const watcher = watching(t, [directory], 40);
  await watcher.next(() => rmSync(directory, { recursive: true }));
  await sleep(50);
  await watcher.next(() => mkdirSync(directory));
  await sleep(50);
  await watcher.next(() => writeFileSync(path.join(directory, 'a.yaml'), ''));
});

test('a directory that does not exist yet is found by the rescan', async (t) => {
  const directory = path.join(temporaryDirectory(t), 'later');
  const watcher = watching(t, [directory], 40);
  await watcher.next(() => mkdirSync(directory));
});

test('watching ends with its signal', async (t) => {
  const watcher = watching(t, [temporaryDirectory(t)], 60_000);
  await sleep(5);
  await watcher.stop();
});
