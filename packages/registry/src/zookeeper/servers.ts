import { isIP, isIPv6 } from 'node:net';

export interface ServerAddress {
  /** A name or an address. */
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

/** Why a text is no server, and what to write instead: people bring connection strings of other clients. */
export function explainServer(text: string): { reason: string; remedy: string } {
  if (text.includes('://'))
    return { reason: 'must be a server, not a URL', remedy: 'Write it as zk1:2181; for TLS set tls' };
  if (text.includes(','))
    return { reason: 'must be one server', remedy: 'Give every server an entry of its own' };
  const slash = text.indexOf('/');
  if (slash > 0) {
    const path = text.slice(slash).replace(/\/+$/, '');
    const server = `Write ${text.slice(0, slash)}`;
    const remedy = path === '' ? server : `${server}, and set chroot: ${path} beside servers`;
    return { reason: 'must be a server without a path', remedy };
  }
  if (/^[^:]*:-?\d+$|\]:-?\d+$/.test(text))
    return {
      reason: 'must be a server with a port from 1 to 65535',
      remedy: 'ZooKeeper listens on 2181 by default',
    };
  return {
    reason: 'must be a server such as zk1:2181, 10.0.0.1:2181 or [2001:db8::1]:2181',
    remedy: 'Give it a name or an address, and a port if it is not 2181',
  };
}

/** In an order of chance, so that a fleet spreads over its ensemble. */
export function shuffled<T>(items: readonly T[], random: () => number): T[] {
  return items
    .map((item) => ({ item, order: random() }))
    .toSorted((a, b) => a.order - b.order)
    .map(({ item }) => item);
}
