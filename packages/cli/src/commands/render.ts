import path from 'node:path';

import { type Instance, messageOf, silentLog, type Snapshot } from '@tandem/core';
import {
  createDesiredBuilder,
  createSource,
  type DiscoveredService,
  filtered,
  isUsable,
  readSpares,
  renderConfig,
  selectInstances,
} from '@tandem/discovery';
import { openRegistry } from '@tandem/registry';
import type { CommandModule } from 'yargs';

import { invalidConfig } from '../daemon.ts';
import { printable } from '../printable.ts';
import { createServiceFiles, type Services } from '../service-files.ts';
import { type HostSettings, loadHostSettings } from '../settings.ts';
import { configOption } from './options.ts';

interface RenderArguments {
  config: string;
  offline: boolean;
  timeout: number;
}

export const renderCommand: CommandModule<object, RenderArguments> = {
  command: 'render',
  describe: 'Print the haproxy.cfg that would be written, without touching anything',
  builder: (yargs) =>
    yargs
      .option('config', configOption)
      .option('offline', {
        type: 'boolean',
        default: false,
        describe: 'Ask no source: no server lines',
      })
      .option('timeout', { type: 'number', default: 5, describe: 'Seconds to wait for the sources' })
      .example('$0 render --config ./tandem.yaml | haproxy -c -f /dev/stdin', 'Let HAProxy judge it'),
  async handler({ config, offline, timeout }) {
    const loaded = await loadHostSettings(path.resolve(config));
    if (!loaded.ok) throw invalidConfig(loaded.problems);
    const services = await createServiceFiles(loaded.value).load();
    if (services.problems.length > 0) throw invalidConfig(services.problems);
    const catalog = offline
      ? new Map<string, readonly Instance[]>()
      : await readCatalog(loaded.value, services, timeout * 1_000);
    const offers = new Map(
      services.discovered.map((service) => [
        service.service,
        { service, instances: catalog.get(service.service), holds: new Map() },
      ]),
    );
    const spares = await readSpares(loaded.value.haproxy);
    const { desired } = createDesiredBuilder(loaded.value.haproxy, spares)(offers);
    process.stdout.write(renderConfig(desired.structure, desired.membership).text);
    const silent = services.discovered.filter(({ service }) => !offline && !catalog.has(service));
    for (const { service } of silent)
      process.stderr.write(`tandem: the source of ${service} did not answer in time\n`);
    if (silent.length > 0) process.exitCode = 1;
  },
};

/** What this host would use of the first snapshot of every service that comes in time. Nothing is held or guarded. */
async function readCatalog(
  settings: HostSettings,
  services: Services,
  timeoutMs: number,
): Promise<ReadonlyMap<string, readonly Instance[]>> {
  const log = silentLog;
  const registry = await openRegistry(settings.registry, { log });
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), timeoutMs);
  const first = async ({ path, config }: DiscoveredService): Promise<Snapshot | undefined> => {
    const scene = { registry, path, format: config.format, hostName: settings.host.name, log };
    const source = filtered(createSource(config.source, scene), config.filter);
    try {
      for await (const snapshot of source.watch(controller.signal)) return snapshot;
    } catch (error) {
      process.stderr.write(`tandem: ${printable(messageOf(error))}\n`);
    }
    return undefined;
  };
  try {
    const entries = await Promise.all(
      services.discovered.map(async (service) => [service, await first(service)] as const),
    );
    return new Map(
      entries.flatMap(([{ service, config }, snapshot]) => {
        if (snapshot === undefined) return [];
        const entry = { instances: snapshot.instances, kept: false };
        const input = { entry, config, fallback: config.fallback, holds: new Map() };
        return [[service, selectInstances(input, { host: settings.host, isUsable }).instances] as const];
      }),
    );
  } finally {
    clearTimeout(timer);
    controller.abort();
    await registry.close();
  }
}
