import { createHash } from 'node:crypto';

import { instanceId } from '@tandem/core';

import type { DiscoveredService } from './config/discover.ts';
import type { Filter } from './config/selection.ts';
import type { SourceConfig } from './sources/kinds.ts';

/** To be raised when the same configuration gets another word. */
const VERSION = '1';

/**
 * A word for how a service is read, which is saved with what was read. Services that make the same of the same world
 * have the same, in this version of Tandem and in the next: what goes into it is listed below, each with its place, so
 * that a new setting changes nothing for those who do not use it. How often and with which credentials somebody asks
 * makes no difference.
 */
export function originOf({ path, config: { filter, format, source } }: DiscoveredService): string {
  const text = JSON.stringify([meaningOf(source, { path, format }), plainFilter(filter)]);
  return `${VERSION}-${createHash('sha256').update(text).digest('hex').slice(0, 16)}`;
}

/**
 * Whether two words say the same. One of another version says nothing, and is given the benefit of the doubt: a loss
 * that is held although an operator wanted it is over soon.
 */
export function isSameOrigin(a: string, b: string): boolean {
  return a === b || versionOf(a) !== versionOf(b);
}

function versionOf(origin: string): string | undefined {
  return /^(\d+)-/.exec(origin)?.[1];
}

type Plain = string | number | boolean | null | readonly Plain[];
type Place = Pick<DiscoveredService, 'path'> & Pick<DiscoveredService['config'], 'format'>;

function meaningOf(source: SourceConfig, { path, format }: Place): Plain {
  const { kind } = source;
  switch (kind) {
    case 'registry':
      return [kind, path, format.kind, format.kind === 'serverset' ? (format.endpoint ?? null) : null];
    case 'static':
      return [kind, source.options.instances.map(instanceId).toSorted()];
    case 'file':
      return [kind, source.options.path];
    case 'dns': {
      const { names, family, nameservers } = source.options;
      const plainNames = names.map((name): Plain =>
        name.kind === 'host'
          ? [name.host, name.port, plainLabels(name.labels)]
          : [name.srv, null, plainLabels(name.labels)],
      );
      return [kind, plainNames, family, nameservers ?? null];
    }
    case 'docker': {
      const { servers, imageName, labels, containerPort, requireHealthy } = source.options;
      const plainServers = servers.map(({ api, host, name }): Plain => [
        api.socketPath ?? api.origin,
        host,
        name ?? null,
      ]);
      return [kind, plainServers, imageName ?? null, plainFilter(labels), containerPort, requireHealthy];
    }
    case 'marathon': {
      const { urls, tasksPath, portIndex, requireHealthy } = source.options;
      return [kind, urls.toSorted(), tasksPath, portIndex, requireHealthy];
    }
    case 'multi': {
      const { sources, combine } = source.options;
      const parts = sources.map((part): Plain => [part.name, meaningOf(part.source, { path, format })]);
      return [kind, combine, parts];
    }
  }
}

function plainFilter(filter: Filter): Plain {
  return Object.entries(filter)
    .map(([label, allowed]): [string, Plain] => [label, [...new Set(allowed)].toSorted()])
    .toSorted(byKey);
}

function plainLabels(labels: Readonly<Record<string, string>> = {}): Plain {
  return Object.entries(labels).toSorted(byKey);
}

function byKey([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number {
  return a < b ? -1 : 1;
}
