// Somebody else who runs HAProxy, as systemd does: starts it on a file, and brings it back when told to.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';

import type { HaproxyConfig } from '@tandem/discovery';
import { readIdentity } from '@tandem/discovery/testing';

import { eventually } from './haproxy.ts';

export interface HaproxyOwner {
  readonly pid: number;
  /** Ends it at once, as a crash does. */
  kill(): Promise<void>;
}

/** Where `startOwner` notes the pid of the master, for reload commands such as `kill -USR2 $(cat …)`. */
export function pidFileOf(directory: string): string {
  return path.join(directory, 'owner.pid');
}

/** Settings of the external mode whose reload is a shell's work, such as `exit 1`. */
export function reloadedBy(script: string, settings: Record<string, unknown> = {}): Record<string, unknown> {
  return { mode: 'external', reload: { command: ['/bin/sh', '-c', script] }, ...settings };
}

/** Resolves once the worker answers on `runtimeSocket`. */
export async function startOwner(
  directory: string,
  config: HaproxyConfig,
  options: { file?: string; runtimeSocket?: string } = {},
): Promise<HaproxyOwner> {
  const { file = config.configFile, runtimeSocket = config.runtimeSocket } = options;
  const output = openSync(path.join(directory, 'owner.log'), 'a');
  const child = spawn(config.binary, ['-W', '-db', '-S', `${config.masterSocket},mode,600`, '-f', file], {
    stdio: ['ignore', output, output],
  });
  closeSync(output);
  const exited = once(child, 'exit');
  await once(child, 'spawn');
  const pid = child.pid ?? 0;
  await writeFile(pidFileOf(directory), String(pid));
  await eventually(() => readIdentity(runtimeSocket));
  return {
    pid,
    async kill() {
      child.kill('SIGKILL');
      await exited;
    },
  };
}
