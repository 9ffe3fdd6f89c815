// Every unit test in one process: node --enable-source-maps test/run.mjs [name part...]
// A process per file costs ten to twenty times the time, and there is nothing here to isolate.
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';

const root = path.join(import.meta.dirname, 'dist', 'unit');
const wanted = process.argv.slice(2);
const files = readdirSync(root, { recursive: true })
  .map(String)
  .filter((file) => file.endsWith('.test.js'))
  .filter((file) => wanted.length === 0 || wanted.some((part) => file.includes(part)))
  .toSorted();

if (files.length === 0) throw new Error(`no unit tests found below ${root}`);

for (const file of files) {
  try {
    await import(path.join(root, file));
  } catch (error) {
    test(`load ${file}`, () => {
      throw error;
    });
  }
}
