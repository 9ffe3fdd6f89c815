import { once } from 'node:events';

import {
  type AddressResolver,
  createAddressResolver,
  type Instance,
  messageOf,
  type Rejection,
  silentLog,
  type Snapshot,
} from '@tandem/core';
import {
  createSource,
  type DiscoveredService,
  filtered,
  isUsable,
  selectInstances,
  withAddresses,
} from '@tandem/discovery';
import { openRegistry, type Registry } from '@tandem/registry';

import type { HostSettings } from './settings.ts';

/** What this host would use of a service at this moment. */
export interface Surveyed {
  /** Undefined when nothing could be learned of it. */
  readonly instances: readonly Instance[] | undefined;
  /** What is missing of it, and why; for people. */
  readonly missing: readonly string[];
}

/**
 * Asks every source once, as the daemon would, and resolves when all have said what they have, or after `timeoutMs`
 * with what has come by then. Nothing is held, guarded or remembered.
 */
export async function surveyServices(
  settings: HostSettings,
  services: readonly DiscoveredService[],
  timeoutMs: number,
): Promise<ReadonlyMap<string, Surveyed>> {
  const registry = await openRegistry(settings.registry, { log: silentLog });
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), timeoutMs);
  const scene = { settings, registry, resolver: createAddressResolver(), signal: controller.signal };
  try {
    return new Map(
      await Promise.all(
        services.map(async (service) => [service.service, await survey(service, scene)] as const),
      ),
    );
  } finally {
    clearTimeout(timer);
    controller.abort();
    await registry.close();
  }
}

interface Scene {
  readonly settings: HostSettings;
  readonly registry: Registry;
  readonly resolver: AddressResolver;
  readonly signal: AbortSignal;
}

async function survey({ path, config }: DiscoveredService, scene: Scene): Promise<Surveyed> {
  const { registry, settings } = scene;
  const place = { registry, path, format: config.format, hostName: settings.host.name, log: silentLog };
  const source = filtered(createSource(config.source, place), config.filter);
  const said = await ask((signal) => source.watch(signal), scene);
  if (said.snapshot === undefined) return { instances: undefined, missing: said.missing };
  const entry = { instances: said.snapshot.instances, kept: false };
  const select = (fallback: readonly Instance[]) =>
    selectInstances({ entry, config, fallback, holds: new Map() }, { host: settings.host, isUsable });
  const selected = select(config.fallback);
  if (!selected.isFallback) return { instances: selected.instances, missing: said.missing };
  // Only now are its names of interest.
  const fallback = await ask((signal) => only({ instances: config.fallback, rejected: [] }, signal), scene);
  return {
    instances: select(fallback.snapshot?.instances ?? []).instances,
    missing: [...said.missing, ...fallback.missing.map((text) => `its fallback: ${text}`)],
  };
}

async function* only(snapshot: Snapshot, signal: AbortSignal): AsyncGenerator<Snapshot> {
  yield snapshot;
  if (!signal.aborted) await once(signal, 'abort');
}

/** The first snapshot in which every name has been answered for, or the last one that came in time. */
async function ask(
  watch: (signal: AbortSignal) => AsyncIterable<Snapshot>,
  { resolver, signal }: Scene,
): Promise<{ readonly snapshot: Snapshot | undefined; readonly missing: readonly string[] }> {
  const names = new Map<string, 'asked' | 'answered'>();
  const listening: AddressResolver = {
    async resolve(name, signal) {
      if (!names.has(name)) names.set(name, 'asked');
      const answer = await resolver.resolve(name, signal);
      names.set(name, 'answered');
      return answer;
    },
  };
  const unanswered = () => [...names].flatMap(([name, state]) => (state === 'asked' ? [name] : []));
  let snapshot: Snapshot | undefined;
  const missing: string[] = [];
  try {
    const source = withAddresses({ watch }, { resolver: listening, log: silentLog });
    for await (const next of source.watch(signal)) {
      snapshot = next;
      if (unanswered().length === 0) break;
    }
  } catch (error) {
    if (snapshot === undefined) return { snapshot, missing: [`its source fails: ${messageOf(error)}`] };
  }
  if (unanswered().length > 0)
    missing.push(`these names of hosts were not answered in time: ${listed(unanswered())}`);
  else if (snapshot === undefined)
    missing.push(
      names.size > 0
        ? `no nameserver answers for ${listed([...names.keys()])}`
        : 'its source did not answer in time',
    );
  return { snapshot, missing: [...missing, ...describeRejected(snapshot?.rejected ?? [])] };
}

const MAX_LISTED = 20;

export function describeRejected(rejected: readonly Rejection[]): string[] {
  const more = rejected.length - MAX_LISTED;
  const texts = rejected.slice(0, MAX_LISTED).map(({ place, reason }) => `set aside: ${place}: ${reason}`);
  return more > 0 ? [...texts, `set aside: ${more} more`] : texts;
}

function listed(names: readonly string[]): string {
  return `${names.slice(0, MAX_LISTED).join(', ')}${names.length > MAX_LISTED ? ', ...' : ''}`;
}
