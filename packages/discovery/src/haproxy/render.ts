import { readFileSync } from 'node:fs';

import Handlebars from 'handlebars';

import {
  type Membership,
  type Server,
  serverAddress,
  serverArguments,
  type ServerName,
} from './membership.ts';
import { type Structure, structureMark, viewStructure } from './structure.ts';

/** A haproxy.cfg and the mark of the structure in it. */
export interface Rendered {
  readonly text: string;
  readonly mark: string;
}

/** The same in pieces, which are the same objects as long as they say the same. */
export interface RenderedParts {
  readonly parts: readonly Buffer[];
  readonly mark: string;
}

// The template lies beside this code, in the sources, the build and the bundle alike.
const template = Handlebars.create().compile(
  readFileSync(new URL('./templates/haproxy.cfg.hbs', import.meta.url), 'utf8'),
  { noEscape: true, strict: true, knownHelpersOnly: true },
);
const marks = new WeakMap<Structure, string>();
const frames = new WeakMap<Structure, Frame>();
const backends = new WeakMap<
  Slot,
  {
    readonly servers: readonly Server[];
    readonly runs: ReadonlyMap<Server, Run>;
    readonly parts: readonly Buffer[];
  }
>();

/** The text for a structure and its servers. Deterministic: equal input gives equal bytes. */
export function renderConfig(structure: Structure, membership: Membership): Rendered {
  const { parts, mark } = renderParts(structure, membership);
  return { text: Buffer.concat(parts).toString('utf8'), mark };
}

/** The same as `renderConfig`; its work follows what has changed since the last time, not the fleet. */
export function renderParts(structure: Structure, membership: Membership): RenderedParts {
  const { head, bodies, mark } = frameOf(structure);
  const parts = [head];
  for (const { slot, after } of bodies) {
    const servers = membership.get(slot.backend) ?? [];
    if (servers.length > 0) parts.push(...renderServers(servers, slot));
    parts.push(after);
  }
  return { parts, mark };
}

/** Changes with everything that needs a reload, and with nothing else. */
export function markOf(structure: Structure): string {
  const sampled = (_: string, serverOptions: string) => [serverView(SAMPLE, serverOptions)];
  const mark = marks.get(structure) ?? structureMark(template(view(structure, sampled, '')));
  marks.set(structure, mark);
  return mark;
}

/** What the servers of a service may carry beyond the options of their backend. */
export interface Allowance {
  readonly service: string;
  readonly backend: string;
  /** What all of them carry: the `server_options` of a service that a spare serves. */
  readonly options: string;
  /** The most that an announcement can add; empty when it can add nothing. */
  readonly own: string;
}

/**
 * The text for a structure with two made-up servers in every backend: one as most are, and one that says of itself
 * whatever it may and is held. If HAProxy takes them, it takes the structure with whatever servers: a mistake in
 * `server_options` shows before the first instance does, and no announcement can make a file that HAProxy refuses.
 */
export function renderSample(structure: Structure, allowances: readonly Allowance[] = []): string {
  const known = new Map(allowances.map((allowance) => [allowance.backend, allowance]));
  const samples = structure.proxies.map(({ name }) => {
    const { options, own } = known.get(name) ?? { options: '', own: '' };
    return [
      name,
      [
        { ...SAMPLE, options },
        { ...FULLEST_SAMPLE, options: `${options} ${own}`.trim() },
      ],
    ] as const;
  });
  return renderConfig(structure, new Map(samples)).text;
}

/** The name of the server that says whatever it may. */
export const FULLEST_NAME = 'sample-fullest';

/** The same server in every backend: how servers are written is structure, which of them there are is not. */
const SAMPLE: Server = {
  name: 'sample' as ServerName,
  id: 1,
  address: '127.0.0.1',
  port: 1,
  weight: 1,
  state: 'ready',
  options: '',
};
const FULLEST_SAMPLE: Server = { ...SAMPLE, name: FULLEST_NAME as ServerName, id: 2, state: 'maint' };

/** Where the servers of a backend stand, and how each of them is written: the words between its parts. */
interface Slot {
  readonly backend: string;
  readonly serverOptions: string;
  readonly between: readonly [string, string, string, string];
}

/** The file without a server. */
interface Frame {
  readonly mark: string;
  readonly head: Buffer;
  readonly bodies: readonly { readonly slot: Slot; readonly after: Buffer }[];
}

