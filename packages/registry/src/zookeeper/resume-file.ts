import { readFile } from 'node:fs/promises';

import { type Log, messageOf, systemErrorCode, writeFileAtomic } from '@tandem/core';
import * as z from 'zod';

import type { Place } from '../registry.ts';
import type { SessionCredentials } from './connection.ts';

/** An instance whose node outlives its session: without a note nobody would know whose it is. */
export interface PersistentClaim {
  /** Where in the registry, chroot included. */
  readonly path: string;
  readonly place: Place;
}

/**
 * What a successor needs: to take a session up again its id, its password (so the file is 0600) and the paths below
 * which it has announced something; and what stands without any session.
 */
export interface Resume {
  readonly session: SessionCredentials;
  readonly paths: readonly string[];
  readonly persistent: readonly PersistentClaim[];
}

const Claim = z.object({ path: z.string(), name: z.string(), host: z.string(), port: z.number() });

const ResumeFile = z.object({
  version: z.union([z.literal(1), z.literal(2)]),
  ensemble: z.string(),
  session_id: z
    .string()
    .regex(/^-?\d{1,19}$/)
    .transform(BigInt)
    .refine((id) => id !== 0n && BigInt.asIntN(64, id) === id),
  password: z.base64(),
  paths: z.array(z.string()),
  persistent: z.array(Claim).default([]),
});

/** Undefined when there is none, or when it belongs to another ensemble or cannot be read: then a new session starts. */
export async function readResume(file: string, ensemble: string, log: Log): Promise<Resume | undefined> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if (systemErrorCode(error) !== 'ENOENT')
      log.warn({ file, err: messageOf(error) }, 'cannot read the saved session');
    return undefined;
  }
  const parsed = ResumeFile.safeParse(parseJson(text));
  if (!parsed.success) {
    log.warn({ file }, 'the saved session is damaged, starting a new one');
    return undefined;
  }
  if (parsed.data.ensemble !== ensemble) {
    log.info(
      { file, saved: parsed.data.ensemble, ensemble },
      'the saved session belongs to another ensemble',
    );
    return undefined;
  }
  const session = {
    id: parsed.data.session_id,
    password: Buffer.from(parsed.data.password, 'base64'),
  };
  const persistent = parsed.data.persistent.map(({ path, ...place }) => ({ path, place }));
  return { session, paths: parsed.data.paths, persistent };
}

export async function writeResume(file: string, ensemble: string, resume: Resume): Promise<void> {
  const session = {
    session_id: String(resume.session.id),
    password: resume.session.password.toString('base64'),
    paths: [...resume.paths],
  };
  const persistent = resume.persistent.map(({ path, place: { name, host, port } }) => ({
    path,
    name,
    host,
    port,
  }));
  // The first version knows nothing of persistent nodes: whoever reads only that may resume only without them.
  const content: z.input<typeof ResumeFile> =
    persistent.length === 0
      ? { version: 1, ensemble, ...session }
      : { version: 2, ensemble, ...session, persistent };
  await writeFileAtomic(file, `${JSON.stringify(content)}\n`, { mode: 0o600, durable: true });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
