import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import net from 'node:net';

import type { HostConfig, Instance, Log } from '@tandem/core';
import type { AnnounceOptions, Announcer, Place, Registry } from '@tandem/registry';
import { RegisterSection, type ServiceRegistration } from '@tandem/registrar';

export const HOST: HostConfig = { name: 'i-1', address: '10.0.0.5', labels: {} };

/** Waits for something that must come true soon. */
export async function eventually(condition: () => boolean, what: string): Promise<void> {
  const deadline = Date.now() + 5000;
  while (!condition()) {
    assert.ok(Date.now() < deadline, `never happened: ${what}`);
    await pause(2);
  }
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}

/** A registration as a service file would have it. */
export function registration(
  service: string,
  register: Record<string, unknown>,
  path = `/services/${service}`,
): ServiceRegistration {
  return { service, path, config: RegisterSection.parse(register) };
}

export interface TestServer {
  readonly port: number;
  /** Connections that are open now, and that there ever were. */
  readonly open: () => number;
  readonly accepted: () => number;
  readonly close: () => Promise<void>;
}

/** A tcp server on a free port of the loopback, which counts what is connected to it. */
export async function startServer(server: net.Server, host = '127.0.0.1'): Promise<TestServer> {
  const sockets = new Set<net.Socket>();
  let accepted = 0;
  server.on('connection', (socket: net.Socket) => {
    accepted += 1;
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, host, resolve);
  });
  const { port } = server.address() as net.AddressInfo;
  return {
    port,
    open: () => sockets.size,
    accepted: () => accepted,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
}

/** A port of the loopback where nobody listens. */
export async function freePort(): Promise<number> {
  const server = await startServer(net.createServer());
  await server.close();
  return server.port;
}

/** Whether a process runs. One that is dead but was not collected by its parent does not. */
export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

export interface LogLine {
  readonly level: 'debug' | 'info' | 'warn' | 'error';
  readonly message: string;
  readonly [fact: string]: unknown;
}

export function recordLog(): Log & { readonly lines: LogLine[] } {
  const lines: LogLine[] = [];
  const writer = (level: LogLine['level']) => (facts: Readonly<Record<string, unknown>>, message: string) => {
    lines.push({ ...facts, level, message });
  };
  const log = {
    lines,
    debug: writer('debug'),
    info: writer('info'),
    warn: writer('warn'),
    error: writer('error'),
    child: () => log,
  };
  return log;
}

type Change = 'claim' | 'set' | 'withdraw' | 'release' | 'withdraw unclaimed';

export interface FakeRegistry extends Registry {
  /** What was asked, in order: `set /services/web 8080`. */
  readonly history: string[];
  /** What stands in the registry: agreed on, not merely asked for. */
  readonly standing: Map<string, Instance>;
  /** How each place was claimed last. */
  readonly options: Map<string, AnnounceOptions | undefined>;
  /** Stops answering, until `answer` lets everything through. */
  silence(): void;
  answer(): void;
}

/** A registry in memory that keeps the promises of the interface for announcing. */
export function createFakeRegistry(standing = new Map<string, Instance>()): FakeRegistry {
  const history: string[] = [];
  const claimed = new Set<string>();
  const options = new Map<string, AnnounceOptions | undefined>();
  const waiting: (() => void)[] = [];
  let silent = false;

  function whenAnswering(task: () => void): void {
    if (silent) waiting.push(task);
    else queueMicrotask(task);
  }
  function note(change: Change, key: string): void {
    history.push(`${change} ${key}`.trim());
  }

  return {
    history,
    standing,
    options,
    announce(path: string, place: Place, given?: AnnounceOptions): Announcer {
      const key = `${path} ${place.port}`;
      if (claimed.has(key)) throw new Error(`claimed already: ${key}`);
      claimed.add(key);
      options.set(key, given);
      note('claim', key);
      let version = 0;
      let confirmed = 0;
      return {
        set(instance) {
          note(instance === undefined ? 'withdraw' : 'set', key);
          version += 1;
          const mine = version;
          whenAnswering(() => {
            if (mine !== version) return;
            confirmed = version;
            if (instance === undefined) standing.delete(key);
            else standing.set(key, instance);
          });
        },
        get isAgreed() {
          return confirmed === version;
        },
        agreed(signal) {
          return new Promise((resolve, reject) => {
            const onAbort = () => reject(signal.reason as Error);
            if (signal.aborted) onAbort();
            signal.addEventListener('abort', onAbort, { once: true });
            whenAnswering(() => {
              signal.removeEventListener('abort', onAbort);
              resolve();
            });
          });
        },
        release() {
          note('release', key);
          claimed.delete(key);
        },
      };
    },
    withdrawUnclaimed() {
      note('withdraw unclaimed', '');
      for (const key of standing.keys()) if (!claimed.has(key)) standing.delete(key);
    },
    async *watch() {
      // Registrars only announce.
    },
    status: { state: 'connected' },
    async close() {},
    silence() {
      silent = true;
    },
    answer() {
      silent = false;
      for (const task of waiting.splice(0)) task();
    },
  };
}
