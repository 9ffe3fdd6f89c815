import { setMaxListeners } from 'node:events';
import { readFile, stat } from 'node:fs/promises';
import { isIP } from 'node:net';

import { withDeadline } from '../deadline.ts';

/** The names that the system's own file gives to addresses, such as `/etc/hosts`. */
export interface HostsFile {
  /** The addresses of a name in lower case; none when the file does not know it, or cannot be read. */
  find(name: string, signal: AbortSignal): Promise<readonly string[]>;
}

const LOOK_EVERY_MS = 1_000;
const READ_LIMIT_MS = 5_000;

/** Reads the file again when it has changed. */
export function createHostsFile(file: string): HostsFile {
  let known: { readonly version: string; readonly hosts: ReadonlyMap<string, readonly string[]> } | undefined;
  let lookedAt = -Infinity;
  let looking: Promise<void> = Promise.resolve();

  async function look(): Promise<void> {
    const { ino, size, mtimeMs, ctimeMs } = await stat(file);
    const version = [ino, size, mtimeMs, ctimeMs].join(' ');
    if (version === known?.version) return;
    known = { version, hosts: parseHosts(await readFile(file, 'utf8')) };
  }

  return {
    async find(name, signal) {
      // One signal may end many lookups.
      setMaxListeners(0, signal);
      if (performance.now() - lookedAt > LOOK_EVERY_MS) {
        lookedAt = performance.now();
        // What it last said holds when it cannot be read; a system without the file has nothing to say.
        looking = look().catch(() => {});
      }
      try {
        await withDeadline(signal, READ_LIMIT_MS, () => looking);
      } catch {
        signal.throwIfAborted();
      }
      return known?.hosts.get(name) ?? [];
    },
  };
}

function parseHosts(text: string): ReadonlyMap<string, readonly string[]> {
  const hosts = new Map<string, string[]>();
  for (const line of text.split('\n')) {
    const [address = '', ...names] = line.replace(/#.*/, '').trim().split(/\s+/);
    if (isIP(address) === 0) continue;
    for (const name of names) {
      const key = name.toLowerCase();
      hosts.set(key, [...(hosts.get(key) ?? []), address]);
    }
  }
  return hosts;
}
