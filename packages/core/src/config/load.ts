import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';

import type * as z from 'zod';

import { messageOf, systemErrorCode } from '../errors.ts';
import type { ConfigProblem, Loaded } from './problem.ts';
import { parseYaml } from './yaml.ts';

/** Reads one YAML (or JSON) file under a schema. */
export async function loadFile<T>(file: string, schema: z.ZodType<T>): Promise<Loaded<T>> {
  const text = await readText(file);
  return text.ok ? parseYaml(text.value, file, schema) : text;
}

async function readText(file: string): Promise<Loaded<string>> {
  try {
    return { ok: true, value: await readFile(file, 'utf8') };
  } catch (error) {
    return { ok: false, problems: [unreadable(file, error)] };
  }
}

/** The files of a directory that loaded, and the problems of those that did not: one bad file hurts only itself. */
export interface LoadedDirectory<T> {
  readonly loaded: ReadonlyMap<string, T>;
  /** What those files say, for whoever wants to keep it. */
  readonly texts: ReadonlyMap<string, string>;
  /** Files that exist but have no meaning; a caller that knows their last good version keeps that. */
  readonly broken: readonly string[];
  /** False when the directory itself cannot be read: then nothing is known of its files. */
  readonly isReadable: boolean;
  readonly problems: readonly ConfigProblem[];
}

/** Reads every `*.yaml`, `*.yml` and `*.json` of a directory, in the order of their names. Hidden files are left alone. */
export async function loadDirectory<T>(directory: string, schema: z.ZodType<T>): Promise<LoadedDirectory<T>> {
  let names: string[];
  try {
    names = await readdir(directory);
  } catch (error) {
    return {
      loaded: new Map(),
      texts: new Map(),
      broken: [],
      isReadable: false,
      problems: [unreadable(directory, error)],
    };
  }
  const files = names
    .filter((name) => /^[^.].*\.(ya?ml|json)$/.test(name))
    .toSorted()
    .map((name) => path.join(directory, name));
  const read = await Promise.all(files.map(async (file) => [file, await readText(file)] as const));
  const loaded = new Map<string, T>();
  const texts = new Map<string, string>();
  const broken: string[] = [];
  const problems: ConfigProblem[] = [];
  for (const [file, text] of read) {
    const result = text.ok ? parseYaml(text.value, file, schema) : text;
    if (text.ok && result.ok) {
      loaded.set(file, result.value);
      texts.set(file, text.value);
    } else if (!result.ok) {
      broken.push(file);
      problems.push(...result.problems);
    }
  }
  return { loaded, texts, broken, isReadable: true, problems };
}

function unreadable(file: string, error: unknown): ConfigProblem {
  switch (systemErrorCode(error)) {
    case 'ENOENT':
      return { file, path: '', reason: 'does not exist', remedy: 'Create it, or name another one' };
    case 'EACCES':
      return { file, path: '', reason: 'may not be read by this user', remedy: 'Change its owner or mode' };
    case 'EISDIR':
      return { file, path: '', reason: 'is a directory, not a file' };
    case 'ENOTDIR':
      return { file, path: '', reason: 'is a file, not a directory' };
    default:
      return { file, path: '', reason: `cannot be read: ${messageOf(error)}` };
  }
}
