import { messageOf } from '@tandem/core';

/**
 * A regular expression whose matching takes time in proportion to the text, whatever either of them is. That of
 * JavaScript tries one way after the other: there a text of a peer can hold up the whole process for hours.
 */
export interface Pattern {
  /** Whether it matches within the text. Lets others run in between; rejects only with the reason of the signal. */
  isIn(text: string, signal: AbortSignal): Promise<boolean>;
}

export type Compiled =
  { readonly ok: true; readonly pattern: Pattern } | { readonly ok: false; readonly reason: string };

/** The time for each character of a text grows with their number. */
const MAX_PARTS = 500;
const MAX_SOURCE_LENGTH = 1_000;
/** A few milliseconds of work. */
const LOOKS_AT_ONCE = 200_000;

/** One character that is consumed, of a set. */
interface CharacterSet {
  has(point: number): boolean;
}

type Boundary = 'start' | 'end' | 'word' | 'within';

type Expression =
  | { readonly kind: 'character'; readonly set: CharacterSet }
  | { readonly kind: 'boundary'; readonly boundary: Boundary }
  | { readonly kind: 'sequence'; readonly parts: readonly Expression[] }
  | { readonly kind: 'choice'; readonly options: readonly Expression[] }
  | { readonly kind: 'repeat'; readonly part: Expression; readonly min: number; readonly max: number };

type Step =
  | { readonly kind: 'character'; readonly set: CharacterSet; readonly next: number }
  | { readonly kind: 'boundary'; readonly boundary: Boundary; readonly next: number }
  | { readonly kind: 'fork'; readonly next: readonly number[] }
  | { readonly kind: 'match' };

/** Where a pattern asks for what takes going back. */
class Unsupported extends Error {}

/** In the syntax of JavaScript with the flag `u`, without what needs going back: back references and looking around. */
export function compilePattern(source: string): Compiled {
  if (source.length > MAX_SOURCE_LENGTH) return refuse(`is longer than ${MAX_SOURCE_LENGTH} characters`);
  try {
    // What is not an expression for JavaScript is none for us. It never sees a text.
    void new RegExp(source, 'u');
  } catch (error) {
    return refuse(`is not a regular expression: ${messageOf(error)}`);
  }
  try {
    return { ok: true, pattern: searchable(assemble(parse(source))) };
  } catch (error) {
    if (error instanceof Unsupported) return refuse(error.message);
    throw error;
  }
}

function refuse(reason: string): Compiled {
  return { ok: false, reason };
}

const ATOM =
  /\\(?:u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}|u\{[\da-fA-F]+\}|u[\da-fA-F]{4}|x[\da-fA-F]{2}|[pP]\{[^}]*\}|c[A-Za-z]|[^kbB1-9])|\[(?:\\[\s\S]|[^\]\\])*\]|[^\\^$*+?()[\]{}|]/uy;
