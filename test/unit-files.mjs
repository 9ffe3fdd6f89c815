// Every unit test in few processes: a process per file costs ten to twenty times the time, and there is nothing to isolate.
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';

const root = path.join(import.meta.dirname, 'dist', 'unit');

/** The unit tests that there are, in order. */
export function unitFiles() {
  const files = readdirSync(root, { recursive: true })
    .map(String)
    .filter((file) => file.endsWith('.test.js'))
    .toSorted();
  if (files.length === 0) throw new Error(`no unit tests found below ${root}`);
  return files;
}

/** Runs these, one after the other, in this process: some count what is open in it, others stop its clock. */
export async function load(files) {
  for (const file of files) {
    try {
      await import(path.join(root, file));
    } catch (error) {
      test(`load ${file}`, () => {
        throw error;
      });
    }
  }
}

/**
 * One of several shares, which run side by side: a unit test waits most of its time. Neighbours, which are much alike,
 * are in different shares.
 */
export async function loadShare(number, count) {
  await load(unitFiles().filter((_, index) => index % count === number - 1));
}
