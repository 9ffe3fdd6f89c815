import { compareInstances, formatEndpoint, type Instance, instanceId, type Rejection } from '@tandem/core';

import { canonicalAddress } from '../haproxy/membership.ts';
import type { Offers } from '../output.ts';

/** What templates see of an instance. */
export interface TemplateInstance {
  readonly name: string;
  /** Canonical IP literal */
  readonly host: string;
  readonly port: number;
  /** `10.0.0.1:80`, `[2001:db8::1]:80` */
  readonly endpoint: string;
  /** 1 to 256, or 0 among those that get no traffic */
  readonly weight: number;
  readonly labels: Readonly<Record<string, string>>;
}

/** What templates see of a service. */
export interface TemplateService {
  readonly name: string;
  readonly path: string;
  readonly listen: string | undefined;
  /** `listen` is the path of a unix socket. */
  readonly isUnix: boolean;
  readonly mode: 'http' | 'tcp';
  /** Those that get traffic. */
  readonly instances: readonly TemplateInstance[];
  /** Those that get none: their weight is 0, or an operator holds them. */
  readonly idle: readonly TemplateInstance[];
}

/** What templates see: the services in the order of their names, and each by its name. */
export interface TemplateData {
  readonly services: readonly TemplateService[];
  readonly byName: Readonly<Record<string, TemplateService>>;
}

const MAX_WEIGHT = 256;
const NAME = /^[A-Za-z0-9_.:-]{0,128}$/;
/** One word in any syntax that we know of: no space, quote, bracket, semicolon, comment sign, $ or backslash. */
const LABEL = /^[\p{L}\p{N}_.:/,%+=@~-]{1,512}$/u;

/**
 * Turns offers into plain data for templates. Pure. Whoever wrote the registry's text did not write it for the target:
 * an instance whose name or host could mean something there is set aside, and a label that could is dropped.
 * @param known the instances of each service; one that is not in it has none
 */
export function toTemplateData(
  offers: Offers,
  known: ReadonlyMap<string, readonly Instance[]>,
  policy: { trustLabels: boolean },
): { data: TemplateData; rejected: ReadonlyMap<string, readonly Rejection[]> } {
  const rejected = new Map<string, readonly Rejection[]>();
  const names = [...offers.keys()].toSorted();
  const services = names.flatMap((name): TemplateService[] => {
    const offer = offers.get(name);
    if (offer === undefined) return [];
    const { service, holds } = offer;
    const rejections: Rejection[] = [];
    const instances: TemplateInstance[] = [];
    const idle: TemplateInstance[] = [];
    for (const instance of (known.get(name) ?? []).toSorted(compareInstances)) {
      const shown = toTemplateInstance(instance, policy, rejections);
      if (shown === undefined) continue;
      const isIdle = shown.weight === 0 || holds.has(instanceId(instance));
      (isIdle ? idle : instances).push(shown);
    }
    if (rejections.length > 0) rejected.set(name, rejections);
    const { path, config } = service;
    const { listen, mode } = config;
    return [{ name, path, listen, isUnix: listen?.startsWith('/') === true, mode, instances, idle }];
  });
  const byName = Object.fromEntries(services.map((service) => [service.name, service]));
  return { data: { services, byName }, rejected };
}

function toTemplateInstance(
  { name, host, port, weight = 1, labels = {} }: Instance,
  { trustLabels }: { trustLabels: boolean },
  rejections: Rejection[],
): TemplateInstance | undefined {
  const place = name.slice(0, 128);
  const address = canonicalAddress(host);
  if (!NAME.test(name)) {
    const reason = 'the name holds characters other than letters, digits and _.:-, or is too long';
    rejections.push({ place, reason });
    return undefined;
  }
  if (address === undefined || address === '0.0.0.0' || address === '::') {
    rejections.push({ place, reason: 'the host is not the IPv4 or IPv6 address of a host' });
    return undefined;
  }
  const all = Object.entries(labels).toSorted(([a], [b]) => (a < b ? -1 : 1));
  const kept = trustLabels ? all : all.filter(([key, value]) => LABEL.test(key) && LABEL.test(value));
  if (kept.length < all.length)
    rejections.push({ place, reason: 'labels that are not one harmless word each are dropped' });
  return {
    name,
    host: address,
    port,
    endpoint: formatEndpoint({ host: address, port }),
    weight: Math.max(0, Math.min(Math.trunc(weight), MAX_WEIGHT)),
    labels: Object.fromEntries(kept),
  };
}
