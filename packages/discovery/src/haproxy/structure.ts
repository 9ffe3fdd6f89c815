import { createHash } from 'node:crypto';
import path from 'node:path';

import type { DiscoveredService } from '../config/discover.ts';
import type { HaproxyConfig } from '../config/haproxy.ts';
import { placeService, type PortRange, portRangesOf, rangeFrontend, spareName } from './ports.ts';

/** One service as HAProxy sees it, without its servers: what only a reload can change. */
export interface Proxy {
  /** The name of the service, its frontend and its backend; or that of a backend that waits for a service. */
  readonly name: string;
  /** `ADDRESS:PORT` or the path of a unix socket; undefined when only other frontends lead to it. */
  readonly bind: string | undefined;
  readonly bindOptions: string;
  readonly mode: 'http' | 'tcp';
  readonly balance: string;
  /** Options of every server, beside its own. */
  readonly serverOptions: string;
  /**
   * How long a server that joins waits for HAProxy's own first check; undefined when it does not wait. It stands in no
   * file.
   */
  readonly firstCheckMs?: number;
  readonly frontendLines: readonly string[];
  readonly backendLines: readonly string[];
}

/** A frontend that tells services apart by the host that a request names. */
export interface SharedFrontend {
  readonly name: string;
  readonly binds: readonly string[];
  readonly bindOptions: string;
  readonly lines: readonly string[];
}

/** Everything that only a reload can change. */
export interface Structure {
  readonly runtimeSocket: string;
  readonly socketGroup: string | undefined;
  readonly global: readonly string[];
  readonly defaults: readonly string[];
  readonly extraSections: Readonly<Record<string, readonly string[]>>;
  /** Where the map files lie. What stands in them is not structure. */
  readonly mapDirectory: string;
  readonly sharedFrontends: readonly SharedFrontend[];
  readonly portRanges: readonly PortRange[];
  readonly proxies: readonly Proxy[];
}

export function buildStructure(config: HaproxyConfig, services: readonly DiscoveredService[]): Structure {
  const portRanges = portRangesOf(config.portRange);
  const proxies = [
    ...services.flatMap((service) => toProxy(config, service) ?? []),
    ...portRanges.flatMap(spareProxies),
  ].toSorted(byName);
  const { runtimeSocket, socketGroup, global, defaults, extraSections } = config;
  const sharedFrontends = Object.entries(config.sharedFrontends)
    .map(([name, { listen: binds, bindOptions, lines }]) => ({ name, binds, bindOptions, lines }))
    .toSorted(byName);
  const mapDirectory = path.dirname(config.configFile);
  return {
    runtimeSocket,
    socketGroup,
    global,
    defaults,
    extraSections,
    mapDirectory,
    sharedFrontends,
    portRanges,
    proxies,
  };
}

const DEFAULT_BALANCE = 'roundrobin';

/** Nothing for a service that only file outputs follow, and for one that a spare serves. */
function toProxy(config: HaproxyConfig, service: DiscoveredService): Proxy | undefined {
  const { config: discover } = service;
  const isRouted = discover.listen !== undefined || discover.hosts.length > 0;
  if (!isRouted || placeService(config, service).kind !== 'own') return undefined;
  return {
    name: service.service,
    bind: discover.listen,
    bindOptions: discover.bindOptions,
    mode: discover.mode,
    balance: discover.balance ?? DEFAULT_BALANCE,
    serverOptions: discover.serverOptions,
    ...(discover.firstCheckMs === undefined ? {} : { firstCheckMs: discover.firstCheckMs }),
    frontendLines: discover.frontend,
    backendLines: discover.backend,
  };
}

function spareProxies({ mode, spares, balance }: PortRange): Proxy[] {
  return Array.from({ length: spares }, (_, index) => ({
    name: spareName(mode, index + 1),
    bind: undefined,
    bindOptions: '',
    mode,
    balance,
    serverOptions: '',
    frontendLines: [],
    backendLines: [],
  }));
}

function byName(a: { readonly name: string }, b: { readonly name: string }): number {
  return a.name < b.name ? -1 : 1;
}

/** The file of the map by which a frontend finds the backend. */
export function mapFile(mapDirectory: string, frontend: string): string {
  const name = frontend.startsWith('tandem-') ? frontend : `tandem-${frontend}`;
  return path.join(mapDirectory, `${name}.map`);
}

/** Every map that the text for a structure names: HAProxy takes no text whose map files are missing. */
export function mapFilesOf({ mapDirectory, sharedFrontends, portRanges }: Structure): string[] {
  return [
    ...sharedFrontends.map(({ name }) => name),
    ...portRanges.map(({ mode }) => rangeFrontend(mode)),
  ].map((frontend) => mapFile(mapDirectory, frontend));
}

/** A structure as the template wants it; whoever adds the servers to `proxies` has the whole view. */
export function viewStructure(structure: Structure) {
  const { mapDirectory } = structure;
  return {
    runtimeSocket: structure.runtimeSocket,
    group: structure.socketGroup === undefined ? '' : ` group ${structure.socketGroup}`,
    global: structure.global,
    defaults: structure.defaults,
    sections: Object.entries(structure.extraSections).map(([title, lines]) => ({ title, lines })),
    sharedFrontends: structure.sharedFrontends.map(({ name, binds, bindOptions, lines }) => ({
      name,
      binds: binds.map((bind) => bindArguments(bind, bindOptions)),
      lines,
      map: mapFile(mapDirectory, name),
    })),
    portRanges: structure.portRanges.map(({ mode, bind }) => ({
      name: rangeFrontend(mode),
      mode,
      bind,
      isHttp: mode === 'http',
      map: mapFile(mapDirectory, rangeFrontend(mode)),
    })),
    proxies: structure.proxies.map((proxy) => ({
      name: proxy.name,
      mode: proxy.mode,
      balance: proxy.balance,
      serverOptions: proxy.serverOptions,
      isHttp: proxy.mode === 'http',
      hasFrontend: proxy.bind !== undefined,
      bind: proxy.bind === undefined ? '' : bindArguments(proxy.bind, proxy.bindOptions),
      isHashed: HASHED.test(balanceOf(proxy)) && !proxy.backendLines.some((line) => HASH_TYPE.test(line)),
      frontendLines: proxy.frontendLines,
      backendLines: proxy.backendLines,
    })),
  };
}

/** With the default, map-based, HAProxy adds no server at run time (HAProxy reference 1.2). */
const HASHED = /^(source|uri|url_param|hdr|rdp-cookie|hash)\b/;
const HASH_TYPE = /^\s*hash-type\b/;

/** The last one counts, and lines of the owner come last. */
function balanceOf({ balance, backendLines }: Proxy): string {
  const lines = backendLines.map((line) => /^\s*balance\s+(.*)$/.exec(line)?.[1]);
  return lines.findLast((one) => one !== undefined) ?? balance;
}

/** The sockets of applications are open to the daemon's group, unless the options say otherwise. */
function bindArguments(bind: string, options: string): string {
  const hasMode = options.split(' ').includes('mode');
  const mode = bind.startsWith('/') && !hasMode ? ' mode 660' : '';
  return options === '' ? `${bind}${mode}` : `${bind}${mode} ${options}`;
}

/** Which structure a running HAProxy has loaded: this text stands in its `description`. */
export function structureMark(renderedSample: string): string {
  return `tandem ${createHash('sha256').update(renderedSample).digest('hex').slice(0, 16)}`;
}
