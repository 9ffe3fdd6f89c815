import { duration, MAX_SOCKET_PATH, Port, SafeName, SocketPath } from '@tandem/core';
import * as z from 'zod';

import { ConfigLine, DefaultsLine, Listen, OptionWords } from './lines.ts';

/** Lines of the global section that would take from under Tandem what it stands on. */
const RESERVED = /^\s*(?:no\s+)?(description|daemon|master-worker|nbproc)\b/;
const GlobalLine = ConfigLine.refine(
  (line) => !RESERVED.test(line),
  'must not set description, daemon, master-worker or nbproc: Tandem does',
);

const MASTER_SUFFIX = '-master';

/** How somebody else's HAProxy is told to load its file again. */
export type ReloadRequest =
  | { readonly kind: 'master-socket'; readonly path: string }
  | { readonly kind: 'command'; readonly argv: readonly string[] };

const ReloadSection = z
  .strictObject({
    command: z
      .array(z.string().min(1))
      .min(1)
      .optional()
      .describe('a program and its arguments, such as [systemctl, reload, haproxy]'),
    master_socket: SocketPath().optional().describe("the master's socket (haproxy -W -S PATH)"),
  })
  .transform(({ command, master_socket: master }, context): ReloadRequest => {
    if (command !== undefined && master === undefined) return { kind: 'command', argv: command };
    if (master !== undefined && command === undefined) return { kind: 'master-socket', path: master };
    context.addIssue({ code: 'custom', message: 'must have either command or master_socket' });
    return z.NEVER;
  });

/** A frontend that several services share, told apart by the host that a request names. */
export const SharedFrontendSection = z
  .strictObject({
    listen: z.union([Listen.transform((listen) => [listen]), z.array(Listen).min(1)]),
    bind_options: OptionWords.default('').describe('such as: ssl crt /etc/tandem/web.pem alpn h2,http/1.1'),
    lines: z.array(ConfigLine).default([]).describe('lines added to the frontend'),
  })
  .transform(({ listen, bind_options: bindOptions, lines }) => ({ listen, bindOptions, lines }));

const PortSpan = z
  .string()
  .regex(/^\d{1,5}-\d{1,5}$/, 'must be a range of ports, such as 21000-21099')
  .transform((text, context): { first: number; last: number } => {
    const [first = 0, last = 0] = text.split('-').map(Number);
    if (
      Port.safeParse(first).success &&
      Port.safeParse(last).success &&
      first <= last &&
      last - first < 4_096
    )
      return { first, last };
    context.addIssue({ code: 'custom', message: 'must be at most 4096 ports from 1 to 65535, lowest first' });
    return z.NEVER;
  });

/** Ports that HAProxy listens on beforehand, and backends that wait for services: they go live without a reload. */
export const PortRangeSection = z
  .strictObject({
    address: z.enum(['127.0.0.1', '*', '::1']).default('127.0.0.1').describe('where all of them listen'),
    http: PortSpan.optional(),
    tcp: PortSpan.optional(),
    spares: z.number().int().min(1).max(1_000).default(32).describe('backends of each mode that wait'),
    balance: z.enum(['roundrobin', 'leastconn', 'random', 'first']).default('roundrobin'),
  })
  .refine(({ http, tcp }) => http !== undefined || tcp !== undefined, 'needs http or tcp ports')
  .refine(
    ({ http, tcp }) =>
      http === undefined || tcp === undefined || http.last < tcp.first || tcp.last < http.first,
    'must not have a port in both ranges',
  );

/** `haproxy` of the host file. Relative paths are relative to that file. */
export const HaproxySection = z
  .strictObject({
    mode: z
      .enum(['managed', 'external'])
      .default('managed')
      .describe('managed: Tandem runs HAProxy as its child; external: systemd or another owner runs it'),
    binary: z.string().min(1).default('haproxy'),
    reload: ReloadSection.optional().describe('external mode only: how its owner is asked for a reload'),
    config_file: z.string().min(1).default('/run/tandem/haproxy.cfg'),
    runtime_socket: SocketPath(MAX_SOCKET_PATH - MASTER_SUFFIX.length).default('/run/tandem/haproxy.sock'),
    socket_group: SafeName.optional().describe("group of the runtime socket; default: the daemon's own"),
    master_socket: SocketPath()
      .optional()
      .describe('default: the runtime socket with -master before its ending'),
    on_exit: z
      .enum(['keep', 'stop'])
      .default('keep')
      .describe(
        'what becomes of HAProxy when the daemon ends: keep it for the next one, or stop it gracefully',
      ),
    reload_deadline: duration({ minMs: 1_000, maxMs: 600_000 }).prefault('10s'),
    foreign_holds: z
      .enum(['undo', 'respect'])
      .default('undo')
      .describe('servers that somebody else has put in drain or maintenance: undo it, or respect it'),
    shared_frontends: z.record(SafeName, SharedFrontendSection).default({}),
    port_range: PortRangeSection.optional(),
    global: z.array(GlobalLine).default([]).describe('lines added to the global section'),
    defaults: z.array(DefaultsLine).default([]).describe('lines added to the defaults section'),
    extra_sections: z
      .record(ConfigLine, z.array(ConfigLine))
      .default({})
      .describe('sections of your own, by their title line; never touched by Tandem'),
  })
  .superRefine(checkOwner)
  .superRefine(checkSections)
  .superRefine(checkSharedFrontends)
  .transform((section) => ({
    mode: section.mode,
    binary: section.binary,
    reload: section.reload,
    configFile: section.config_file,
    runtimeSocket: section.runtime_socket,
    socketGroup: section.socket_group,
    masterSocket:
      section.master_socket ?? section.runtime_socket.replace(/(\.[^./]*)?$/, `${MASTER_SUFFIX}$1`),
    onExit: section.on_exit,
    reloadDeadlineMs: section.reload_deadline,
    foreignHolds: section.foreign_holds,
    sharedFrontends: section.shared_frontends,
    portRange: section.port_range,
    global: section.global,
    defaults: section.defaults,
    extraSections: section.extra_sections,
  }));

