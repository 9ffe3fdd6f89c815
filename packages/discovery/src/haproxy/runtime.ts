import net from 'node:net';

import { messageOf, TandemError, withDeadline } from '@tandem/core';

import {
  canonicalAddress,
  checksOf,
  type ReportedServer,
  serverAddress,
  serverArguments,
} from './membership.ts';
import type { Step } from './plan.ts';

/** What a running HAProxy says of itself. */
export interface Running {
  /** Changes with every new worker. */
  readonly incarnation: string;
  readonly version: string;
  /** Its `description`: which structure it has loaded. */
  readonly mark: string;
  readonly backends: ReadonlyMap<string, ReadonlyMap<string, ReportedServer>>;
}

export type RunningIdentity = Omit<Running, 'backends'>;

const DEADLINE_MS = 5_000;
/** Requests beyond tune.bufsize crash HAProxy 2.6 and 2.8 (HAProxy reference 1.4). */
const MAX_COMMAND_BYTES = 12 * 1024;
const ADDED = 'New server registered.';
/** srv_admin_state: forced or inherited maintenance, forced or inherited drain. 4, disabled in the file, is only a note. */
const OUT_OF_ROTATION = 1 | 2 | 8 | 16;

/** The first version whose runtime API can add servers without experimental mode (HAProxy reference 1.1). */
const OLDEST = { major: 2, minor: 6 };

/** Throws `HAPROXY_TOO_OLD` for a version such as `2.4.22` that Tandem cannot drive. */
export function requireSupported(version: string): void {
  const match = /^(\d+)\.(\d+)/.exec(version);
  const [major, minor] = [Number(match?.[1]), Number(match?.[2])];
  if (major > OLDEST.major || (major === OLDEST.major && minor >= OLDEST.minor)) return;
  throw new TandemError(
    'HAPROXY_TOO_OLD',
    `HAProxy ${version} cannot add servers at run time. Install ${OLDEST.major}.${OLDEST.minor} or later, or set haproxy.binary`,
  );
}

/** Who is running. One connection of about 0.1 ms. */
export async function readIdentity(socket: string, signal?: AbortSignal): Promise<RunningIdentity> {
  const [info = ''] = await converse(socket, ['show info'], signal);
  return parseInfo(info);
}

/** Who is running, with every server. */
export async function readRunning(socket: string, signal?: AbortSignal): Promise<Running> {
  const [info = '', servers = ''] = await converse(socket, ['show info', 'show servers state'], signal);
  return { ...parseInfo(info), backends: parseServers(servers) };
}

/** What became of a batch: everything taken, taken by another worker than expected, or refused in part. */
export type Executed =
  | { readonly kind: 'done' }
  | { readonly kind: 'other-worker' }
  | { readonly kind: 'refused'; readonly replies: readonly string[] };

/**
 * Executes the steps; none is drained unless everything before was taken, lest a backend runs empty.
 * Rejects with `HAPROXY_UNREACHABLE`.
 */
export async function executeSteps(
  socket: string,
  steps: readonly Step[],
  expected: RunningIdentity,
  signal?: AbortSignal,
): Promise<Executed> {
  const gains = steps.filter((step) => step.kind !== 'drain');
  const drains = steps.filter((step) => step.kind === 'drain');
  const batches = [gains, drains].filter((batch) => batch.length > 0);
  let executed: Executed = { kind: 'done' };
  for (const batch of batches) {
    if (executed.kind === 'done') executed = await executeBatch(socket, batch, expected, signal);
  }
  return executed;
}

/**
 * Sends steps over one connection. A connection stays with the worker that accepted it, also after a reload, and
 * changes made there would be lost; so it is short, and its first answer says which worker it was.
 */
async function executeBatch(
  socket: string,
  steps: readonly Step[],
  expected: RunningIdentity,
  signal: AbortSignal | undefined,
): Promise<Executed> {
  const commands = steps.flatMap(commandsOf);
  const lines = commands.map(({ line }) => line);
  const replies = await askWorker(socket, lines, expected, signal);
  if (replies === undefined) return { kind: 'other-worker' };
  const refused = replies.filter((reply, index) => reply.trim() !== commands[index]?.expected);
  return refused.length === 0
    ? { kind: 'done' }
    : { kind: 'refused', replies: refused.slice(0, 5).map((reply) => reply.trim()) };
}

/** One short conversation with the worker that is meant; undefined when it was another one. */
export async function askWorker(
  socket: string,
  commands: readonly string[],
  expected: RunningIdentity,
  signal?: AbortSignal,
): Promise<string[] | undefined> {
  const [info = '', ...replies] = await converse(socket, ['show info', ...commands], signal);
  return parseInfo(info).incarnation === expected.incarnation ? replies : undefined;
}

interface Command {
  readonly line: string;
  /** HAProxy answers an empty line for success; anything else is a refusal. */
  readonly expected: string;
}

