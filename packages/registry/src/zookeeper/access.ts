import { isTandemError, type Log, silentLog } from '@tandem/core';

import type { ZooKeeperConfig } from './config.ts';
import { type Credentials, openCredentials } from './credentials.ts';
import type { Refreshed } from './named-file.ts';
import { openTls, type Tls } from './tls.ts';

/** What the servers and we prove to each other, from files. */
export interface Access {
  readonly tls: Tls | undefined;
  readonly credentials: Refreshed<Credentials> | undefined;
}

/** Rejects with `CONFIG_INVALID` when a file is missing or does not hold what it should. */
export async function openAccess({ tls, auth }: ZooKeeperConfig, log: Log): Promise<Access> {
  return {
    tls: tls === undefined ? undefined : await openTls(tls, log),
    credentials: auth === undefined ? undefined : await openCredentials(auth, log),
  };
}

/** What is wrong with a file that the configuration names. */
export interface FileProblem {
  /** Such as `registry.zookeeper.tls.ca_file`. */
  readonly key: string;
  readonly reason: string;
  readonly remedy: string;
}

/** The first mistake with TLS and the first with auth, without connecting. */
export async function findFileProblems(config: ZooKeeperConfig): Promise<FileProblem[]> {
  const halves = [
    { ...config, auth: undefined },
    { ...config, tls: undefined },
  ];
  const results = await Promise.allSettled(halves.map((half) => openAccess(half, silentLog)));
  return results.flatMap((result) => {
    if (result.status === 'fulfilled') return [];
    const error: unknown = result.reason;
    if (!isTandemError(error, 'CONFIG_INVALID')) throw error;
    const { key, reason, remedy } = error.details;
    return [{ key: String(key), reason: String(reason), remedy: String(remedy) }];
  });
}
