import { readFile } from 'node:fs/promises';
import path from 'node:path';

import {
  type ConfigProblem,
  type HostConfig,
  HostName,
  HostSection,
  type Loaded,
  loadDirectory,
  loadFile,
  locate,
  LogSection,
  RegistryPath,
  type ResolvedHost,
  resolveHost,
  SafeName,
} from '@tandem/core';
import {
  DiscoverSection,
  type DiscoveredService,
  type HaproxyConfig,
  HaproxySection,
  resolveSourceFiles,
} from '@tandem/discovery';
import { RegisterSection, type ServiceRegistration } from '@tandem/registrar';
import {
  findRegistryProblems,
  type RegistryConfig,
  RegistrySection,
  resolveRegistryFiles,
  servicePath,
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
  haproxy: HaproxySection.prefault({}),
  log: LogSection.prefault({}),
});

/** A service file: both halves in one, either may be left out. */
const ServiceFile = z
  .strictObject({
    service: SafeName,
    path: RegistryPath.optional().describe(
      'where it stands in the registry; default: registry.path_template',
    ),
    register: RegisterSection.optional(),
    discover: DiscoverSection.optional(),
  })
  .refine(
    (file) => file.register !== undefined || file.discover !== undefined,
    'needs a register or a discover section',
  );

type ServiceDefinition = z.output<typeof ServiceFile>;

/** The host file with everything filled in and every path absolute. */
export interface HostSettings {
  readonly file: string;
  readonly host: ResolvedHost;
  readonly registry: RegistryConfig;
  readonly servicesDir: string;
  readonly stateDir: string;
  readonly haproxy: HaproxyConfig;
  readonly log: z.output<typeof LogSection>;
}

export async function loadHostSettings(file: string): Promise<Loaded<HostSettings>> {
  const loaded = await loadFile(file, HostFile);
  if (!loaded.ok) return loaded;
  const { registry, services_dir, state_dir, haproxy, log } = loaded.value;
  const host = resolveHost(loaded.value.host);
  const absolute = (part: string) => path.resolve(path.dirname(file), part);
  return {
    ok: true,
    value: {
      file,
      host,
      registry: resolveRegistryFiles(registry, absolute),
      servicesDir: absolute(services_dir),
      stateDir: absolute(state_dir),
      haproxy: {
        ...haproxy,
        configFile: absolute(haproxy.configFile),
        runtimeSocket: absolute(haproxy.runtimeSocket),
        masterSocket: absolute(haproxy.masterSocket),
      },
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

/** What the service files of a host ask for, and what is wrong with those that were set aside. */
export interface Services {
  readonly registrations: readonly ServiceRegistration[];
  readonly discovered: readonly DiscoveredService[];
  readonly files: number;
  readonly problems: readonly ConfigProblem[];
}

/** Reads the service files again and again, and keeps the last good version of each. */
export interface ServiceFiles {
  load(): Promise<Services>;
}

export function createServiceFiles(settings: HostSettings): ServiceFiles {
  let lastGood: ReadonlyMap<string, ServiceDefinition> = new Map();

  return {
    async load() {
      const { loaded, broken, isReadable, problems } = await loadDirectory(settings.servicesDir, ServiceFile);
      const current = new Map(isReadable ? loaded : lastGood);
      for (const file of broken) {
        const before = lastGood.get(file);
        if (before !== undefined) current.set(file, before);
      }
      const conflicts = findConflicts(settings, current, lastGood);
      for (const { file } of conflicts) current.delete(file);
      lastGood = current;
      const found = await Promise.all(conflicts.map(describeConflict));
      return {
        ...split(settings, current.values()),
        files: loaded.size + broken.length,
        problems: [...problems, ...found],
      };
    },
  };
}

function split(
  settings: HostSettings,
  definitions: Iterable<ServiceDefinition>,
): Pick<Services, 'registrations' | 'discovered'> {
  const registrations: ServiceRegistration[] = [];
  const discovered: DiscoveredService[] = [];
  for (const definition of definitions) {
    const { service, register, discover } = definition;
    const at = pathOf(settings, definition);
    if (register !== undefined) registrations.push({ service, path: at, config: register });
    if (discover !== undefined) {
      const absolute = (file: string) => path.resolve(path.dirname(settings.file), file);
      const source = resolveSourceFiles(discover.source, absolute);
      discovered.push({ service, path: at, config: { ...discover, source } });
    }
  }
  return { registrations, discovered };
}

function pathOf({ registry }: HostSettings, { service, path: own }: ServiceDefinition): string {
  return own ?? servicePath(registry, service);
}

interface Conflict {
  readonly file: string;
  readonly path: readonly string[];
  readonly other: string;
  readonly reason: string;
}

/**
 * What only shows when files are put side by side. A file that is in force already is in the right, so that a newcomer
 * never displaces what runs; among the others it is the first by name.
 */
function findConflicts(
  settings: HostSettings,
  definitions: ReadonlyMap<string, ServiceDefinition>,
  inForce: ReadonlyMap<string, ServiceDefinition>,
): Conflict[] {
  const owners = new Map<string, string>();
  const conflicts: Conflict[] = [];
  const rank = (file: string) => `${inForce.has(file) ? 0 : 1}${file}`;
  for (const [file, definition] of [...definitions].toSorted(([a], [b]) => (rank(a) < rank(b) ? -1 : 1))) {
    const claims = claimsOf(settings, definition);
    const taken = claims.find(({ what }) => owners.has(what));
    if (taken !== undefined) {
      conflicts.push({
        file,
        path: taken.path,
        other: owners.get(taken.what) ?? '',
        reason: `${taken.what} is defined twice`,
      });
      continue;
    }
    for (const { what } of claims) owners.set(what, file);
  }
  return conflicts;
}

interface Claim {
  /** Where in the file. */
  readonly path: readonly string[];
  readonly what: string;
}

/** What one file alone may have. */
function claimsOf(settings: HostSettings, definition: ServiceDefinition): Claim[] {
  const { service, register, discover } = definition;
  const claims: Claim[] = [{ path: ['service'], what: `the service "${service}"` }];
  if (register !== undefined) {
    const what = `the instance on port ${register.port} below ${pathOf(settings, definition)}`;
    claims.push({ path: ['register', 'port'], what });
    const { registry } = settings;
    const isEncoded = registry.kind === 'zookeeper' && registry.zookeeper.pathEncoding;
    const { nodeType = 'ephemeral_sequential', pathEncoding = isEncoded } = register.announce;
    if (!nodeType.endsWith('_sequential') && !pathEncoding) {
      const what = `the only node without a number below ${pathOf(settings, definition)}`;
      claims.push({ path: ['register', 'node_type'], what });
    }
  }
  if (discover?.listen !== undefined)
    claims.push({ path: ['discover', 'listen'], what: `the address ${discover.listen}` });
  return claims;
}

async function describeConflict({ file, path: at, other, reason }: Conflict): Promise<ConfigProblem> {
  const text = await readFile(file, 'utf8').catch(() => '');
  return { file, ...locate(text, at), path: at.join('.'), reason, remedy: `Change it here or in ${other}` };
}