/** Names and addresses in steps are validated words (membership.ts), so no step can become two commands. */
function commandsOf(step: Step): Command[] {
  const silent = (line: string): Command => ({ line, expected: '' });
  switch (step.kind) {
    case 'add': {
      const { backend, server, serverOptions } = step;
      const id = `${backend}/${server.name}`;
      const add = {
        line: `add server ${id} ${serverAddress(server)} ${serverArguments(server, serverOptions)}`,
        expected: ADDED,
      };
      // A new server starts in maintenance, and its checks start only when told to.
      const checks = checksOf(serverOptions).map((kind) => silent(`enable ${kind} ${id}`));
      return [add, ...checks, silent(`set server ${id} state ready`)];
    }
    case 'ready':
      return [silent(`set server ${step.backend}/${step.server} state ready`)];
    case 'weight':
      return [silent(`set server ${step.backend}/${step.server} weight ${step.weight}`)];
    case 'drain':
      return [silent(`set server ${step.backend}/${step.server} state drain`)];
  }
}

/**
 * Pipelines commands in prompt mode, the only transport without ambiguous answers (HAProxy reference 2): each answer
 * ends at the next prompt. Rejects with `HAPROXY_UNREACHABLE`.
 */
export async function converse(
  socket: string,
  commands: readonly string[],
  signal?: AbortSignal,
): Promise<string[]> {
  for (const command of commands) {
    if (Buffer.byteLength(command) > MAX_COMMAND_BYTES || /[\n\r;<\\]/.test(command)) {
      throw new TandemError('HAPROXY_UNREACHABLE', 'a runtime command is too long or not one line', {
        details: { command: command.slice(0, 80) },
      });
    }
  }
  let output: string;
  try {
    output = await withDeadline(signal, DEADLINE_MS, (inner) =>
      exchange(socket, `prompt\n${commands.join('\n')}\nquit\n`, inner),
    );
  } catch (error) {
    if (signal?.aborted === true) throw error;
    throw new TandemError(
      'HAPROXY_UNREACHABLE',
      `the runtime socket ${socket} does not answer: ${messageOf(error)}`,
      { cause: error },
    );
  }
  const answers = output.split('\n> ');
  // One empty answer for `prompt` itself, and what follows the last prompt.
  if (answers.length !== commands.length + 2) {
    throw new TandemError(
      'HAPROXY_UNREACHABLE',
      `the runtime socket ${socket} closed before it had answered everything`,
    );
  }
  return answers.slice(1, -1);
}

/** Writes a text, and resolves with everything that comes until the other side closes. */
export function exchange(socket: string, text: string, signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    const connection = net.connect(socket);
    const chunks: Buffer[] = [];
    const onAbort = () => connection.destroy(signal.reason as Error);
    signal.addEventListener('abort', onAbort, { once: true });
    connection.on('data', (chunk) => chunks.push(chunk));
    connection.once('error', reject);
    connection.once('close', () => {
      signal.removeEventListener('abort', onAbort);
      resolve(Buffer.concat(chunks).toString('utf8'));
    });
    connection.write(text);
  });
}

function parseInfo(text: string): RunningIdentity {
  const fields = new Map<string, string>();
  for (const line of text.split('\n')) {
    const colon = line.indexOf(': ');
    if (colon > 0) fields.set(line.slice(0, colon), line.slice(colon + 2));
  }
  const pid = fields.get('Pid');
  const stopping = fields.get('Stopping');
  if (pid === undefined || stopping !== '0') {
    throw new TandemError('HAPROXY_UNREACHABLE', 'HAProxy is on its way out or does not say who it is');
  }
  return {
    incarnation: `${pid}:${fields.get('Start_time_sec') ?? ''}`,
    version: fields.get('Version') ?? '',
    mark: fields.get('description') ?? '',
  };
}

/** Format 1: `be_id be_name srv_id srv_name srv_addr op_state admin_state uweight … srv_port(18) …` */
function parseServers(text: string): Map<string, Map<string, ReportedServer>> {
  const backends = new Map<string, Map<string, ReportedServer>>();
  for (const line of text.split('\n')) {
    const fields = line.split(' ');
    const [beId = '', backend, id, name, address] = fields;
    if (!/^\d+$/.test(beId) || backend === undefined || name === undefined || address === undefined) continue;
    if (fields.length < 19) continue;
    const server: ReportedServer = {
      name,
      id: Number(id),
      address: canonicalAddress(address) ?? address,
      port: Number(fields[18]),
      weight: Number(fields[7]),
      inRotation: (Number(fields[6]) & OUT_OF_ROTATION) === 0,
    };
    const servers = backends.get(backend) ?? new Map<string, ReportedServer>();
    backends.set(backend, servers.set(name, server));
  }
  return backends;
}

/** The pid of the master behind a master socket. Rejects when none answers. */
export async function readMasterPid(masterSocket: string, signal?: AbortSignal): Promise<number> {
  const answer = await askMaster(masterSocket, 'show proc', signal);
  const pid = /^(\d+)\s+master\s/m.exec(answer)?.[1];
  if (pid === undefined)
    throw new TandemError('HAPROXY_UNREACHABLE', `no HAProxy master answers on ${masterSocket}`);
  return Number(pid);
}

const MASTER_DEADLINE_MS = 2_000;

/** Sends one command to the master. Its socket refuses for a moment while the master re-executes itself. */
export function askMaster(masterSocket: string, command: string, signal?: AbortSignal): Promise<string> {
  return withDeadline(signal, MASTER_DEADLINE_MS, (inner) =>
    exchange(masterSocket, `${command}\nquit\n`, inner),
  );
}