const HOLE = '\0';
/** A whole line, and the six parts of it that are of interest. */
const PLACEHOLDER = new RegExp(`^(.*)${HOLE}(.*)${HOLE}(.*)${HOLE}(.*)${HOLE}(.*)${HOLE}(.*\\n)`, 'm');

/**
 * The template is asked once for every structure, with a placeholder for the servers of each backend. Placeholders
 * hold a character that no line of a configuration may have.
 */
function frameOf(structure: Structure): Frame {
  const known = frames.get(structure);
  if (known !== undefined) return known;
  const mark = markOf(structure);
  const held = (backend: string, serverOptions: string) => [
    {
      name: `${HOLE}${backend}${HOLE}`,
      address: HOLE,
      arguments: `${HOLE}${serverOptions}${HOLE}`,
    },
  ];
  // Of the placeholder's line: before the name, the name, to the address, to the arguments, the options, to the end.
  const pieces = template(view(structure, held, mark)).split(PLACEHOLDER);
  const bodies: { slot: Slot; after: Buffer }[] = [];
  for (let index = 1; index < pieces.length; index += 7) {
    const [start = '', backend = '', toAddress = '', toArguments = '', serverOptions = '', end = ''] =
      pieces.slice(index, index + 6);
    const between = [start, toAddress, toArguments, end] as const;
    bodies.push({
      slot: { backend, serverOptions, between },
      after: Buffer.from(pieces[index + 6] ?? ''),
    });
  }
  const frame = { mark, head: Buffer.from(pieces[0] ?? ''), bodies };
  frames.set(structure, frame);
  return frame;
}

/** Servers that stand one after the other, and their lines. */
interface Run {
  readonly servers: readonly Server[];
  readonly bytes: Buffer;
}

/** A run of servers ends before one in so many, whoever stands around it: a change is a matter of its own run. */
const RUN_LENGTH = 32;

/** What has been rendered of a backend last, run by run. Runs of servers that have not changed are the same bytes. */
function renderServers(servers: readonly Server[], slot: Slot): readonly Buffer[] {
  const last = backends.get(slot);
  if (last?.servers === servers) return last.parts;
  const runs = new Map<Server, Run>();
  for (let start = 0; start < servers.length;) {
    let end = start + 1;
    while (end < servers.length && (servers[end]?.id ?? 0) % RUN_LENGTH !== 0) end += 1;
    const first = servers[start] as Server;
    const known = last?.runs.get(first);
    runs.set(
      first,
      known !== undefined && isRun(known, servers, start, end)
        ? known
        : renderRun(servers.slice(start, end), slot),
    );
    start = end;
  }
  const parts = [...runs.values()].map(({ bytes }) => bytes);
  backends.set(slot, { servers, runs, parts });
  return parts;
}

function isRun(run: Run, servers: readonly Server[], start: number, end: number): boolean {
  return (
    run.servers.length === end - start &&
    run.servers.every((server, index) => server === servers[start + index])
  );
}

/** Server lines are ASCII, names and all. */
function renderRun(servers: readonly Server[], slot: Slot): Run {
  const [start, toAddress, toArguments, end] = slot.between;
  let text = '';
  for (const server of servers) {
    const { name, address, arguments: args } = serverView(server, slot.serverOptions);
    text += start + name + toAddress + address + toArguments + args + end;
  }
  return { servers, bytes: Buffer.from(text, 'latin1') };
}

interface ServerView {
  readonly name: string;
  readonly address: string;
  readonly arguments: string;
}

/** A server that is held is out of rotation in a HAProxy that starts, too: there it begins in maintenance. */
function serverView(server: Server, serverOptions: string): ServerView {
  const args = serverArguments(server, serverOptions);
  return {
    name: server.name,
    address: serverAddress(server),
    arguments: server.state === 'ready' ? args : `${args} disabled`,
  };
}

function view(
  structure: Structure,
  serversOf: (backend: string, serverOptions: string) => readonly ServerView[],
  description: string,
): object {
  const { proxies, ...rest } = viewStructure(structure);
  return {
    ...rest,
    description,
    proxies: proxies.map(({ serverOptions, ...proxy }) => ({
      ...proxy,
      servers: serversOf(proxy.name, serverOptions),
    })),
  };
}
