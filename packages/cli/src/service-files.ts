import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';

import { type ConfigProblem, loadDirectory, locate, RegistryPath, SafeName } from '@tandem/core';
import {
  type DiscoverConfig,
  type DiscoveredService,
  DiscoverSection,
  findRoutingProblems,
  resolveSourceFiles,
} from '@tandem/discovery';
import { RegisterSection, type ServiceRegistration } from '@tandem/registrar';
import { servicePath } from '@tandem/registry';
import * as z from 'zod';

import {
  bindClaims,
  claim,
  type Claim,
  type Conflict,
  listenClaim,
  overlap,
  pathClaim,
  settleClaims,
} from './claims.ts';
import type { HostSettings } from './settings.ts';

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

/** One file as it was read, and what it must have for itself. */
interface ReadFile {
  readonly definition: ServiceDefinition;
  readonly claims: readonly Claim[];
  readonly registration: ServiceRegistration | undefined;
  readonly discovered: DiscoveredService | undefined;
}

export function createServiceFiles(settings: HostSettings): ServiceFiles {
  const reserved = { file: settings.file, claims: hostClaims(settings) };
  let lastGood: ReadonlyMap<string, ReadFile> = new Map();

  return {
    async load() {
      const { loaded, broken, isReadable, problems } = await loadDirectory(settings.servicesDir, ServiceFile);
      const unusable = [...loaded].flatMap(([file, definition]) => {
        const { service, discover } = definition;
        if (discover === undefined) return [];
        const [problem] = findRoutingProblems(settings.haproxy, { service, config: discover });
        return problem === undefined ? [] : [{ file, ...problem }];
      });
      const current = new Map(isReadable ? [] : lastGood);
      for (const [file, definition] of loaded) {
        const before = lastGood.get(file);
        // The same object as long as it says the same: nobody has to look into what has not changed.
        const isSame = before !== undefined && isDeepStrictEqual(before.definition, definition);
        current.set(file, isSame ? before : readFileOf(settings, definition));
      }
      for (const file of [...broken, ...unusable.map(({ file }) => file)]) {
        const before = lastGood.get(file);
        if (before === undefined) current.delete(file);
        else current.set(file, before);
      }
      const { chosen, conflicts } = settleClaims(current, lastGood, reserved);
      lastGood = chosen;
      const found = await Promise.all([...unusable, ...conflicts.map(conflictOf)].map(describe));
      const files = [...chosen].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, file]) => file);
      return {
        registrations: files.flatMap(({ registration = [] }) => registration),
        discovered: files.flatMap(({ discovered = [] }) => discovered),
        files: loaded.size + broken.length,
        problems: [...problems, ...found],
      };
    },
  };
}

function readFileOf(settings: HostSettings, definition: ServiceDefinition): ReadFile {
  const { service, register, discover } = definition;
  const at = pathOf(settings, definition);
  return {
    definition,
    claims: claimsOf(settings, definition),
    registration: register === undefined ? undefined : { service, path: at, config: register },
    discovered:
      discover === undefined
        ? undefined
        : { service, path: at, config: withAbsoluteFiles(settings, discover) },
  };
}

/** Files that a service names lie beside the host file, like everything that is relative. */
function withAbsoluteFiles({ file }: HostSettings, discover: DiscoverConfig): DiscoverConfig {
  const absolute = (part: string) => path.resolve(path.dirname(file), part);
  return { ...discover, source: resolveSourceFiles(discover.source, absolute) };
}

function pathOf({ registry }: HostSettings, { service, path: own }: ServiceDefinition): string {
  return own ?? servicePath(registry, service);
}

/** A mistake that only shows beside other files. */
interface Misfit {
  readonly file: string;
  readonly path: readonly string[];
  readonly reason: string;
  readonly remedy: string;
}

/** What one file alone may have. */
function claimsOf(settings: HostSettings, definition: ServiceDefinition): Claim[] {
  const { service, register, discover } = definition;
  const claims: Claim[] = [claim(['service'], `the service "${service}"`)];
  if (register !== undefined) {
    const below = pathOf(settings, definition);
    claims.push(claim(['register', 'port'], `the instance on port ${register.port} below ${below}`));
    const { registry } = settings;
    const isEncoded = registry.kind === 'zookeeper' && registry.zookeeper.pathEncoding;
    const { nodeType = 'ephemeral_sequential', pathEncoding = isEncoded } = register.announce;
    if (!nodeType.endsWith('_sequential') && !pathEncoding)
      claims.push(claim(['register', 'node_type'], `the only node without a number below ${below}`));
  }
  return discover === undefined ? claims : [...claims, ...routingClaims(discover)];
}

function routingClaims({ listen, bindOptions, sharedFrontend, hosts }: DiscoverConfig): Claim[] {
  const own = listen === undefined ? [] : [listenClaim(['discover', 'listen'], listen, bindOptions)];
  const shared = [...new Set(hosts)].map((host) =>
    claim(
      ['discover', 'hosts', String(hosts.indexOf(host))],
      `the host ${host} on the shared frontend "${sharedFrontend}"`,
    ),
  );
  return [...own, ...shared];
}

/** What the host file takes before any service. A port range is there to be used by them. */
function hostClaims({ haproxy, discovery }: HostSettings): Claim[] {
  return [
    pathClaim(['discovery', 'control'], discovery.control),
    pathClaim(['haproxy', 'runtime_socket'], haproxy.runtimeSocket),
    pathClaim(['haproxy', 'master_socket'], haproxy.masterSocket),
    pathClaim(['haproxy', 'config_file'], haproxy.configFile),
    ...discovery.templates.map(({ target }) => pathClaim(['discovery', 'templates'], target)),
    ...Object.entries(haproxy.sharedFrontends).flatMap(([name, { listen, bindOptions }]) =>
      listen.map((one) => listenClaim(['haproxy', 'shared_frontends', name, 'listen'], one, bindOptions)),
    ),
    ...Object.entries(haproxy.extraSections).flatMap(([title, lines]) =>
      bindClaims(['haproxy', 'extra_sections', title], lines),
    ),
  ];
}

/** What the host file claims twice. */
export async function hostConflicts(settings: HostSettings): Promise<ConfigProblem[]> {
  const { file } = settings;
  const claims = hostClaims(settings);
  const conflicts = claims.flatMap((one, index): Conflict[] => {
    const other = claims.slice(0, index).find((earlier) => overlap(earlier, one));
    return other === undefined ? [] : [{ file, claim: one, other: file, otherClaim: other }];
  });
  return Promise.all(conflicts.map(conflictOf).map(describe));
}

function conflictOf({ file, claim: { at, what }, other, otherClaim }: Conflict): Misfit {
  const isSame = what === otherClaim.what;
  const where = file === other ? `at ${otherClaim.at.join('.')}` : `in ${other}`;
  return {
    file,
    path: at,
    reason: isSame ? `${what} is defined twice` : `${what} overlaps ${otherClaim.what}`,
    remedy: `Change it here or ${where}`,
  };
}

async function describe({ file, path: at, reason, remedy }: Misfit): Promise<ConfigProblem> {
  const text = await readFile(file, 'utf8').catch(() => '');
  return { file, ...locate(text, at), path: at.join('.'), reason, remedy };
}
