import { isIP } from 'node:net';

import { duration, RegistryPath } from '@tandem/core';
import * as z from 'zod';

import type { AuthConfig } from './credentials.ts';
import type { Acl } from './opcodes.ts';
import { explainServer, parseServer, type ServerAddress } from './servers.ts';
import type { TlsConfig } from './tls.ts';

const Server = z.string().transform((text, context): ServerAddress => {
  const server = parseServer(text);
  if (server !== undefined) return server;
  const { reason, remedy } = explainServer(text);
  context.addIssue({ code: 'custom', message: reason, params: { remedy } });
  return z.NEVER;
});

const Servers = z
  .array(Server)
  .min(1)
  .superRefine((servers, context) => {
    const seen = new Set<string>();
    for (const [index, { host, port }] of servers.entries()) {
      const key = `${host.toLowerCase()} ${port}`;
      if (seen.has(key)) {
        const params = { remedy: 'Name every server once' };
        context.addIssue({ code: 'custom', path: [index], message: 'is there already', params });
      }
      seen.add(key);
    }
  });

const File = z.string().min(1);

const TlsSection = z
  .strictObject({
    ca_file: File.optional().describe(
      'PEM: the authorities that have signed the certificates of the servers; default: those that the system trusts',
    ),
    cert_file: File.optional().describe('PEM: our own certificate, for servers that ask for one'),
    key_file: File.optional().describe('PEM: the private key of cert_file, without a passphrase'),
    server_name: z
      .string()
      .refine(
        (text) => isIP(text) !== 0 || parseServer(text)?.host === text,
        'must be a host name or an address',
      )
      .optional()
      .describe('what the servers are called in their certificates; default: what each is called in servers'),
  })
  .superRefine((section, context) => {
    for (const [one, other] of [
      ['cert_file', 'key_file'],
      ['key_file', 'cert_file'],
    ] as const) {
      if (section[one] === undefined || section[other] !== undefined) continue;
      const params = { remedy: `Set ${other} too, or leave out both` };
      context.addIssue({ code: 'custom', path: [one], message: `is of no use without ${other}`, params });
    }
  })
  .transform((section): TlsConfig => ({
    caFile: section.ca_file,
    certFile: section.cert_file,
    keyFile: section.key_file,
    serverName: section.server_name,
  }));

const AuthSection = z
  .strictObject({
    scheme: z.enum(['digest']).default('digest').describe('how the servers know us'),
    credentials_file: File.describe('holds user:password, and nobody but this user may read it'),
  })
  .transform((section): AuthConfig => ({
    scheme: section.scheme,
    credentialsFile: section.credentials_file,
  }));

/** `registry.zookeeper` of the host file. Files are relative to it, and read again at every connect. */
export const ZooKeeperSection = z
  .strictObject({
    servers: Servers.describe(
      'the ensemble; names are resolved again at every connect, and each address of a name is a server',
    ),
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
    tls: TlsSection.optional().describe(
      'talk to the servers by TLS only; {} is enough with a public certificate',
    ),
    auth: AuthSection.optional().describe('tell the servers who we are'),
    acl: z
      .enum(['open', 'creator-all'] satisfies Acl[])
      .default('open')
      .describe(
        'open: anybody may read and change what is announced, as with Nerve. creator-all: only who has the same credentials, so that every reader needs them',
      ),
  })
  .superRefine((section, context) => {
    if (section.acl !== 'creator-all' || section.auth !== undefined) return;
    const params = { remedy: 'Set auth too, or leave acl at open' };
    context.addIssue({ code: 'custom', path: ['acl'], message: 'needs credentials', params });
  })
  .transform((section) => ({
    servers: section.servers,
    chroot: section.chroot ?? '',
    sessionTimeoutMs: section.session_timeout,
    pathEncoding: section.path_encoding,
    mirror: section.mirror,
    tls: section.tls,
    auth: section.auth,
    acl: section.acl,
  }));

export type ZooKeeperConfig = z.output<typeof ZooKeeperSection>;

/** The same with every file absolute. */
export function resolveFiles(config: ZooKeeperConfig, absolute: (file: string) => string): ZooKeeperConfig {
  const { tls, auth } = config;
  const resolve = (file: string | undefined) => (file === undefined ? undefined : absolute(file));
  return {
    ...config,
    tls: tls && {
      ...tls,
      caFile: resolve(tls.caFile),
      certFile: resolve(tls.certFile),
      keyFile: resolve(tls.keyFile),
    },
    auth: auth && { ...auth, credentialsFile: absolute(auth.credentialsFile) },
  };
}
