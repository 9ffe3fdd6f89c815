import { readFile, stat } from 'node:fs/promises';

import { systemErrorCode } from '@tandem/core';

/** Whom HAProxy will run as, where that is known: the user of this process, whose child it is. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/**
 * What `haproxy -c` takes and the worker then dies of, with the master behind it: nobody serves any more. Everything
 * else of the global section that is wrong fails in the master, which goes on with the worker it has (measured on
 * 2.6). Undefined when there is nothing of that kind.
 */
export async function findFatalLine(text: string, owner: Owner | undefined): Promise<string | undefined> {
  for (const line of globalLines(text)) {
    const [keyword = '', word = ''] = line.split(/\s+/);
    const reason = await whyFatal(keyword, word.replace(/^(["'])(.*)\1$/, '$2'), owner);
    if (reason !== undefined) return `global: "${line}": ${reason}. haproxy -c takes it, HAProxy dies of it`;
  }
  return undefined;
}

function globalLines(text: string): string[] {
  const sections = text.split(/^(?=[A-Za-z])/m).filter((section) => /^global\b/.test(section));
  return sections.flatMap((section) =>
    section
      .split('\n')
      .slice(1)
      .map((line) => line.trim()),
  );
}

async function whyFatal(
  keyword: string,
  value: string,
  owner: Owner | undefined,
): Promise<string | undefined> {
  const isRoot = owner === undefined || owner.uid === 0;
  switch (keyword) {
    case 'chroot':
      return isRoot ? whyNotADirectory(value) : 'only root may do so, and HAProxy runs as the user of Tandem';
    case 'user':
    case 'uid':
      return isRoot ? undefined : whyNotOurs(value, owner.uid, '/etc/passwd');
    case 'group':
    case 'gid':
      return isRoot ? undefined : whyNotOurs(value, owner.gid, '/etc/group');
    default:
      return undefined;
  }
}

/** Only what is certain: this process may not be allowed to look where HAProxy is. */
async function whyNotADirectory(directory: string): Promise<string | undefined> {
  // HAProxy fills in variables; this process does not know them.
  if (directory.includes('$')) return undefined;
  try {
    return (await stat(directory)).isDirectory() ? undefined : 'that is not a directory';
  } catch (error) {
    const code = systemErrorCode(error);
    return code === 'ENOENT' || code === 'ENOTDIR' ? 'the directory does not exist' : undefined;
  }
}

async function whyNotOurs(who: string, own: number, database: string): Promise<string | undefined> {
  const id = /^\d+$/.test(who) ? Number(who) : await lookUp(who, database);
  return id === undefined || id === own ? undefined : 'only root may become somebody else';
}

/** `name:password:id:…`; names that are kept elsewhere stay unknown. */
async function lookUp(name: string, database: string): Promise<number | undefined> {
  const text = await readFile(database, 'utf8').catch(() => '');
  const fields = text.split('\n').find((line) => line.startsWith(`${name}:`));
  const id = Number(fields?.split(':')[2]);
  return fields !== undefined && Number.isInteger(id) ? id : undefined;
}
