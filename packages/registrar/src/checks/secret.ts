import * as z from 'zod';

import { createRefreshed, FileName, type FileText, type Made } from './files.ts';

const MAX_LENGTH = 1_000;

/** The keys of a check that logs in. */
export const passwordKeys = {
  password: z
    .string()
    .min(1)
    .max(MAX_LENGTH)
    .regex(/^\P{Cc}+$/u, 'must not hold line breaks or other control characters')
    .optional()
    .describe('what it logs in with; better in a file of its own: password_file'),
  password_file: FileName.optional().describe(
    'holds the password on its only line; mode 0600; read again when it has changed',
  ),
};

export interface PasswordConfig {
  readonly password?: string | undefined;
  readonly passwordFile?: string | undefined;
}

/** Two passwords are one too many. */
export function checkPassword(
  { password, password_file: file }: { password?: string | undefined; password_file?: string | undefined },
  context: z.RefinementCtx,
): void {
  if (password !== undefined && file !== undefined)
    context.addIssue({
      code: 'custom',
      path: ['password_file'],
      message: 'must not stand beside password: remove one of them',
    });
}

/** The password of one check as it is now; undefined where it has none. Never part of a reason. */
export interface Secret {
  read(signal: AbortSignal): Promise<Made<string | undefined>>;
}

export function createSecret({ password, passwordFile }: PasswordConfig): Secret {
  if (passwordFile === undefined) {
    const made = Promise.resolve<Made<string | undefined>>({ ok: true, value: password });
    return { read: () => made };
  }
  return createRefreshed<string | undefined>([passwordFile], ([text]) => passwordIn(text));
}

function passwordIn(read: FileText | undefined): Made<string> {
  const { file, text, mode } = read ?? { file: '', text: '', mode: 0 };
  const value = text.replace(/\r?\n$/, '');
  if (!/^\P{Cc}+$/u.test(value) || value.length > MAX_LENGTH)
    return { ok: false, reason: `${file} does not hold a password on its only line` };
  if ((mode & 0o077) === 0) return { ok: true, value };
  return { ok: true, value, warning: `others may read the password in ${file}: chmod 0600 ${file}` };
}
