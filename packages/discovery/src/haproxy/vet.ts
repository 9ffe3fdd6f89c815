import net from 'node:net';
import { isDeepStrictEqual } from 'node:util';

import { sleep, systemErrorCode } from '@tandem/core';

import { renderSample } from './render.ts';
import type { Structure } from './structure.ts';

/** A service that cannot be part of a structure. It costs only itself. */
export interface SetAside {
  readonly service: string;
  readonly reason: string;
}

export type Vetted =
  | { readonly kind: 'accepted'; readonly structure: Structure; readonly setAside: readonly SetAside[] }
  | { readonly kind: 'refused'; readonly complaint: string };

export interface VetDeps {
  /** The structure that HAProxy has run last: what a service falls back on. */
  readonly good: Structure | undefined;
  /** Ports that the running HAProxy listens on itself; undefined when nobody knows them. */
  readonly ownPorts: ReadonlySet<string> | undefined;
  /** What HAProxy says against a text; undefined when it would take it. */
  readonly check: (text: string) => Promise<string | undefined>;
  /** Why an address cannot be listened on; undefined when it can. */
  readonly whyTaken: (bind: string) => Promise<string | undefined>;
}

/**
 * The part of a structure that HAProxy can run. `haproxy -c` binds nothing, and a reload that cannot bind refuses
 * every new connection for two seconds (HAProxy reference 3.3), so new addresses are tried first. When HAProxy refuses
 * the whole, the services that changed are asked one by one: one bad input hurts only itself.
 */
export async function vetStructure(wanted: Structure, deps: VetDeps): Promise<Vetted> {
  const taken = await findTaken(wanted, deps);
  const bindable = without(wanted, taken, deps.good);
  const complaint = await deps.check(renderSample(bindable));
  if (complaint === undefined) return { kind: 'accepted', structure: bindable, setAside: taken };
  if ((await deps.check(renderSample({ ...bindable, proxies: [] }))) !== undefined)
    return { kind: 'refused', complaint };
  const refused = await findRefused(bindable, deps);
  const rest = without(bindable, refused, deps.good);
  const isEnough = refused.length > 0 && (await deps.check(renderSample(rest))) === undefined;
  return isEnough
    ? { kind: 'accepted', structure: rest, setAside: [...taken, ...refused] }
    : { kind: 'refused', complaint };
}

async function findTaken(wanted: Structure, { ownPorts, whyTaken }: VetDeps): Promise<SetAside[]> {
  if (ownPorts === undefined) return [];
  const answers = await Promise.all(
    wanted.proxies.map(async ({ name, bind }) => {
      const isNew = bind !== undefined && !ownPorts.has(portOf(bind));
      return { service: name, reason: isNew ? await whyTaken(bind) : undefined };
    }),
  );
  return answers.flatMap(({ service, reason }) => (reason === undefined ? [] : [{ service, reason }]));
}

async function findRefused(structure: Structure, { good, check }: VetDeps): Promise<SetAside[]> {
  const refused: SetAside[] = [];
  for (const proxy of structure.proxies) {
    if (good?.proxies.some((known) => isDeepStrictEqual(known, proxy)) === true) continue;
    const complaint = await check(renderSample({ ...structure, proxies: [proxy] }));
    if (complaint !== undefined) refused.push({ service: proxy.name, reason: complaint });
  }
  return refused;
}

/** Services that are set aside keep their last good version, if its address is still theirs. */
function without(
  structure: Structure,
  setAside: readonly SetAside[],
  good: Structure | undefined,
): Structure {
  if (setAside.length === 0) return structure;
  const names = new Set(setAside.map(({ service }) => service));
  const kept = structure.proxies.filter(({ name }) => !names.has(name));
  const binds = new Set(kept.map(({ bind }) => bind));
  const former = (good?.proxies ?? []).filter(({ name, bind }) => names.has(name) && !binds.has(bind));
  return { ...structure, proxies: [...kept, ...former].toSorted((a, b) => (a.name < b.name ? -1 : 1)) };
}

/** The port alone: an address that widens from 127.0.0.1 to `*` meets only itself. */
export function portOf(bind: string): string {
  return bind.slice(bind.lastIndexOf(':') + 1);
}

const ATTEMPTS = 4;
const PAUSE_MS = 100;

/** Tries an address by listening on it for a moment. A HAProxy that is just ending gets some time to leave it. */
export async function whyTaken(bind: string): Promise<string | undefined> {
  for (let attempt = 1; ; attempt += 1) {
    const code = await tryListen(bind);
    if (code === undefined) return undefined;
    if (code !== 'EADDRINUSE') return `this process cannot listen on ${bind} (${code})`;
    if (attempt === ATTEMPTS) return `the address ${bind} is taken by another process`;
    await sleep(PAUSE_MS);
  }
}

function tryListen(bind: string): Promise<string | undefined> {
  const host = bind.slice(0, bind.lastIndexOf(':')).replace(/^\[|\]$/g, '');
  return new Promise((resolve) => {
    const server = net.createServer((socket) => socket.destroy());
    server.once('error', (error) => resolve(systemErrorCode(error) ?? 'unknown reason'));
    server.listen(
      { port: Number(portOf(bind)), host: host === '*' ? '0.0.0.0' : host, exclusive: true },
      () => {
        server.close(() => resolve(undefined));
      },
    );
  });
}
