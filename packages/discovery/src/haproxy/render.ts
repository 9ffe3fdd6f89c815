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

// The template lies beside this code, in the sources, the build and the bundle alike.
const template = Handlebars.create().compile(
  readFileSync(new URL('./templates/haproxy.cfg.hbs', import.meta.url), 'utf8'),
  { noEscape: true, strict: true, knownHelpersOnly: true },
);
const marks = new WeakMap<Structure, string>();

/** The text for a structure and its servers. Deterministic: equal input gives equal bytes. */
export function renderConfig(structure: Structure, membership: Membership): Rendered {
  const mark = markOf(structure);
  return { text: template(view(structure, membership, mark)), mark };
}

/** Changes with everything that needs a reload, and with nothing else. */
export function markOf(structure: Structure): string {
  const mark = marks.get(structure) ?? structureMark(template(view(structure, samples(structure), '')));
  marks.set(structure, mark);
  return mark;
}

/**
 * The text for a structure with one made-up server in every backend. If HAProxy takes it, it takes the structure with
 * whatever servers: a mistake in `server_options` shows before the first instance does.
 */
export function renderSample(structure: Structure): string {
  return renderConfig(structure, samples(structure)).text;
}

const SAMPLE: Server = {
  name: 'sample' as ServerName,
  id: 1,
  address: '127.0.0.1',
  port: 1,
  weight: 1,
};

/** The same server in every backend: how servers are written is structure, which of them there are is not. */
function samples(structure: Structure): Membership {
  return new Map(structure.proxies.map(({ name }) => [name, [SAMPLE]]));
}

function view(structure: Structure, membership: Membership, description: string): object {
  const { proxies, ...rest } = viewStructure(structure);
  return {
    ...rest,
    description,
    proxies: proxies.map((proxy, index) => ({
      ...proxy,
      servers: (membership.get(proxy.name) ?? []).map((server) => ({
        name: server.name,
        address: serverAddress(server),
        arguments: serverArguments(server, structure.proxies[index]?.serverOptions ?? ''),
      })),
    })),
  };
}