interface Context {
  addIssue(issue: { code: 'custom'; path: string[]; message: string }): void;
}

interface OwnerKeys {
  readonly mode: 'managed' | 'external';
  readonly reload?: unknown;
  readonly master_socket?: string | undefined;
  readonly on_exit: 'keep' | 'stop';
}

/** A key that the mode gives no effect is a mistake: somebody counts on it. */
function checkOwner(
  { mode, reload, master_socket: master, on_exit: onExit }: OwnerKeys,
  context: Context,
): void {
  const complain = (key: string, message: string) =>
    context.addIssue({ code: 'custom', path: [key], message });
  if (mode === 'managed') {
    if (reload !== undefined)
      complain('reload', 'is for external mode only: in managed mode Tandem asks its own HAProxy');
    return;
  }
  if (reload === undefined)
    complain(
      'reload',
      'is needed in external mode: { command: [systemctl, reload, haproxy] } or { master_socket: PATH }',
    );
  if (master !== undefined)
    complain(
      'master_socket',
      'is for managed mode only: in external mode it is reload: { master_socket: PATH }',
    );
  if (onExit === 'stop')
    complain('on_exit', 'must be keep in external mode: its owner stops HAProxy, Tandem does not');
}

interface RoutingKeys {
  readonly shared_frontends: Readonly<Record<string, SharedFrontendConfig>>;
  readonly port_range?: PortRangeConfig | undefined;
  readonly extra_sections: Readonly<Record<string, unknown>>;
}

/** Sections that would be Tandem's own, or would change what Tandem's own are made of. */
function checkSections(
  { extra_sections: sections, shared_frontends: shared }: RoutingKeys,
  context: Context,
) {
  for (const title of Object.keys(sections)) {
    const [kind = '', name = ''] = title.trim().split(/\s+/);
    const complain = (message: string) =>
      context.addIssue({ code: 'custom', path: ['extra_sections', title], message });
    if (kind === 'global') complain('would be a second global section. Use haproxy.global');
    if (kind === 'defaults') complain('would change the sections of the services. Use haproxy.defaults');
    if (!['frontend', 'backend', 'listen'].includes(kind)) continue;
    if (name.startsWith('tandem-')) complain('must not have a name that starts with tandem-');
    if (kind !== 'backend' && Object.hasOwn(shared, name))
      complain(`has the name of a frontend in haproxy.shared_frontends`);
  }
}

const RESERVED_FRONTEND = /^(tandem-.*|ports-http|ports-tcp)$/;

function checkSharedFrontends(section: RoutingKeys, context: Context): void {
  const { shared_frontends: shared, port_range: range } = section;
  const complain = (path: string[], message: string) => context.addIssue({ code: 'custom', path, message });
  const owners = new Map<string, string>();
  for (const [name, { listen }] of Object.entries(shared)) {
    if (RESERVED_FRONTEND.test(name))
      complain(['shared_frontends', name], 'is a name that Tandem uses itself');
    for (const bind of listen) {
      const owner = owners.get(bind);
      const at = ['shared_frontends', name, 'listen'];
      if (owner !== undefined) complain(at, `${bind} is an address of the frontend ${owner}, too`);
      owners.set(bind, name);
      if (range !== undefined && isInRange(range, bind))
        complain(at, `${bind} is one of the ports of haproxy.port_range`);
    }
  }
}

/** Whatever the address: it is not worth a frontend that works on some of them only. */
function isInRange({ http, tcp }: PortRangeConfig, bind: string): boolean {
  const port = Number(/:(\d+)$/.exec(bind)?.[1]);
  return [http, tcp].some((span) => span !== undefined && port >= span.first && port <= span.last);
}

export type HaproxyConfig = z.output<typeof HaproxySection>;
export type SharedFrontendConfig = z.output<typeof SharedFrontendSection>;
export type PortRangeConfig = z.output<typeof PortRangeSection>;
