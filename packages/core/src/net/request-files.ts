import { readFile, stat } from 'node:fs/promises';

import * as z from 'zod';

import { withDeadline } from '../deadline.ts';
import { messageOf, systemErrorCode } from '../errors.ts';
import type { Log } from '../log.ts';
import type { HttpRequest } from './http-client.ts';

/** Relative paths are relative to the file that names them. */
export const FileName = z
  .string()
  .max(4_096)
  .regex(/^\P{Cc}+$/u, 'must be the path of a file');

/** How the other end proves who it is, and how we do. */
export const TlsSection = z
  .strictObject({
    ca_file: FileName.optional().describe('who must have signed its certificate; default: whom Node trusts'),
    cert_file: FileName.optional().describe('the certificate that it may ask of a client'),
    key_file: FileName.optional(),
  })
  .refine(
    ({ cert_file: cert, key_file: key }) => (cert === undefined) === (key === undefined),
    'must have both or neither of cert_file and key_file',
  )
  .transform(({ ca_file: caFile, cert_file: certFile, key_file: keyFile }) => ({
    caFile,
    certFile,
    keyFile,
  }));

export type TlsFiles = z.output<typeof TlsSection>;

export function resolveTlsFiles(
  files: TlsFiles | undefined,
  absolute: (file: string) => string,
): TlsFiles | undefined {
  if (files === undefined) return undefined;
  const resolve = (file: string | undefined) => (file === undefined ? undefined : absolute(file));
  return {
    caFile: resolve(files.caFile),
    certFile: resolve(files.certFile),
    keyFile: resolve(files.keyFile),
  };
}

type Read<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly reason: string };

/** A file on a dead network file system must not hold up a request for ever. */
const READ_DEADLINE_MS = 2_000;
const MAX_FILE_BYTES = 4 << 20;

/** As they are now: certificates are renewed while the daemon runs. */
export async function readTls(
  files: TlsFiles | undefined,
  signal: AbortSignal,
): Promise<Read<HttpRequest['tls']>> {
  if (files === undefined) return { ok: true, value: undefined };
  const texts: (string | undefined)[] = [];
  for (const file of [files.caFile, files.certFile, files.keyFile]) {
    const read = file === undefined ? undefined : await readText(file, signal);
    if (read?.ok === false) return read;
    texts.push(read?.value);
  }
  const [ca, cert, key] = texts;
  return { ok: true, value: { ca, cert, key } };
}

/** `user:password` on its only line, as the header of a request. Neither is in any reason. */
export async function readBasicAuth(file: string, signal: AbortSignal): Promise<Read<string>> {
  const read = await readText(file, signal);
  if (!read.ok) return read;
  const text = read.value.replace(/\r?\n$/, '');
  if (!/^[^:\p{Cc}]+:\P{Cc}+$/u.test(text))
    return { ok: false, reason: `${file} does not hold user:password on its only line` };
  return { ok: true, value: `Basic ${Buffer.from(text).toString('base64')}` };
}

export async function warnIfOpen(file: string, log: Log, signal: AbortSignal): Promise<void> {
  const found = await withDeadline(signal, READ_DEADLINE_MS, () => stat(file)).catch(() => undefined);
  if (found === undefined || (found.mode & 0o077) === 0) return;
  const mode = (found.mode & 0o777).toString(8).padStart(4, '0');
  log.warn({ file, mode, remedy: `chmod 0600 ${file}` }, 'others may read the credentials for a source');
}

async function readText(file: string, signal: AbortSignal): Promise<Read<string>> {
  try {
    return await withDeadline(signal, READ_DEADLINE_MS, async (signal): Promise<Read<string>> => {
      const found = await stat(file);
      if (!found.isFile()) return { ok: false, reason: `${file} is not a file` };
      if (found.size > MAX_FILE_BYTES) return { ok: false, reason: `${file} is too large` };
      return { ok: true, value: await readFile(file, { encoding: 'utf8', signal }) };
    });
  } catch (error) {
    return { ok: false, reason: `${file} cannot be read: ${systemErrorCode(error) ?? messageOf(error)}` };
  }
}
