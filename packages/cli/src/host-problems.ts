import { access, constants, readFile } from 'node:fs/promises';

import {
  type ConfigProblem,
  locate,
  locator,
  MAX_CONTROL_PATH,
  messageOf,
  systemErrorCode,
} from '@tandem/core';

import { hostConflicts } from './service-files.ts';
import { type HostSettings, registryProblems } from './settings.ts';

/** What is wrong with a host file whose every key is well-formed: with what it names, and with its keys together. */
export async function hostProblems(settings: HostSettings): Promise<ConfigProblem[]> {
  const found = await Promise.all([
    registryProblems(settings),
    hostConflicts(settings),
    socketProblems(settings),
  ]);
  return found.flat();
}

/** A relative path is longer than it looks. */
async function socketProblems({
  file,
  registrar,
  discovery,
  haproxy,
}: HostSettings): Promise<ConfigProblem[]> {
  const sockets = [
    { at: ['registrar', 'control'], name: registrar.control },
    { at: ['discovery', 'control'], name: discovery.control },
    { at: ['haproxy', 'runtime_socket'], name: haproxy.runtimeSocket },
    { at: ['haproxy', 'master_socket'], name: haproxy.masterSocket },
  ];
  const tooLong = sockets.filter(({ name }) => Buffer.byteLength(name) > MAX_CONTROL_PATH);
  if (tooLong.length === 0) return [];
  const text = await readFile(file, 'utf8').catch(() => '');
  return tooLong.map(({ at, name }) => ({
    file,
    ...locate(text, at),
    path: at.join('.'),
    reason: `${name} has more than ${MAX_CONTROL_PATH} characters, which is too long for a socket`,
    remedy: 'Choose a shorter path',
  }));
}

/**
 * Templates that are not there. No reason not to start: they cost their own output only, and may come yet.
 */
export async function templateProblems({ file, discovery }: HostSettings): Promise<ConfigProblem[]> {
  const found = await Promise.all(
    discovery.templates.map(async ({ template }, index) => {
      const reason = await access(template, constants.R_OK).then(
        () => undefined,
        (error: unknown) => (systemErrorCode(error) === 'ENOENT' ? 'does not exist' : messageOf(error)),
      );
      return reason === undefined ? [] : [{ index, reason: `${template} ${reason}` }];
    }),
  );
  const missing = found.flat();
  if (missing.length === 0) return [];
  const place = locator(await readFile(file, 'utf8').catch(() => ''));
  return missing.map(({ index, reason }) => ({
    file,
    ...place(['discovery', 'templates', index, 'template']),
    path: `discovery.templates[${index}].template`,
    reason,
    remedy: 'Create it, or name another one',
  }));
}
