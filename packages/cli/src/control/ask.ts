import path from 'node:path';

import { askControl, isTandemError, TandemError } from '@tandem/core';
import { invalidConfig } from '../daemon.ts';
import { printable } from '../printable.ts';
import { loadHostSettings } from '../settings.ts';

export interface DaemonArguments {
  readonly config: string;
  readonly socket: string | undefined;
}

/** The daemons of a host, by their sections in the host file, and what they are called in messages. */
export const DAEMONS = { discovery: 'discovery daemon', registrar: 'registrar' } as const;

export type DaemonName = keyof typeof DAEMONS;

interface Question {
  readonly method: 'GET' | 'PUT' | 'POST' | 'DELETE';
  readonly path: readonly string[];
  readonly body?: unknown;
  readonly signal?: AbortSignal;
  readonly timeoutMs?: number;
}

/** Asks one daemon. What it refuses with may quote the registry or a service, so it is made fit for a terminal. */
export type Ask = (question: Question) => Promise<unknown>;

/** Finds out where a daemon of the host answers. */
export async function reachDaemon(name: DaemonName, { config, socket }: DaemonArguments): Promise<Ask> {
  const file = socket === undefined ? await controlSocket(name, config) : path.resolve(socket);
  return async (question) => {
    try {
      return await askControl({ file, daemon: DAEMONS[name], ...question });
    } catch (error) {
      if (!isTandemError(error)) throw error;
      const message = error.message.split('\n').map(printable).join('\n');
      throw new TandemError(error.code, message, { cause: error });
    }
  };
}

async function controlSocket(name: DaemonName, config: string): Promise<string> {
  const loaded = await loadHostSettings(path.resolve(config));
  if (!loaded.ok) throw invalidConfig(loaded.problems);
  return loaded.value[name].control;
}
