import { type Loaded, parseYaml } from '@tandem/core';
import type * as z from 'zod';

/** What a label may hold in the end: its text, or what a schema wanted it to be. */
export type LabelValue = string | number | boolean | LabelValue[] | LabelMap;
export interface LabelMap {
  [key: string]: LabelValue;
}

/** Texts within texts: a list of numbers is a list first, and then its entries become numbers. */
const MAX_ROUNDS = 4;

/**
 * What a map of texts means under a schema that wants numbers, booleans and lists here and there. Only what the schema
 * misses is read as something else than text, so that a label `1.4` stays one. Lists are written with commas, or as JSON.
 */
export function readLabels<T>(labels: LabelMap, place: string, schema: z.ZodType<T>): Loaded<T> {
  let value = labels;
  for (let round = 0; round < MAX_ROUNDS; round += 1) {
    const result = schema.safeParse(value);
    if (result.success) return { ok: true, value: result.data };
    const mended = mend(value, result.error.issues, []);
    if (mended === value) break;
    value = mended as LabelMap;
  }
  // JSON is YAML: the same words as for a service file.
  return parseYaml(JSON.stringify(value), place, schema);
}

type Path = readonly PropertyKey[];

function mend(value: LabelValue, issues: readonly z.core.$ZodIssue[], base: Path): LabelValue {
  return issues.reduce((mended, issue) => {
    const at = [...base, ...issue.path];
    if (issue.code === 'invalid_union')
      return issue.errors.reduce((inner, branch) => mend(inner, branch, at), mended);
    return replaceAt(mended, at, (text) => convert(text, issue));
  }, value);
}

function convert(text: string, issue: z.core.$ZodIssue): LabelValue | undefined {
  if (issue.code === 'invalid_value')
    return issue.values.find(
      (value): value is number | boolean => typeof value !== 'string' && String(value) === text,
    );
  if (issue.code !== 'invalid_type') return undefined;
  switch (issue.expected) {
    case 'number':
    case 'int':
      return /^-?\d{1,15}(\.\d{1,6})?$/.test(text) ? Number(text) : undefined;
    case 'boolean':
      return text === 'true' || text === 'false' ? text === 'true' : undefined;
    case 'array':
      return readList(text);
    case 'object':
    case 'record':
      return text === '' ? {} : undefined;
    default:
      return undefined;
  }
}

function readList(text: string): LabelValue[] {
  if (!text.startsWith('[')) return text.split(',').map((part) => part.trim());
  try {
    const list = JSON.parse(text) as unknown;
    const isPlain = Array.isArray(list) && list.every((part) => ['string', 'number'].includes(typeof part));
    return isPlain ? (list as (string | number)[]) : [text];
  } catch {
    return [text];
  }
}

/** The same value, unless there is a text at the path that becomes something else. */
function replaceAt(
  value: LabelValue,
  [key, ...rest]: Path,
  replace: (text: string) => LabelValue | undefined,
): LabelValue {
  if (key === undefined) return typeof value === 'string' ? (replace(value) ?? value) : value;
  if (typeof value !== 'object') return value;
  const inner = (value as LabelMap)[String(key)];
  if (inner === undefined || !Object.hasOwn(value, key)) return value;
  const replaced = replaceAt(inner, rest, replace);
  if (replaced === inner) return value;
  return Array.isArray(value) ? value.with(Number(key), replaced) : { ...value, [String(key)]: replaced };
}
