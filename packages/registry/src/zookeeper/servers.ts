import { isIP, isIPv6 } from 'node:net';

export interface ServerAddress {
  readonly host: string;
  readonly port: number;
}

const DEFAULT_PORT = 2181;
const HOST_NAME = /^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$/;

/** `zk1`, `zk1:2181`, `10.0.0.1:2181`, `[2001:db8::1]:2181` or `2001:db8::1`; undefined for anything else. */
export function parseServer(text: string): ServerAddress | undefined {
  if (isIPv6(text)) return { host: text, port: DEFAULT_PORT };
  const match = /^(?:\[([^\]]+)\]|([^:[\]\s]+))(?::(\d{1,5}))?$/.exec(text);
  if (match === null) return undefined;
  const [, bracketed, bare, portText] = match;
  const port = portText === undefined ? DEFAULT_PORT : Number(portText);
  if (port < 1 || port > 65_535) return undefined;
  if (bracketed !== undefined) return isIPv6(bracketed) ? { host: bracketed, port } : undefined;
  if (bare === undefined || (isIP(bare) === 0 && !HOST_NAME.test(bare))) return undefined;
  return { host: bare, port };
}

/** In an order of chance, so that a fleet spreads over its ensemble. */
export function shuffled<T>(items: readonly T[], random: () => number): T[] {
  return items
    .map((item) => ({ item, order: random() }))
    .toSorted((a, b) => a.order - b.order)
    .map(({ item }) => item);
}
