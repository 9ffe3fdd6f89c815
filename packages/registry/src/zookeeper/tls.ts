import { createHash, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createSecureContext, type SecureContext } from 'node:tls';

import { type Log, messageOf } from '@tandem/core';

import { fileProblem, type NamedFile, openRefreshed, readNamedFile, type Refreshed } from './named-file.ts';

/** How servers prove who they are, and how we do. */
export interface TlsConfig {
  /** Default: the authorities that the system trusts. */
  readonly caFile: string | undefined;
  /** With `keyFile`: the certificate that servers may ask of a client. */
  readonly certFile: string | undefined;
  readonly keyFile: string | undefined;
  /** What servers must be called in their certificates; default: as `servers` calls them. */
  readonly serverName: string | undefined;
}

export interface Tls {
  readonly serverName: string | undefined;
  readonly context: Refreshed<SecureContext>;
}

/** Where Debian, Red Hat, SUSE and Alpine keep what the system trusts; Node brings a list of its own, and only that. */
const SYSTEM_AUTHORITIES = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/ssl/cert.pem',
];
const PEM = /-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g;

/** Rejects with `CONFIG_INVALID` when a file is missing or does not hold what it should. */
export async function openTls(config: TlsConfig, log: Log): Promise<Tls> {
  let made: { readonly digest: string; readonly context: SecureContext } | undefined;
  const context = await openRefreshed({
    log,
    async make(signal) {
      const texts = await readFiles(config, signal);
      const digest = createHash('sha256').update(JSON.stringify(texts)).digest('hex');
      // To parse all authorities of the system takes longer than to connect.
      if (made?.digest !== digest) made = { digest, context: createContext(config, texts) };
      return made.context;
    },
  });
  return { serverName: config.serverName, context };
}

interface Texts {
  readonly ca: string | undefined;
  readonly cert: string | undefined;
  readonly key: string | undefined;
}

async function readFiles(config: TlsConfig, signal: AbortSignal | undefined): Promise<Texts> {
  const read = (file: NamedFile | undefined) =>
    file === undefined ? undefined : readNamedFile(file, signal);
  const [ca, cert, key] = await Promise.all([
    config.caFile === undefined ? readSystemAuthorities(signal) : read(named('ca_file', config.caFile)),
    read(named('cert_file', config.certFile)),
    read(named('key_file', config.keyFile)),
  ]);
  return { ca, cert, key };
}

function named(key: string, file: string | undefined): NamedFile | undefined {
  return file === undefined ? undefined : { key: `registry.zookeeper.tls.${key}`, file };
}

/** Undefined where there is no such file: then it is Node's own list. */
async function readSystemAuthorities(signal: AbortSignal | undefined): Promise<string | undefined> {
  for (const file of SYSTEM_AUTHORITIES) {
    try {
      return await readFile(file, { encoding: 'utf8', ...(signal === undefined ? {} : { signal }) });
    } catch {
      signal?.throwIfAborted();
    }
  }
  return undefined;
}

function createContext(config: TlsConfig, { ca, cert, key }: Texts): SecureContext {
  const caFile = named('ca_file', config.caFile);
  if (caFile !== undefined) assertCertificates(caFile, ca ?? '');
  const certFile = named('cert_file', config.certFile);
  if (certFile !== undefined) assertCertificates(certFile, cert ?? '');
  try {
    return createSecureContext({ ca, cert, key });
  } catch (error) {
    const keyFile = named('key_file', config.keyFile);
    if (keyFile === undefined) throw error;
    throw fileProblem(
      keyFile,
      `holds no key that fits the certificate: ${messageOf(error)}`,
      'Put the private key of cert_file there, as PEM and without a passphrase',
    );
  }
}

/** OpenSSL takes what it can read of a list and says nothing about the rest, such as that of a file half written. */
function assertCertificates(file: NamedFile, text: string): void {
  const blocks = text.match(PEM) ?? [];
  const remedy = 'Put certificates there, as PEM';
  if (blocks.length === 0) throw fileProblem(file, 'holds no certificate', remedy);
  if (text.split('-----BEGIN CERTIFICATE-----').length - 1 !== blocks.length)
    throw fileProblem(file, 'ends in the middle of a certificate', remedy);
  for (const block of blocks) {
    try {
      void new X509Certificate(block);
    } catch (error) {
      throw fileProblem(file, `holds a certificate that cannot be read: ${messageOf(error)}`, remedy);
    }
  }
}
