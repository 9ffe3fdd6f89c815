import { isIP } from 'node:net';

/** Where a proxy listens: the path of a unix socket, or ports of an address. */
export type Endpoint =
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly first: number; readonly last: number };

/**
 * What `bind` stands for: `ADDRESS:PORT`, `ADDRESS:FIRST-LAST` or an absolute path, as they are written in
 * haproxy.cfg. Undefined for what cannot be tried from outside, such as inherited sockets, names and variables.
 */
export function parseEndpoint(bind: string): Endpoint | undefined {
  const text = bind.replace(/^(?:ipv4|ipv6|tcp|tcp4|tcp6|unix|uxst)@/, '');
  if (text.startsWith('/')) return /["'\\$%]/.test(text) ? undefined : { kind: 'unix', path: text };
  const match = /^(.*):(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
  if (match === null) return undefined;
  const [first, last] = [Number(match[2]), Number(match[3] ?? match[2])];
  const host = (match[1] ?? '').replace(/^\[|\]$/g, '');
  if (first < 1 || last > 65_535 || first > last) return undefined;
  if (host === '' || host === '*') return { kind: 'tcp', host: '0.0.0.0', first, last };
  return isIP(host) === 0 ? undefined : { kind: 'tcp', host, first, last };
}

/** What the `bind` lines among these open. */
export function endpointsOfLines(lines: readonly string[]): Endpoint[] {
  return lines.flatMap((line) => {
    const addresses = /^\s*bind\s+(\S+)/.exec(line)?.[1] ?? '';
    return addresses.split(',').flatMap((address) => parseEndpoint(address) ?? []);
  });
}

/** Whether two endpoints have an address in common; the address of all interfaces has one in common with every other. */
export function overlaps(a: Endpoint, b: Endpoint): boolean {
  if (a.kind === 'unix' || b.kind === 'unix')
    return a.kind === 'unix' && b.kind === 'unix' && a.path === b.path;
  return a.first <= b.last && b.first <= a.last && sharesHost(a.host, b.host);
}

function sharesHost(a: string, b: string): boolean {
  // [::] takes IPv4 as well, unless the system says otherwise.
  if (a === '::' || b === '::' || a === b) return true;
  return (a === '0.0.0.0' && isIP(b) === 4) || (b === '0.0.0.0' && isIP(a) === 4);
}

/** The same, one port each. */
export function singleEndpoints(endpoint: Endpoint): Endpoint[] {
  if (endpoint.kind === 'unix') return [endpoint];
  const { first, last } = endpoint;
  return Array.from({ length: last - first + 1 }, (_, index) => ({
    ...endpoint,
    first: first + index,
    last: first + index,
  }));
}

/** As people write it. */
export function formatBind(endpoint: Endpoint): string {
  if (endpoint.kind === 'unix') return endpoint.path;
  const { host, first, last } = endpoint;
  const ports = first === last ? `${first}` : `${first}-${last}`;
  return isIP(host) === 6 ? `[${host}]:${ports}` : `${host}:${ports}`;
}
