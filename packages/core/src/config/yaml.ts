import { isMap, isPair, isScalar, LineCounter, parseDocument, type Document } from 'yaml';
import * as z from 'zod';

import { type ConfigProblem, type Loaded, nearest } from './problem.ts';

type Path = readonly PropertyKey[];

/** What a text means under a schema, or every mistake in it with line and column. Never throws. */
export function parseYaml<T>(text: string, file: string, schema: z.ZodType<T>): Loaded<T> {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, merge: true });
  // Only the first: what follows a slip in syntax is mostly its echo.
  const flaw = document.errors[0] ?? document.warnings[0];
  if (flaw !== undefined) {
    const reason = `not valid YAML: ${flaw.message}`;
    return { ok: false, problems: [{ file, ...at(lines, flaw.pos[0]), path: '', reason }] };
  }
  let value: unknown;
  try {
    value = document.toJS();
  } catch (error) {
    // The library refuses documents whose aliases explode.
    const reason = error instanceof Error ? error.message : String(error);
    return {
      ok: false,
      problems: [{ file, line: 1, column: 1, path: '', reason: `not valid YAML: ${reason}` }],
    };
  }
  const result = schema.safeParse(value ?? {}, { reportInput: true });
  if (result.success) return { ok: true, value: result.data };
  const problems = result.error.issues.flatMap((issue) =>
    explain(issue, { document, lines, file, schema, value }),
  );
  return { ok: false, problems: problems.toSorted(byPlace) };
}

/** Line and column of the value at a path, for mistakes that only show when files are put side by side. */
export function locate(text: string, path: Path): { line: number; column: number } {
  return locator(text)(path);
}

/** The same for many paths of one text, which is parsed once. */
export function locator(text: string): (path: Path) => { line: number; column: number } {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, merge: true });
  return (path) => at(lines, valueOffset(document, path));
}

function byPlace(a: ConfigProblem, b: ConfigProblem): number {
  return (a.line ?? 0) - (b.line ?? 0) || (a.column ?? 0) - (b.column ?? 0);
}

interface Context {
  document: Document;
  lines: LineCounter;
  file: string;
  schema: z.ZodType;
  value: unknown;
}

function explain(issue: z.core.$ZodIssue, context: Context): ConfigProblem[] {
  const { document, lines, file } = context;
  if (issue.code === 'unrecognized_keys') {
    const known = knownKeys(context.schema, issue.path);
    return issue.keys.map((key) => ({
      file,
      ...at(lines, keyOffset(document, issue.path, key)),
      path: formatPath(issue.path),
      reason: `"${key}" is not known here`,
      ...suggest(key, known),
    }));
  }
  if (issue.code === 'invalid_union') {
    const nearestBranch = issue.errors.toSorted((a, b) => distance(a) - distance(b))[0] ?? [];
    return nearestBranch.flatMap((inner) =>
      explain({ ...inner, path: [...issue.path, ...inner.path] }, context),
    );
  }
  if (issue.code === 'invalid_key') {
    const key = String(issue.path.at(-1));
    const parent = issue.path.slice(0, -1);
    const place = at(lines, keyOffset(document, parent, key));
    const why = issue.issues.map((inner) => reasonOf(inner, key).reason).join('; ');
    return [
      { file, ...place, path: formatPath(parent), reason: `the key ${describe(key)} cannot be used: ${why}` },
    ];
  }
  const place = at(lines, valueOffset(document, issue.path));
  return [
    {
      file,
      ...place,
      path: formatPath(issue.path),
      ...reasonOf(issue, shownValue(context.value, issue.path)),
    },
  ];
}

/** What people paste into tickets and what goes into logs must not hold a password, not even a mistyped one. */
const HIDDEN = Symbol('hidden');

function shownValue(value: unknown, path: Path): unknown {
  const inner = found(value, path);
  return inner !== undefined && path.at(-1) === 'password' ? HIDDEN : inner;
}

/** How far a value is from what a branch of a union wants: farthest if it is of another type altogether. */
function distance(branch: readonly z.core.$ZodIssue[]): number {
  const isOtherType = branch.some(({ code, path }) => code === 'invalid_type' && path.length === 0);
  return branch.length + (isOtherType ? 1000 : 0);
}

