import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';

import { formatProblem, HostSection, loadDirectory, loadFile, Port } from '@tandem/core';

import { temporaryDirectory } from './support.ts';

const Service = HostSection.pick({}).extend({ port: Port });

test('a directory gives every file that has a meaning; a bad one hurts only itself', async (t) => {
  const directory = temporaryDirectory(t);
  const file = (name: string) => path.join(directory, name);
  writeFileSync(file('b.yaml'), 'port: 80\n');
  writeFileSync(file('a.yml'), 'port: 81\n');
  writeFileSync(file('c.json'), '{"port": 82}');
  writeFileSync(file('broken.yaml'), 'port: [\n');
  writeFileSync(file('wrong.yaml'), 'prot: 80\n');
  mkdirSync(file('folder.yaml'));
  writeFileSync(file('notes.txt'), 'not ours');
  writeFileSync(file('.hidden.yaml'), 'port: nonsense');
  writeFileSync(file('b.yaml~'), 'port: nonsense');

  const { loaded, broken, problems } = await loadDirectory(directory, Service);
  assert.deepEqual(
    [...loaded],
    [
      [file('a.yml'), { port: 81 }],
      [file('b.yaml'), { port: 80 }],
      [file('c.json'), { port: 82 }],
    ],
  );
  assert.deepEqual(broken, [file('broken.yaml'), file('folder.yaml'), file('wrong.yaml')]);
  assert.ok(problems.every((problem) => broken.includes(problem.file)));
  assert.match(problems.map(formatProblem).join('\n'), /folder\.yaml: is a directory, not a file/);
});

test('a directory or file that is not there is one problem, with what to do about it', async (t) => {
  const missing = path.join(temporaryDirectory(t), 'none');
  const { loaded, broken, problems } = await loadDirectory(missing, Service);
  assert.deepEqual([loaded.size, broken], [0, []]);
  assert.deepEqual(problems.map(formatProblem), [
    `${missing}: does not exist. Create it, or name another one`,
  ]);
  const file = await loadFile(missing, Service);
  assert.deepEqual(file.ok ? [] : file.problems.map(formatProblem), [
    `${missing}: does not exist. Create it, or name another one`,
  ]);
});

test('a file in the place of a directory is said to be one', async (t) => {
  const file = path.join(temporaryDirectory(t), 'a.yaml');
  writeFileSync(file, 'port: 80\n');
  const { problems } = await loadDirectory(file, Service);
  assert.deepEqual(problems.map(formatProblem), [`${file}: is a file, not a directory`]);
});
