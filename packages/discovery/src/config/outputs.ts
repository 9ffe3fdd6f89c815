import path from 'node:path';

import { duration } from '@tandem/core';
import * as z from 'zod';

/** `discovery.files`: `<service>.json` with the instances of every discovered service. */
export const FilesSection = z
  .strictObject({
    directory: z.string().min(1).describe('where the files are kept, such as /run/tandem/services'),
    max_writes_per_second: z
      .number()
      .min(0.01)
      .max(1_000)
      .default(10)
      .describe('of each file; the newest state is written in the end'),
  })
  .transform(({ directory, max_writes_per_second: perSecond }) => ({
    directory,
    minIntervalMs: 1_000 / perSecond,
  }));

const MODE_MESSAGE = 'must be an octal mode by which its owner may do what others may, such as 0644';

/**
 * YAML reads 0644 as the number 644: its digits are what was meant. 0o644 is another number by then, 420, whose digits
 * would let others do more than the owner: that is how it is found out.
 */
const FileMode = z
  .union([z.string(), z.number().int()])
  .transform((written) => String(written))
  .pipe(z.string().regex(/^0?[67][0-7]{2}$/, MODE_MESSAGE))
  .transform((digits) => Number.parseInt(digits, 8))
  .refine((mode) => {
    const owner = mode >> 6;
    return ((mode >> 3) & 7 & ~owner) === 0 && (mode & 7 & ~owner) === 0;
  }, MODE_MESSAGE);

const Word = z.string().refine((text) => !text.includes('\0'), 'must not hold a zero byte');
const Argv = z
  .array(Word)
  .min(1)
  .refine(([program]) => program !== '', 'must begin with a program');

/** What stands for the candidate in the words of `check`. */
export const CANDIDATE = '{file}';

/** One entry of `discovery.templates`: a file that is rendered from the instances of all discovered services. */
export const TemplateSection = z
  .strictObject({
    name: z.string().min(1).max(128).optional().describe('what logs call it; default: the target'),
    template: z.string().min(1).describe('a Handlebars template'),
    target: z.string().min(1).describe('the file that it becomes'),
    mode: FileMode.prefault('0644'),
    check: Argv.refine(
      (words) => words.some((word) => word.includes(CANDIDATE)),
      `must name the candidate by ${CANDIDATE}`,
    )
      .optional()
      .describe('a program that exits 0 if it would take {file}, such as [nginx, -t, -c, "{file}"]'),
    reload: Argv.optional().describe('a program that makes the target be read again'),
    timeout: duration({ minMs: 100, maxMs: 3_600_000 }).prefault('30s').describe('for each of the two'),
    settle: z
      .strictObject({
        quiet: duration({ minMs: 0, maxMs: 60_000 }).prefault('100ms'),
        max: duration({ minMs: 0, maxMs: 600_000 }).prefault('1s'),
      })
      .prefault({})
      .describe('changes are gathered until there is none for `quiet`, but no longer than `max`'),
    trust_labels: z
      .boolean()
      .default(false)
      .describe('labels reach the template as they were announced, whatever is in them'),
  })
  .refine(({ template, target }) => path.normalize(template) !== path.normalize(target), {
    path: ['target'],
    message: 'must not be the template itself',
  })
  .transform((section) => ({
    name: section.name ?? section.target,
    template: section.template,
    target: section.target,
    mode: section.mode,
    check: section.check,
    reload: section.reload,
    timeoutMs: section.timeout,
    settle: { quietMs: section.settle.quiet, maxMs: section.settle.max },
    trustLabels: section.trust_labels,
  }));

/** `discovery.templates` */
export const TemplatesSection = z.array(TemplateSection).superRefine((templates, context) => {
  const targets = new Set<string>();
  for (const [index, { target }] of templates.entries()) {
    const place = path.normalize(target);
    if (targets.has(place))
      context.addIssue({
        code: 'custom',
        path: [index, 'target'],
        message: 'is the target of another template, too',
      });
    targets.add(place);
  }
});

export type FilesConfig = z.output<typeof FilesSection>;
export type TemplateConfig = z.output<typeof TemplateSection>;

/** The keys of `discovery` that name files, with these made absolute. */
export function resolveOutputFiles<
  T extends { readonly files: FilesConfig | undefined; readonly templates: readonly TemplateConfig[] },
>(settings: T, absolute: (part: string) => string): T {
  const { files, templates } = settings;
  return {
    ...settings,
    files: files === undefined ? undefined : { ...files, directory: absolute(files.directory) },
    templates: templates.map((one) => ({
      ...one,
      template: absolute(one.template),
      target: absolute(one.target),
    })),
  };
}
