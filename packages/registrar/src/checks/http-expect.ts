import * as z from 'zod';

import { failure, PASS, type ProbeResult } from '../check.ts';
import { compilePattern, type Pattern } from './pattern.ts';
import { peerWords } from './peer-words.ts';

/** From and to, both included. */
type Range = readonly [number, number];

const Status = z
  .number()
  .int()
  .min(200)
  .max(599)
  .transform((status): Range => [status, status]);

const StatusRange = z.string().transform((text, context): Range => {
  const [, from = '', to = ''] = /^(\d{3})-(\d{3})$/.exec(text) ?? [];
  const range = [Number(from), Number(to)] as const;
  if (range[0] >= 200 && range[0] <= range[1] && range[1] <= 599) return range;
  context.addIssue({ code: 'custom', message: 'must be a status or a range of them such as 200-399' });
  return z.NEVER;
});

const SearchedText = z.string().min(1).max(1_000);

const BodyExpectation = z
  .strictObject({
    contains: SearchedText.optional().describe('a text that the body must hold'),
    matches: SearchedText.superRefine((source, context) => {
      const compiled = compilePattern(source);
      if (!compiled.ok) context.addIssue({ code: 'custom', message: compiled.reason });
    })
      .optional()
      .describe(
        'a regular expression that must match within the body; back references and looking around are not ' +
          'supported, so that no body takes long to search',
      ),
  })
  .transform(({ contains, matches }, context): BodyConfig => {
    if (contains !== undefined && matches === undefined) return { contains };
    if (matches !== undefined && contains === undefined) return { matches };
    context.addIssue({ code: 'custom', message: 'must have one of contains and matches' });
    return z.NEVER;
  });

/** What an answer must be like. */
export const expectKeys = {
  expect_status: z
    .union([
      Status.transform((range) => [range]),
      StatusRange.transform((range) => [range]),
      z.array(z.union([Status, StatusRange])).min(1),
    ])
    .prefault('200-399')
    .describe('the status that passes, a range such as 200-399, or a list of both'),
  expect_body: BodyExpectation.optional().describe('what the body must hold; default: anything'),
  max_body: z
    .number()
    .int()
    .min(0)
    .max(1 << 20)
    .default(64 << 10)
    .describe('how many bytes of the body are read; what is expected must be among them'),
};

type BodyConfig = { readonly contains: string } | { readonly matches: string };

export interface ExpectConfig {
  readonly status: readonly Range[];
  readonly body: BodyConfig | undefined;
  readonly maxBodyBytes: number;
}

/** The beginning of an answer, as far as it was read. */
export interface Answer {
  readonly status: number;
  readonly encoding: string;
  readonly body: Buffer;
  /** Whether that is all of it. */
  readonly isWhole: boolean;
}

export interface Expectation {
  readonly maxBodyBytes: number;
  /** Whether the body matters, beyond that it comes. */
  readonly isBodyJudged: boolean;
  readonly isStatus: (status: number) => boolean;
  /** Of an answer with such a status. */
  judge(answer: Answer, signal: AbortSignal): Promise<ProbeResult>;
}

export function createExpectation({ status: ranges, body, maxBodyBytes }: ExpectConfig): Expectation {
  const search = body === undefined ? undefined : createSearch(body);
  return {
    maxBodyBytes,
    isBodyJudged: search !== undefined,
    isStatus: (status) => ranges.some(([from, to]) => from <= status && status <= to),
    async judge(answer, signal) {
      if (search === undefined) return PASS;
      if (answer.encoding !== 'identity')
        return failure(`the body is encoded (${peerWords(answer.encoding)}), which was not asked for`);
      const text = answer.body.toString('utf8');
      if (await search.isIn(text, signal)) return PASS;
      const part = answer.isWhole ? 'body does' : `first ${maxBodyBytes} bytes of the body do`;
      return failure(`the ${part} not ${search.wanted}; it begins with ${shown(text)}`);
    },
  };
}

interface Search extends Pattern {
  /** What the body should do. */
  readonly wanted: string;
}

function createSearch(body: BodyConfig): Search {
  if ('contains' in body) {
    const { contains } = body;
    return {
      wanted: `contain ${JSON.stringify(contains)}`,
      isIn: (text) => Promise.resolve(text.includes(contains)),
    };
  }
  const compiled = compilePattern(body.matches);
  if (!compiled.ok) throw new Error(`an expression that was checked before ${compiled.reason}`);
  return { ...compiled.pattern, wanted: `match ${JSON.stringify(body.matches)}` };
}

const SHOWN_LENGTH = 60;

function shown(text: string): string {
  return JSON.stringify(peerWords(text.slice(0, SHOWN_LENGTH)));
}
