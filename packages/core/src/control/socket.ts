import { chmod, chown, link, mkdir, mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import type { Server } from 'node:net';
import path from 'node:path';

import { messageOf, systemErrorCode, TandemError } from '../errors.ts';
import { askHolder, MAX_LOCK_PATH, setAsideIfDead } from '../process-lock.ts';

/** That of a dead process is set aside like a lock; the name that one has before it is open is shorter than that. */
export const MAX_CONTROL_PATH = MAX_LOCK_PATH;

/**
 * Lets a server listen on a unix socket that its owner and group may use, and nobody else at any moment. Replaces the
 * socket of a process that is dead; throws `ALREADY_RUNNING` when it belongs to a living one. Returns what removes it.
 */
export async function openControlSocket(
  server: Server,
  file: string,
  group: string | undefined,
): Promise<() => Promise<void>> {
  if (Buffer.byteLength(file) > MAX_CONTROL_PATH)
    throw cannotOpen(file, `its path has more than ${MAX_CONTROL_PATH} bytes. Choose a shorter one`);
  const gid = group === undefined ? undefined : await groupId(file, group);
  const directory = path.dirname(file);
  let aside: string | undefined;
  try {
    await mkdir(directory, { recursive: true, mode: 0o750 });
    // It gets its mode where nobody else can reach it: the umask is the whole process', and between bind and chmod
    // anybody could connect.
    aside = await mkdtemp(path.join(directory, '.'));
    const unready = path.join(aside, 's');
    await listen(server, unready);
    await chmod(unready, 0o660);
    if (gid !== undefined) await chown(unready, -1, gid);
    await publish(unready, file);
  } catch (error) {
    server.close();
    if (error instanceof TandemError) throw error;
    throw cannotOpen(file, reasonOf(error), error);
  } finally {
    if (aside !== undefined) await rm(aside, { recursive: true, force: true });
  }
  const own = await stat(file).catch(() => undefined);
  return async () => {
    // Somebody may have put another one in its place.
    const now = await stat(file).catch(() => undefined);
    if (now !== undefined && own !== undefined && now.ino === own.ino && now.dev === own.dev)
      await rm(file, { force: true });
  };
}

function listen(server: Server, file: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(file, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

/** Gives the open socket its name: a link never replaces what is there, so nothing that lives can be stolen. */
async function publish(unready: string, file: string): Promise<void> {
  for (let attempt = 0; attempt < 5; attempt += 1) {
    try {
      await link(unready, file);
      return;
    } catch (error) {
      if (systemErrorCode(error) !== 'EEXIST') throw error;
    }
    if (!(await stat(file).then(isSocket, () => true)))
      throw cannotOpen(
        file,
        'something that is not a socket has that name. Delete it, or choose another path',
      );
    const holder = await askHolder(file);
    if (holder === 'alive') break;
    if (holder === 'foreign') throw cannotOpen(file, 'it belongs to another user. Run as that user');
    await setAsideIfDead(file);
  }
  throw new TandemError('ALREADY_RUNNING', `another process already answers at the control socket ${file}`, {
    details: { file },
  });
}

function isSocket(stats: { isSocket(): boolean }): boolean {
  return stats.isSocket();
}

/** Node.js has no way to ask the system for a group; those of other directories than this file go by number. */
async function groupId(file: string, group: string): Promise<number> {
  if (/^\d{1,10}$/.test(group)) return Number(group);
  const text = await readFile('/etc/group', 'utf8').catch(() => '');
  const entry = text.split('\n').find((line) => line.startsWith(`${group}:`));
  const gid = entry?.split(':')[2];
  if (gid === undefined || !/^\d+$/.test(gid))
    throw cannotOpen(file, `there is no group ${group} in /etc/group. Create it, or give its number`);
  return Number(gid);
}

function reasonOf(error: unknown): string {
  switch (systemErrorCode(error)) {
    case 'EACCES':
      return 'permission denied. Create its directory for this user, or choose another path';
    case 'EPERM':
      return 'this user may not give it that group. Join the group, or choose another one';
    default:
      return messageOf(error);
  }
}

function cannotOpen(file: string, reason: string, cause?: unknown): TandemError {
  return new TandemError('FILE_WRITE_FAILED', `cannot open the control socket ${file}: ${reason}`, {
    cause,
    details: { file },
  });
}
