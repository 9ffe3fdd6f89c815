// Authorities and certificates for tests, made by openssl when they are needed.
import { execFile } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-noenc'];

/** Paths of PEM files. */
export interface Certificate {
  readonly certFile: string;
  readonly keyFile: string;
  /** Both in one file, which is what Java reads as a key store. */
  readonly bothFile: string;
}

export interface Authority {
  /** Its own certificate. */
  readonly caFile: string;
  /** `names` as in `DNS:zk.test` and `IP:127.0.0.1`. After 0 days it has expired at once. */
  issue(subject: string, names: readonly string[], options?: { days?: number }): Promise<Certificate>;
}

/** An authority that nobody trusts yet, with its files in a directory of the caller. */
export async function createAuthority(directory: string, name: string): Promise<Authority> {
  const caFile = path.join(directory, `${name}.pem`);
  const caKey = path.join(directory, `${name}.key`);
  const made = ['-keyout', caKey, '-out', caFile];
  await run('openssl', ['req', '-x509', '-subj', `/CN=${name}`, '-days', '2', ...NEW_KEY, ...made]);
  return {
    caFile,
    async issue(subject, names, { days = 2 } = {}) {
      const base = path.join(directory, `${name}-${subject}`);
      const [certFile, keyFile, bothFile] = [`${base}.pem`, `${base}.key`, `${base}-both.pem`];
      const asked = ['-keyout', keyFile, '-out', `${base}.csr`];
      const wanted = [`subjectAltName=${names.join(',')}`, 'basicConstraints=critical,CA:FALSE'];
      const extensions = wanted.flatMap((extension) => ['-addext', extension]);
      await run('openssl', ['req', '-new', '-subj', `/CN=${subject}`, ...NEW_KEY, ...asked, ...extensions]);
      const signing = ['-CA', caFile, '-CAkey', caKey, '-days', String(days), '-copy_extensions', 'copyall'];
      await run('openssl', ['x509', '-req', '-in', `${base}.csr`, ...signing, '-out', certFile]);
      const parts = await Promise.all([keyFile, certFile].map((file) => readFile(file, 'utf8')));
      await writeFile(bothFile, parts.join(''));
      return { certFile, keyFile, bothFile };
    },
  };
}
