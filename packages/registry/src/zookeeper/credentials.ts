import { stat } from 'node:fs/promises';

import type { Log } from '@tandem/core';

import { fileProblem, type NamedFile, openRefreshed, readNamedFile, type Refreshed } from './named-file.ts';

/** Who we say that we are. */
export interface AuthConfig {
  readonly scheme: 'digest';
  readonly credentialsFile: string;
}

/** What the server is told on every connection. */
export interface Credentials {
  readonly scheme: 'digest';
  /** `user:password` */
  readonly proof: Buffer;
}

/** Rejects with `CONFIG_INVALID` when the file is missing or does not hold `user:password`. */
export async function openCredentials(config: AuthConfig, log: Log): Promise<Refreshed<Credentials>> {
  const file: NamedFile = { key: 'registry.zookeeper.auth.credentials_file', file: config.credentialsFile };
  await warnIfOpen(config.credentialsFile, log);
  return openRefreshed({
    log,
    async make(signal) {
      const text = (await readNamedFile(file, signal)).replace(/\r?\n$/, '');
      if (!/^[^:\r\n]+:[^\r\n]+$/.test(text))
        throw fileProblem(
          file,
          'does not hold a user and a password',
          'Write user:password on its only line',
        );
      return { scheme: config.scheme, proof: Buffer.from(text) };
    },
  });
}

async function warnIfOpen(file: string, log: Log): Promise<void> {
  const found = await stat(file).catch(() => undefined);
  if (found === undefined || (found.mode & 0o077) === 0) return;
  const mode = (found.mode & 0o777).toString(8).padStart(4, '0');
  log.warn({ file, mode, remedy: `chmod 0600 ${file}` }, 'others may read the credentials for ZooKeeper');
}
