import { duration, RegistryPath } from '@tandem/core';
import * as z from 'zod';

import { parseServer, type ServerAddress } from './servers.ts';

const Server = z.string().transform((text, context): ServerAddress => {
  const server = parseServer(text);
  if (server !== undefined) return server;
  context.addIssue({
    code: 'custom',
    message: 'must be a server such as zk1:2181, 10.0.0.1:2181 or [2001:db8::1]:2181',
  });
  return z.NEVER;
});

/** `registry.zookeeper` of the host file. */
export const ZooKeeperSection = z
  .strictObject({
    servers: z.array(Server).min(1).describe('the ensemble; names are resolved again at every connect'),
    chroot: RegistryPath.optional().describe('a path below which everything happens; created when missing'),
    session_timeout: duration({ minMs: 1_000, maxMs: 300_000 })
      .prefault('16s')
      .describe('how long the servers keep a silent session and its ephemeral nodes'),
    path_encoding: z
      .boolean()
      .default(false)
      .describe(
        "put the record in the node's name, so that readers need not read its data (Nerve's use_path_encoding)",
      ),
    mirror: z
      .enum(['auto', 'classic'])
      .default('auto')
      .describe(
        'auto: follow changes by persistent watches where the server has them (3.6 and later); classic: read the list again after each change',
      ),
  })
  .transform((section) => ({
    servers: section.servers,
    chroot: section.chroot ?? '',
    sessionTimeoutMs: section.session_timeout,
    pathEncoding: section.path_encoding,
    mirror: section.mirror,
  }));

export type ZooKeeperConfig = z.output<typeof ZooKeeperSection>;