const BOUNDARY = /\^|\$|\\b|\\B/y;
const QUANTIFIER = /(?:([*+?])|\{(\d+)(,(\d*))?\})\??/y;
const GROUP = /\((?:\?:|\?<[^=!>][^>]*>|(?!\?))/y;

const BOUNDARIES: Readonly<Record<string, Boundary>> = {
  '^': 'start',
  $: 'end',
  '\\b': 'word',
  '\\B': 'within',
};

/** The structure of an expression that is known to be well-formed. */
function parse(source: string): Expression {
  const sets = new Map<string, CharacterSet>();
  let at = 0;

  function take(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = at;
    const match = pattern.exec(source);
    if (match !== null) at = pattern.lastIndex;
    return match;
  }

  function choice(): Expression {
    const options = [sequence()];
    while (source[at] === '|') {
      at += 1;
      options.push(sequence());
    }
    return options.length === 1 && options[0] !== undefined ? options[0] : { kind: 'choice', options };
  }

  function sequence(): Expression {
    const parts: Expression[] = [];
    while (at < source.length && source[at] !== '|' && source[at] !== ')') parts.push(repeated());
    return { kind: 'sequence', parts };
  }

  function repeated(): Expression {
    const part = single();
    const quantifier = take(QUANTIFIER);
    if (quantifier === null) return part;
    const [, sign, min, comma, max] = quantifier;
    if (sign !== undefined)
      return { kind: 'repeat', part, min: sign === '+' ? 1 : 0, max: sign === '?' ? 1 : Infinity };
    return {
      kind: 'repeat',
      part,
      min: Number(min),
      max: comma === undefined ? Number(min) : max === '' ? Infinity : Number(max),
    };
  }

  function single(): Expression {
    if (take(GROUP) !== null) {
      const inner = choice();
      at += 1;
      return inner;
    }
    const boundary = BOUNDARIES[take(BOUNDARY)?.[0] ?? ''];
    if (boundary !== undefined) return { kind: 'boundary', boundary };
    const [atom] = take(ATOM) ?? [];
    if (atom === undefined)
      throw new Unsupported(
        `must not refer back or look around, as ${JSON.stringify(source.slice(at, at + 4))} does`,
      );
    const set = sets.get(atom) ?? setOf(atom);
    sets.set(atom, set);
    return { kind: 'character', set };
  }

  return choice();
}

/** JavaScript knows best what an atom means, and for a single character there is nothing to go back to. */
function setOf(atom: string): CharacterSet {
  const pattern = new RegExp(`^(?:${atom})$`, 'u');
  const isIn = (point: number) => pattern.test(String.fromCodePoint(point));
  const ascii = Array.from({ length: 128 }, (_, point) => isIn(point));
  let last = { point: -1, isIn: false };
  return {
    has(point) {
      if (point < 128) return ascii[point] === true;
      if (last.point !== point) last = { point, isIn: isIn(point) };
      return last.isIn;
    },
  };
}

interface Program {
  readonly steps: readonly Step[];
  readonly first: number;
}

/** Built from its end: every step knows what comes after it. */
function assemble(expression: Expression): Program {
  const steps: Step[] = [];
  let parts = 0;

  const add = (step: Step) => steps.push(step) - 1;

  function emit(part: Expression, next: number): number {
    // What becomes no step at all can be repeated without end, too.
    parts += 1;
    if (parts > MAX_PARTS)
      throw new Unsupported(`is too large: written out, it has more than ${MAX_PARTS} parts`);
    switch (part.kind) {
      case 'character':
      case 'boundary':
        return add({ ...part, next });
      case 'sequence':
        return part.parts.reduceRight((next, inner) => emit(inner, next), next);
      case 'choice':
        return add({ kind: 'fork', next: part.options.map((option) => emit(option, next)) });
      case 'repeat':
        return emitRepeat(part, next);
    }
  }

  function emitRepeat({ part, min, max }: Expression & { kind: 'repeat' }, next: number): number {
    let first = next;
    if (max === Infinity) {
      const ways = [next];
      first = add({ kind: 'fork', next: ways });
      ways.push(emit(part, first));
    } else {
      for (let count = min; count < max; count += 1)
        first = add({ kind: 'fork', next: [next, emit(part, first)] });
    }
    for (let count = 0; count < min; count += 1) first = emit(part, first);
    return first;
  }

  const first = emit(expression, add({ kind: 'match' }));
  return { steps, first };
}

const WORD = /^\w$/;

/** All ways through the program at once: at each character the places where one of them may stand. */
function searchable({ steps, first }: Program): Pattern {
  return {
    async isIn(text, signal) {
      /** At which character a step was looked at last. */
      const seen = new Int32Array(steps.length).fill(-1);
      // Nothing is allocated for a character: these two change places.
      let places: number[] = [];
      let next: number[] = [];
      let before: number | undefined;
      let looks = 0;

      /** Follows all ways over what consumes nothing, and over the character after that, if there is one. */
      function advance(at: number, after: number | undefined): boolean {
        places.push(first);
        for (let place = places.pop(); place !== undefined; place = places.pop()) {
          if (seen[place] === at) continue;
          seen[place] = at;
          looks += 1;
          const step = steps[place];
          switch (step?.kind) {
            case 'character':
              if (after !== undefined && step.set.has(after)) next.push(step.next);
              break;
            case 'fork':
              for (const way of step.next) places.push(way);
              break;
            case 'boundary':
              if (isAt(step.boundary, before, after)) places.push(step.next);
              break;
            case 'match':
              return true;
            case undefined:
          }
        }
        [places, next] = [next, places];
        before = after;
        return false;
      }

      for (let at = 0; at < text.length;) {
        const point = text.codePointAt(at) ?? 0;
        if (advance(at, point)) return true;
        at += point > 0xffff ? 2 : 1;
        if (looks > LOOKS_AT_ONCE) {
          looks = 0;
          await new Promise((resolve) => {
            setImmediate(resolve);
          });
          signal.throwIfAborted();
        }
      }
      return advance(text.length, undefined);
    },
  };
}

function isAt(boundary: Boundary, before: number | undefined, after: number | undefined): boolean {
  switch (boundary) {
    case 'start':
      return before === undefined;
    case 'end':
      return after === undefined;
    case 'word':
      return isWord(before) !== isWord(after);
    case 'within':
      return isWord(before) === isWord(after);
  }
}

function isWord(point: number | undefined): boolean {
  return point !== undefined && WORD.test(String.fromCodePoint(point));
}
