import { readFile } from 'node:fs/promises';
import path from 'node:path';

import {
  type ConfigProblem,
  type HostConfig,
  HostName,
  HostSection,
  type Loaded,
  loadFile,
  locate,
  LogSection,
  type ResolvedHost,
  resolveHost,
} from '@tandem/core';
import {
  findPathProblems,
  DiscoverySection,
  type DiscoverySettings,
  type HaproxyConfig,
  HaproxySection,
  resolveOutputFiles,
} from '@tandem/discovery';
import { RegistrarSection, type RegistrarSettings, resolveFinderFiles } from '@tandem/registrar';
import {
  findRegistryProblems,
  type RegistryConfig,
  RegistrySection,
  resolveRegistryFiles,
} from '@tandem/registry';
import * as z from 'zod';

/** The host file, as a person writes it. */
const HostFile = z.strictObject({
  host: HostSection.prefault({}),
  registry: RegistrySection,
  services_dir: z
    .string()
    .min(1)
    .default('services.d')
    .describe('one file per service; relative to this file'),
  state_dir: z.string().min(1).default('/var/lib/tandem').describe('what has to survive a restart'),
  registrar: RegistrarSection.prefault({}),
  discovery: DiscoverySection.prefault({}),
  haproxy: HaproxySection.prefault({}),
  log: LogSection.prefault({}),
});

/** The host file with everything filled in and every path absolute. */
export interface HostSettings {
  readonly file: string;
  readonly host: ResolvedHost;
  readonly registry: RegistryConfig;
  readonly servicesDir: string;
  readonly stateDir: string;
  readonly registrar: RegistrarSettings & { readonly control: string };
  readonly discovery: DiscoverySettings & { readonly control: string };
  readonly haproxy: HaproxyConfig;
  readonly log: z.output<typeof LogSection>;
}

export async function loadHostSettings(file: string): Promise<Loaded<HostSettings>> {
  const loaded = await loadFile(file, HostFile);
  if (!loaded.ok) return loaded;
  const { registry, services_dir, state_dir, registrar, discovery, haproxy, log } = loaded.value;
  const host = resolveHost(loaded.value.host);
  const control = discovery.control ?? path.join(path.dirname(haproxy.runtimeSocket), 'discovery.sock');
  const registrarControl = registrar.control ?? path.join(path.dirname(control), 'registrar.sock');
  const absolute = (part: string) => path.resolve(path.dirname(file), part);
  const located: HaproxyConfig = {
    ...haproxy,
    ...(haproxy.reload?.kind === 'master-socket'
      ? { reload: { ...haproxy.reload, path: absolute(haproxy.reload.path) } }
      : {}),
    configFile: absolute(haproxy.configFile),
    runtimeSocket: absolute(haproxy.runtimeSocket),
    masterSocket: absolute(haproxy.masterSocket),
  };
  const misplaced = findPathProblems(located);
  if (misplaced.length > 0) {
    const text = await readFile(file, 'utf8').catch(() => '');
    const problems = misplaced.map(({ path: at, reason, remedy }) => ({
      file,
      ...locate(text, at),
      path: at.join('.'),
      reason,
      remedy,
    }));
    return { ok: false, problems };
  }
  return {
    ok: true,
    value: {
      file,
      host,
      registry: resolveRegistryFiles(registry, absolute),
      servicesDir: absolute(services_dir),
      stateDir: absolute(state_dir),
      registrar: {
        ...registrar,
        ...resolveFinderFiles(registrar, absolute),
        control: absolute(registrarControl),
        drainFile: registrar.drainFile === undefined ? undefined : absolute(registrar.drainFile),
        heartbeatFile: registrar.heartbeatFile === undefined ? undefined : absolute(registrar.heartbeatFile),
      },
      discovery: { ...resolveOutputFiles(discovery, absolute), control: absolute(control) },
      haproxy: located,
      log,
    },
  };
}

/** What is wrong with the files that the host file names for its registry, such as certificates. */
export async function registryProblems({ file, registry }: HostSettings): Promise<ConfigProblem[]> {
  const found = await findRegistryProblems(registry);
  const text = await readFile(file, 'utf8').catch(() => '');
  return found.map(({ key, reason, remedy }) => ({
    file,
    ...locate(text, key.split('.')),
    path: key,
    reason,
    remedy,
  }));
}

/**
 * The host as its instances are announced: where the host file leaves it to the machine, that has to offer something that
 * can be. A loopback address would send every other host to itself.
 */
export function announcedHost({ file, host }: HostSettings): Loaded<HostConfig> {
  const { name, address } = host;
  const problems: ConfigProblem[] = [];
  if (!HostName.safeParse(name).success) {
    const reason = `this machine is called ${JSON.stringify(name)}, which cannot stand in a registry`;
    problems.push({ file, line: 1, column: 1, path: 'host.name', reason, remedy: 'Set host.name' });
  }
  if (address !== undefined && problems.length === 0) return { ok: true, value: { ...host, address } };
  if (address === undefined) {
    const reason = 'this machine has no address but loopback ones';
    const remedy = 'Set host.address to what other hosts reach it by';
    problems.push({ file, line: 1, column: 1, path: 'host.address', reason, remedy });
  }
  return { ok: false, problems };
}
