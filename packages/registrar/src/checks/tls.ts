import { X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import {
  checkServerIdentity,
  type ConnectionOptions,
  createSecureContext,
  type SecureContext,
} from 'node:tls';

import { messageOf, queryName, systemErrorCode } from '@tandem/core';
import * as z from 'zod';

import { createRefreshed, FileName, type FileText, type Made } from './files.ts';
import { peerWords } from './peer-words.ts';

const ServerName = z
  .string()
  .refine(
    (text) => isIP(text) !== 0 || queryName(text) !== undefined,
    'must be the name of a host or an address',
  );

const TlsOptions = z
  .strictObject({
    verify: z
      .boolean()
      .default(true)
      .describe('whether the certificate of the service must be valid and have its name'),
    ca_file: FileName.optional().describe(
      'who must have signed that certificate, as PEM; default: whom Node trusts',
    ),
    cert_file: FileName.optional().describe('the certificate that the service may ask for, as PEM'),
    key_file: FileName.optional().describe('the private key of cert_file, as PEM and without a passphrase'),
    server_name: ServerName.optional().describe(
      'the name that is asked for (SNI) and that the certificate must have; default: the host that is probed',
    ),
  })
  .refine(
    ({ cert_file: cert, key_file: key }) => (cert === undefined) === (key === undefined),
    'must have both or neither of cert_file and key_file',
  )
  .refine(
    ({ verify, ca_file: ca }) => verify || ca === undefined,
    'must not have ca_file with verify: false, which looks at no signature',
  );

/** The `tls` key of a check: `true`, or a map. */
export const TlsKey = z
  .union([z.boolean(), TlsOptions])
  .optional()
  .transform((given): TlsConfig | undefined => {
    if (given === undefined || given === false) return undefined;
    const options = given === true ? { verify: true } : given;
    return {
      verify: options.verify,
      caFile: options.ca_file,
      certFile: options.cert_file,
      keyFile: options.key_file,
      serverName: options.server_name,
    };
  })
  .describe('whether TLS is spoken: true, or how');

/** How a probe speaks TLS: who the service must prove to be, and who we are. */
export interface TlsConfig {
  readonly verify: boolean;
  readonly caFile?: string | undefined;
  readonly certFile?: string | undefined;
  readonly keyFile?: string | undefined;
  readonly serverName?: string | undefined;
}

/** The same with the paths of its files made absolute. */
export function resolveTlsFiles(
  config: TlsConfig | undefined,
  absolute: (file: string) => string,
): TlsConfig | undefined {
  if (config === undefined) return undefined;
  const resolve = (file: string | undefined) => (file === undefined ? undefined : absolute(file));
  const { caFile, certFile, keyFile } = config;
  return { ...config, caFile: resolve(caFile), certFile: resolve(certFile), keyFile: resolve(keyFile) };
}

/** What one check connects with. It knows what its files held, so a check has one for all its probes. */
export interface TlsClient {
  /**
   * What `tls.connect`, `https.request` or `http2.connect` take besides the address, for a host as it is called in the
   * configuration. Files that have changed since are read again; what is wrong with them is a value.
   */
  options(host: string, signal: AbortSignal): Promise<Made<ConnectionOptions>>;
}

export function createTlsClient(config: TlsConfig): TlsClient {
  const { caFile, certFile, keyFile } = config;
  const files = [caFile, certFile, keyFile].filter((file) => file !== undefined);
  const context = createRefreshed(files, (texts) => createContext(config, texts));
  return {
    async options(host, signal) {
      const made = await context.read(signal);
      if (!made.ok) return { ok: false, reason: `TLS: ${made.reason}` };
      const name = config.serverName ?? host;
      const options: ConnectionOptions = {
        secureContext: made.value,
        rejectUnauthorized: config.verify,
        // An address is not a name to ask for (RFC 6066); without one, Node would make one up.
        servername: isIP(name) === 0 ? name : '',
        checkServerIdentity: (_, certificate) => checkServerIdentity(name, certificate),
      };
      const { warning } = made;
      return { ok: true, value: options, ...(warning === undefined ? {} : { warning: `TLS: ${warning}` }) };
    },
  };
}

function createContext(config: TlsConfig, texts: readonly FileText[]): Made<SecureContext> {
  const textOf = (file: string | undefined) => texts.find((one) => one.file === file)?.text;
  const [ca, cert, key] = [config.caFile, config.certFile, config.keyFile].map(textOf);
  for (const [file, text] of [
    [config.caFile, ca],
    [config.certFile, cert],
  ]) {
    const flaw = file === undefined ? undefined : flawOf(text ?? '');
    if (flaw !== undefined) return { ok: false, reason: `${file} ${flaw}: put certificates there, as PEM` };
  }
  try {
    return { ok: true, value: createSecureContext({ ca, cert, key }) };
  } catch (error) {
    const reason = `${config.keyFile} holds no key that fits the certificate: ${messageOf(error)}`;
    return { ok: false, reason };
  }
}

const PEM = /-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g;

/** OpenSSL takes what it can read of a list and says nothing about the rest, such as that of a file half written. */
function flawOf(text: string): string | undefined {
  const blocks = text.match(PEM) ?? [];
  if (blocks.length === 0) return 'holds no certificate';
  if (text.split('-----BEGIN CERTIFICATE-----').length - 1 !== blocks.length)
    return 'ends in the middle of a certificate';
  for (const block of blocks) {
    try {
      void new X509Certificate(block);
    } catch (error) {
      return `holds a certificate that cannot be read (${messageOf(error)})`;
    }
  }
  return undefined;
}

/**
 * Why TLS did not come about, in the words of an operator and with what to do; undefined where something else than TLS
 * is to blame.
 */
export function tlsReason(error: unknown): string | undefined {
  const code = systemErrorCode(error) ?? '';
  const known = CERTIFICATE_REASONS[code];
  if (known !== undefined) return `TLS: ${known}`;
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') return `TLS: ${wrongName(error)}`;
  // Some paths through Node call everything EPROTO, and have what OpenSSL said only in the message.
  if (code !== 'EPROTO' && !code.startsWith('ERR_SSL_')) return undefined;
  const words = `${code} ${messageOf(error)}`.toLowerCase().replaceAll('_', ' ');
  const reason = PROTOCOL_REASONS.find(([pattern]) => pattern.test(words))?.[1];
  return `TLS: ${reason ?? `the handshake has failed: ${peerWords(messageOf(error))}`}`;
}

const CERTIFICATE_REASONS: Readonly<Record<string, string>> = {
  DEPTH_ZERO_SELF_SIGNED_CERT:
    'the certificate of the service is self-signed: name it as tls.ca_file, or set tls.verify: false',
  SELF_SIGNED_CERT_IN_CHAIN: untrusted('ends at an authority that is not trusted'),
  UNABLE_TO_GET_ISSUER_CERT: untrusted('is of an unknown authority'),
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: untrusted('is of an unknown authority'),
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: untrusted(
    'is of an unknown authority, or the service leaves out the one between',
  ),
  CERT_SIGNATURE_FAILURE: untrusted('has a signature that tls.ca_file does not confirm'),
  CERT_HAS_EXPIRED: 'the certificate of the service or of its authority has expired: renew it',
  CERT_NOT_YET_VALID: 'the certificate of the service is not valid yet: look at the clocks of both ends',
  CERT_REVOKED: 'the certificate of the service was revoked: replace it',
  INVALID_PURPOSE: 'the certificate of the service is not one for servers: replace it',
};

function untrusted(what: string): string {
  return `the certificate of the service ${what}: name the certificate of its authority as tls.ca_file`;
}

const PROTOCOL_REASONS: readonly (readonly [RegExp, string])[] = [
  [
    /wrong version number|packet length too long|http request|record too small|unexpected message/,
    'the service does not speak TLS on this port',
  ],
  [/certificate required/, 'the service asks for a certificate: name one as tls.cert_file and tls.key_file'],
  [
    /alert (unknown ca|bad certificate|unsupported certificate|certificate (expired|revoked|unknown)|access denied)/,
    'the service does not accept our certificate: look at tls.cert_file',
  ],
  [
    /unrecognized name/,
    'the service has no certificate for that name: set tls.server_name to one that it has',
  ],
  [
    /protocol version|unsupported protocol|no protocols available/,
    'the service speaks only versions of TLS before 1.2',
  ],
  [
    /handshake failure/,
    'the service breaks the handshake off: it may ask for a certificate (tls.cert_file), or have no cipher in common',
  ],
];

/** The names that it has are the best hint. They are the peer's words, so they are shown only as far as they are plain. */
function wrongName(error: unknown): string {
  const wanted = error instanceof Error && 'host' in error ? String(error.host) : 'the host that is probed';
  const certificate = error instanceof Error && 'cert' in error ? error.cert : undefined;
  const names = (certificate as { subjectaltname?: unknown } | undefined)?.subjectaltname;
  const has =
    typeof names === 'string' && names !== '' ? `only for ${peerWords(names)}` : 'for no name at all';
  return `the certificate of the service is not for ${wanted}, ${has}: set tls.server_name to a name that it has`;
}
