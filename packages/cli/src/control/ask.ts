import path from 'node:path';

import { askControl, isTandemError, TandemError } from '@tandem/core';
import { invalidConfig } from '../daemon.ts';
import { printable } from '../printable.ts';
import { loadHostSettings } from '../settings.ts';

export interface DaemonArguments {
  readonly config: string;
  readonly socket: string | undefined;
}

/** Where the discovery daemon of a host file answers. */
export async function controlSocket({ config, socket }: DaemonArguments): Promise<string> {
  if (socket !== undefined) return path.resolve(socket);
  const loaded = await loadHostSettings(path.resolve(config));
  if (!loaded.ok) throw invalidConfig(loaded.problems);
  return loaded.value.discovery.control;
}

/** Asks the discovery daemon. What it refuses with may quote the registry, so it is made fit for a terminal. */
export async function askDiscovery(
  file: string,
  question: {
    readonly method: 'GET' | 'PUT' | 'DELETE';
    readonly path: readonly string[];
    readonly body?: unknown;
    readonly signal?: AbortSignal;
  },
): Promise<unknown> {
  try {
    return await askControl({ file, daemon: 'discovery daemon', ...question });
  } catch (error) {
    if (!isTandemError(error)) throw error;
    throw new TandemError(error.code, error.message.split('\n').map(printable).join('\n'), { cause: error });
  }
}
