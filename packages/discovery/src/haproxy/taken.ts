import { access, constants, stat } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';

import { sleep, systemErrorCode } from '@tandem/core';

import { type Endpoint, formatBind, overlaps, singleEndpoints } from './endpoints.ts';

/** How many ports are tried at a time. */
const TRIED_AT_ONCE = 32;

/**
 * Why HAProxy could not listen where it does not listen yet; nothing of addresses that it can have. Those with the same
 * port are tried one after the other: they would find it taken by the attempt for each other.
 * @param own where the running HAProxy listens by itself
 * @returns by `formatBind` of single endpoints
 */
export async function findTaken(
  endpoints: readonly Endpoint[],
  own: readonly Endpoint[],
  why: (endpoint: Endpoint) => Promise<string | undefined>,
): Promise<ReadonlyMap<string, string>> {
  const groups = new Map<string, Map<string, Endpoint>>();
  for (const endpoint of endpoints.flatMap(singleEndpoints)) {
    if (own.some((other) => overlaps(other, endpoint))) continue;
    const key = endpoint.kind === 'unix' ? endpoint.path : String(endpoint.first);
    groups.set(key, (groups.get(key) ?? new Map()).set(formatBind(endpoint), endpoint));
  }
  const taken = new Map<string, string>();
  const untried = [...groups.values()];
  async function tryGroups(): Promise<void> {
    for (let group = untried.shift(); group !== undefined; group = untried.shift()) {
      for (const [bind, endpoint] of group) {
        const reason = await why(endpoint);
        if (reason !== undefined) taken.set(bind, reason);
      }
    }
  }
  await Promise.all(Array.from({ length: TRIED_AT_ONCE }, tryGroups));
  return taken;
}

const ATTEMPTS = 4;
const PAUSE_MS = 100;

/**
 * Tries an address by listening on it for a moment, or by calling whoever may listen on the path of a socket. A
 * HAProxy that is just ending gets some time to leave it.
 * @param isManaged whether HAProxy runs with the rights of this process
 */
export async function whyTaken(
  endpoint: Endpoint,
  isManaged = true,
  signal?: AbortSignal,
): Promise<string | undefined> {
  const bind = formatBind(endpoint);
  for (let attempt = 1; ; attempt += 1) {
    const code =
      endpoint.kind === 'unix'
        ? await tryPath(endpoint.path)
        : await tryListen(endpoint.host, endpoint.first);
    if (code === undefined) return undefined;
    if (code === 'EACCES' || code === 'EPERM') {
      // Somebody else's HAProxy may do what this process may not.
      if (!isManaged) return undefined;
      return `this process may not listen on ${bind} (${code}): give it the right to, or choose another address`;
    }
    if (code === 'ENOENT')
      return `the directory of the socket ${bind} does not exist: create it, or choose another path`;
    if (code === 'EEXIST') return `${bind} is no socket: remove it, or choose another path`;
    if (code !== 'EADDRINUSE') return `this process cannot listen on ${bind} (${code})`;
    if (attempt === ATTEMPTS) return `the address ${bind} is taken by another process`;
    await sleep(PAUSE_MS, signal);
  }
}

function tryListen(host: string, port: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const server = net.createServer((socket) => socket.destroy());
    server.once('error', (error) => resolve(systemErrorCode(error) ?? 'unknown reason'));
    server.listen({ port, host, exclusive: true }, () => {
      server.close(() => resolve(undefined));
    });
  });
}

/** HAProxy replaces the file of a socket that nobody listens on any more. */
async function tryPath(file: string): Promise<string | undefined> {
  try {
    await access(path.dirname(file), constants.W_OK | constants.X_OK);
  } catch (error) {
    return systemErrorCode(error) ?? 'unknown reason';
  }
  try {
    if (!(await stat(file)).isSocket()) return 'EEXIST';
  } catch (error) {
    return systemErrorCode(error) === 'ENOENT' ? undefined : (systemErrorCode(error) ?? 'unknown reason');
  }
  return new Promise((resolve) => {
    const caller = net.connect(file);
    caller.setTimeout(CALL_MS, () => caller.destroy(new Error('somebody listens, and is slow')));
    caller.once('connect', () => {
      caller.destroy();
      resolve('EADDRINUSE');
    });
    caller.once('error', (error) => {
      const code = systemErrorCode(error);
      resolve(code === 'ECONNREFUSED' || code === 'ENOENT' ? undefined : (code ?? 'EADDRINUSE'));
    });
  });
}

const CALL_MS = 1_000;