function reasonOf(issue: z.core.$ZodIssue, value: unknown): { reason: string; remedy?: string } {
  const shown = `found ${describe(value)}`;
  switch (issue.code) {
    case 'invalid_type':
      if (value === undefined)
        return { reason: 'is required but missing', remedy: `Give it ${article(issue.expected)}` };
      // A schema may have words of its own for it, such as those of a duration.
      return issue.message.startsWith('Invalid input')
        ? { reason: `must be ${article(issue.expected)}, ${shown}` }
        : { reason: `${issue.message}, ${shown}` };
    case 'invalid_value': {
      const known = issue.values.map(String);
      return { reason: `${shown}, which is not one of the choices`, ...suggest(String(value), known) };
    }
    case 'too_small':
      return { reason: `must be ${atLeast(issue)}, ${shown}` };
    case 'too_big':
      return { reason: `must be at most ${issue.maximum}${unitOf(issue.origin)}, ${shown}` };
    case 'custom': {
      const { remedy } = issue.params ?? {};
      return {
        // Such a rule is about what stands within; that a map was found says nothing.
        reason: typeof value === 'object' && value !== null ? issue.message : `${issue.message}, ${shown}`,
        ...(typeof remedy === 'string' ? { remedy } : {}),
      };
    }
    default:
      return { reason: `${issue.message}, ${shown}` };
  }
}

function atLeast(issue: z.core.$ZodIssueTooSmall): string {
  if (issue.origin === 'string' && issue.minimum === 1) return 'non-empty text';
  return `at least ${issue.minimum}${unitOf(issue.origin)}`;
}

function unitOf(origin: string): string {
  if (origin === 'array') return ' entries';
  return origin === 'string' ? ' characters' : '';
}

function article(expected: string): string {
  const names: Record<string, string> = {
    string: 'text',
    int: 'a whole number',
    number: 'a number',
    object: 'a map of keys',
    record: 'a map of keys',
    array: 'a list',
    boolean: 'true or false',
  };
  return names[expected] ?? expected;
}

function describe(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (value === HIDDEN) return 'something that is not shown here';
  if (value === null) return 'an empty value';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'a map of keys';
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}…"` : text;
}

function suggest(word: string, known: readonly string[]): { remedy?: string } {
  if (known.length === 0) return {};
  const guess = nearest(word, known);
  const question = guess === undefined ? '' : ` Did you mean "${guess}"?`;
  return { remedy: `Known: ${known.join(', ')}.${question}` };
}

function formatPath(path: Path): string {
  return path.reduce<string>((text, part) => {
    if (typeof part === 'number') return `${text}[${part}]`;
    return text === '' ? String(part) : `${text}.${String(part)}`;
  }, '');
}

function found(value: unknown, path: Path): unknown {
  return path.reduce<unknown>((inner, part) => {
    if (typeof inner !== 'object' || inner === null) return undefined;
    return (inner as Record<PropertyKey, unknown>)[part];
  }, value);
}

function at(lines: LineCounter, offset: number): { line: number; column: number } {
  const { line, col } = lines.linePos(offset);
  return { line, column: col };
}

/** Where the value at a path begins; for a missing one, where the nearest thing around it begins. */
function valueOffset(document: Document, path: Path): number {
  for (let length = path.length; length >= 0; length -= 1) {
    const node = length === 0 ? document.contents : document.getIn(path.slice(0, length), true);
    const range = rangeOf(node);
    if (range !== undefined) return range[0];
  }
  return 0;
}

function keyOffset(document: Document, path: Path, key: string): number {
  const map = path.length === 0 ? document.contents : document.getIn(path, true);
  if (isMap(map)) {
    for (const pair of map.items) {
      if (isPair(pair) && isScalar(pair.key) && String(pair.key.value) === key)
        return rangeOf(pair.key)?.[0] ?? 0;
    }
  }
  return valueOffset(document, path);
}

function rangeOf(node: unknown): readonly [number, number, number] | undefined {
  if (typeof node !== 'object' || node === null || !('range' in node)) return undefined;
  return (node.range as readonly [number, number, number] | null) ?? undefined;
}

/** The keys that the schema allows at a path, so that a mistyped one can be told from a misplaced one. */
function knownKeys(schema: z.core.$ZodType, path: Path): string[] {
  const inner = unwrap(schema);
  const [head, ...rest] = path;
  if (inner instanceof z.ZodObject) {
    if (head === undefined) return Object.keys(inner.shape);
    const child = (inner.shape as Record<PropertyKey, z.core.$ZodType>)[head];
    return child === undefined ? [] : knownKeys(child, rest);
  }
  if (inner instanceof z.ZodArray && head !== undefined) return knownKeys(inner.element, rest);
  if (inner instanceof z.ZodRecord && head !== undefined) return knownKeys(inner.valueType, rest);
  if (inner instanceof z.ZodUnion)
    return [...new Set(inner.options.flatMap((option) => knownKeys(option, path)))];
  return [];
}

function unwrap(schema: z.core.$ZodType): z.core.$ZodType {
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodNullable) return unwrap(schema.unwrap());
  if (schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault) return unwrap(schema.def.innerType);
  if (schema instanceof z.ZodPipe) return unwrap(schema.in);
  if (schema instanceof z.ZodLazy) return unwrap(schema.unwrap());
  return schema;
}
