import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';

import { type ConfigProblem, loadDirectory, locate, parseYaml, RegistryPath, SafeName } from '@tandem/core';
import {
  type DiscoverConfig,
  type DiscoveredService,
  DiscoverSection,
  findRoutingProblems,
  resolveSourceFiles,
} from '@tandem/discovery';
import {
  type RegisterConfig,
  RegisterSection,
  resolveCheckFiles,
  type ServiceRegistration,
} from '@tandem/registrar';
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
import type { ServiceMemory } from './service-memory.ts';
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
  /**
   * False while a file is set aside of which nobody knows what it has said before: what an earlier life has done may
   * have been for just that file.
   */
  readonly isComplete: boolean;
  /**
   * False while their directory could never be read and nobody remembers what was in it: that there are no services
   * then means nothing.
   */
  readonly isKnown: boolean;
}

/** Reads the service files again and again, and keeps the last good version of each. */
export interface ServiceFiles {
  load(): Promise<Services>;
  /** Keeps what is in force for the next life, in which a file may be broken. */
  remember(): Promise<void>;
}

/** One file as it was read, and what it must have for itself. */
interface ReadFile {
  readonly text: string;
  readonly definition: ServiceDefinition;
  readonly claims: readonly Claim[];
  readonly registration: ServiceRegistration | undefined;
  readonly discovered: DiscoveredService | undefined;
}

/** @param memory where the last good versions of an earlier life are; without one, every life begins anew */
export function createServiceFiles(settings: HostSettings, memory?: ServiceMemory): ServiceFiles {
  const reserved = { file: settings.file, claims: hostClaims(settings) };
  let lastGood: ReadonlyMap<string, ReadFile> | undefined;
  let isKnown = false;
  /** The files that were in force in an earlier life, if that is known: no other has done anything. */
  let earlier: ReadonlySet<string> | undefined;

  /** What was in force in an earlier life, as far as it still makes sense. */
  async function recall(): Promise<ReadonlyMap<string, ReadFile>> {
    const remembered = await memory?.recall();
    isKnown = remembered !== undefined;
    const fileOf = (name: string) => path.join(settings.servicesDir, name);
    earlier = remembered && new Set([...remembered.keys()].map(fileOf));
    const files = [...(remembered ?? [])].flatMap(([name, text]): [string, ReadFile][] => {
      const file = fileOf(name);
      const parsed = parseYaml(text, file, ServiceFile);
      const isUsable = parsed.ok && misfitsOf(settings, file, parsed.value).length === 0;
      return isUsable ? [[file, readFileOf(settings, parsed.value, text)]] : [];
    });
    return new Map(files);
  }

  return {
    async load() {
      const before = (lastGood ??= await recall());
      const { loaded, texts, broken, isReadable, problems } = await loadDirectory(
        settings.servicesDir,
        ServiceFile,
      );
      isKnown ||= isReadable;
      const unusable = [...loaded].flatMap(([file, definition]) => misfitsOf(settings, file, definition));
      const current = new Map(isReadable ? [] : before);
      for (const [file, definition] of loaded) {
        const known = before.get(file);
        // The same object as long as it says the same: nobody has to look into what has not changed.
        const isSame = known !== undefined && isDeepStrictEqual(known.definition, definition);
        current.set(file, isSame ? known : readFileOf(settings, definition, texts.get(file) ?? ''));
      }
      for (const file of [...broken, ...unusable.map(({ file }) => file)]) {
        const known = before.get(file);
        if (known === undefined) current.delete(file);
        else current.set(file, known);
      }
      const { chosen, conflicts } = settleClaims(current, before, reserved);
      lastGood = chosen;
      const found = await Promise.all([...unusable, ...conflicts.map(conflictOf)].map(describe));
      const aside = [...broken, ...unusable.map(({ file }) => file), ...conflicts.map(({ file }) => file)];
      const files = [...chosen].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, file]) => file);
      return {
        registrations: files.flatMap(({ registration = [] }) => registration),
        discovered: files.flatMap(({ discovered = [] }) => discovered),
        files: loaded.size + broken.length,
        problems: [...problems, ...found],
        isComplete: isReadable && aside.every((file) => chosen.has(file) || earlier?.has(file) === false),
        isKnown,
      };
    },
    async remember() {
      if (!isKnown || lastGood === undefined) return;
      await memory?.keep(new Map([...lastGood].map(([file, { text }]) => [path.basename(file), text])));
    },
  };
}

/** What does not fit between a file and the host file; only the first of it. */
function misfitsOf(settings: HostSettings, file: string, { service, discover }: ServiceDefinition): Misfit[] {
  if (discover === undefined) return [];
  const [problem] = findRoutingProblems(settings.haproxy, { service, config: discover });
  return problem === undefined ? [] : [{ file, ...problem }];
}

function readFileOf(settings: HostSettings, definition: ServiceDefinition, text: string): ReadFile {
  const { service, register, discover } = definition;
  const at = pathOf(settings, definition);
  return {
    text,
    definition,
    claims: claimsOf(settings, definition),
    registration:
      register === undefined
        ? undefined
        : { service, path: at, config: withAbsoluteNames(settings, register) },
    discovered:
      discover === undefined
        ? undefined
        : { service, path: at, config: withAbsoluteFiles(settings, discover) },
  };
}

/** Files that a service names lie beside the host file, like everything that is relative. */
function withAbsoluteNames({ file }: HostSettings, register: RegisterConfig): RegisterConfig {
  const absolute = (part: string) => path.resolve(path.dirname(file), part);
  const { drainFile, checks } = register;
  return {
    ...register,
    ...(drainFile === undefined ? {} : { drainFile: absolute(drainFile) }),
    checks: checks.map((check) => resolveCheckFiles(check, absolute)),
  };
}

function withAbsoluteFiles({ file }: HostSettings, discover: DiscoverConfig): DiscoverConfig {
  const absolute = (part: string) => path.resolve(path.dirname(file), part);
  return { ...discover, source: resolveSourceFiles(discover.source, absolute) };
}

function pathOf({ registry }: HostSettings, { service, path: own }: ServiceDefinition): string {
  return own ?? servicePath(registry, service);
}

/** A mistake that only shows beside other files, or beside the host file. */
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
    const { registry, host } = settings;
    const { port, address = host.address, instanceId: name = host.name } = register;
    // What is the host's own goes without saying.
    const called = name === host.name ? '' : ` called ${name}`;
    const at = address === host.address ? '' : ` of ${address}`;
    claims.push(claim(['register', 'port'], `the instance${called} on port ${port}${at} below ${below}`));
    const isEncoded = registry.kind === 'zookeeper' && registry.zookeeper.pathEncoding;
    const { nodeType = 'ephemeral_sequential', pathEncoding = isEncoded } = register.announce;
    if (!nodeType.endsWith('_sequential') && !pathEncoding)
      claims.push(claim(['register', 'node_type'], `the only node${called} without a number below ${below}`));
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
function hostClaims({ haproxy, registrar, discovery }: HostSettings): Claim[] {
  return [
    pathClaim(['registrar', 'control'], registrar.control),
    ...(registrar.heartbeatFile === undefined
      ? []
      : [pathClaim(['registrar', 'heartbeat_file'], registrar.heartbeatFile)]),
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
