import net from 'node:net';

import { messageOf, TandemError, withDeadline } from '@tandem/core';

import { serverAddress, serverArguments } from './membership.ts';
import { isLoss, type RunningBackends, type Step } from './plan.ts';
import { checksOf } from './server-options.ts';
import { createStateReader } from './server-state.ts';
import { abilitiesOf, MAX_REQUEST_BYTES } from './versions.ts';

/** What a running HAProxy says of itself. */
export interface Running {
  /** Changes with every new worker. */
  readonly incarnation: string;
  readonly version: string;
  /** Its `description`: which structure it has loaded. */
  readonly mark: string;
  readonly backends: RunningBackends;
}

export type RunningIdentity = Omit<Running, 'backends'>;

const DEADLINE_MS = 5_000;
const ADDED = 'New server registered.';
const DELETED = 'Server deleted.';
const STILL_CONNECTED = 'Server still has connections attached to it';

/** Who is running. One connection of about 0.1 ms. */
export async function readIdentity(socket: string, signal?: AbortSignal): Promise<RunningIdentity> {
  const [info = ''] = await converse(socket, ['show info'], signal);
  return parseInfo(info);
}

/** Throws `HAPROXY_TOO_OLD` for a version that Tandem cannot drive. */
export function requireSupported(version: string): void {
  abilitiesOf(version);
}

/**
 * Who is running, with every server. What is as expected costs no memory: it is the expected object itself.
 * Rejects with `HAPROXY_UNREACHABLE`.
 */
export async function readRunning(
  socket: string,
  signal?: AbortSignal,
  expected?: RunningBackends,
): Promise<Running> {
  const reader = createStateReader(expected);
  let info: string | undefined;
  let prompts = 0;
  // The answer to `show info` is small and comes first; the rest, which may be megabytes, is read as it comes.
  let head = Buffer.alloc(0);
  let tail = '';
  await talk(socket, 'prompt\nshow info\nshow servers state\nquit\n', signal, (chunk) => {
    tail = (tail + chunk.toString('latin1', Math.max(0, chunk.length - PROMPT.length))).slice(-PROMPT.length);
    if (info !== undefined) {
      reader.write(chunk);
      return;
    }
    head = Buffer.concat([head, chunk]);
    for (let at = head.indexOf(PROMPT); at >= 0 && info === undefined; at = head.indexOf(PROMPT)) {
      prompts += 1;
      // The first prompt is the answer to `prompt` itself.
      if (prompts === 2) info = head.subarray(0, at).toString('utf8');
      head = head.subarray(at + PROMPT.length);
    }
    if (info !== undefined) reader.write(head);
  });
  if (info === undefined || tail !== PROMPT) throw unfinished(socket);
  return { ...parseInfo(info), backends: reader.end() };
}

/** What became of a batch: everything taken, taken by another worker than expected, or refused in part. */
export type Executed =
  /** `untaken` are those that HAProxy may put off: nothing is wrong. */
  | { readonly kind: 'done'; readonly untaken: readonly Step[] }
  | { readonly kind: 'other-worker' }
  | { readonly kind: 'refused'; readonly replies: readonly string[] };

/**
 * Executes the steps; nothing is taken away unless everything before was taken, lest a backend runs empty.
 * Rejects with `HAPROXY_UNREACHABLE`.
 */
export async function executeSteps(
  socket: string,
  steps: readonly Step[],
  expected: RunningIdentity,
  signal?: AbortSignal,
): Promise<Executed> {
  const untaken: Step[] = [];
  const batches = [steps.filter((step) => !isLoss(step)), steps.filter(isLoss)].flatMap(inBatches);
  for (const batch of batches) {
    const commands = batch.flatMap((step) => commandsOf(step).map((command) => ({ ...command, step })));
    const executed = await executeCommands(socket, commands, expected, signal);
    if (executed.kind !== 'done') return executed;
    for (const index of executed.putOff)
      untaken.push(...commands.slice(index, index + 1).map(({ step }) => step));
  }
  return { kind: 'done', untaken };
}

/** Few enough for one conversation: with ten thousands of servers HAProxy takes half a millisecond for each. */
const MAX_BATCH = 1_000;

function inBatches(steps: readonly Step[]): (readonly Step[])[] {
  return Array.from({ length: Math.ceil(steps.length / MAX_BATCH) }, (_, index) =>
    steps.slice(index * MAX_BATCH, (index + 1) * MAX_BATCH),
  );
}

/** One command, what HAProxy answers when it takes it, and what when it does not yet. */
export interface Command {
  /** A line, or a line that ends in `<<` with the lines that follow it, none of them empty. */
  readonly request: Request;
  /** HAProxy answers an empty line for success; anything else is a refusal. */
  readonly expected: string;
  /** How an answer begins that is no refusal, though nothing was done. */
  readonly putOff?: string;
}

export type Request = string | { readonly line: string; readonly payload: readonly string[] };

export type ExecutedCommands =
  | { readonly kind: 'done'; readonly putOff: readonly number[] }
  | Extract<Executed, { kind: 'other-worker' | 'refused' }>;

/**
 * Sends commands over one connection. A connection stays with the worker that accepted it, also after a reload, and
 * changes made there would be lost; so it is short, and its first answer says which worker it was.
 */
export async function executeCommands(
  socket: string,
  commands: readonly Command[],
  expected: RunningIdentity,
  signal?: AbortSignal,
): Promise<ExecutedCommands> {
  const requests = commands.map(({ request }) => request);
  const replies = await askWorker(socket, requests, expected, signal);
  if (replies === undefined) return { kind: 'other-worker' };
  const refused: string[] = [];
  const putOff: number[] = [];
  for (const [index, command] of commands.entries()) {
    const reply = (replies[index] ?? '').trim();
    if (reply === command.expected) continue;
    if (command.putOff !== undefined && reply.startsWith(command.putOff)) putOff.push(index);
    else refused.push(reply);
  }
  return refused.length === 0 ? { kind: 'done', putOff } : { kind: 'refused', replies: refused.slice(0, 5) };
}

/** One short conversation with the worker that is meant; undefined when it was another one. */
export async function askWorker(
  socket: string,
  requests: readonly Request[],
  expected: RunningIdentity,
  signal?: AbortSignal,
): Promise<string[] | undefined> {
  const [info = '', ...replies] = await converse(socket, ['show info', ...requests], signal);
  return parseInfo(info).incarnation === expected.incarnation ? replies : undefined;
}

/** Names and addresses in steps are validated words (membership.ts), so no step can become two commands. */
function commandsOf(step: Step): Command[] {
  const silent = (request: string): Command => ({ request, expected: '' });
  switch (step.kind) {
    case 'add': {
      const { backend, server, serverOptions, state } = step;
      const id = `${backend}/${server.name}`;
      const request = `add server ${id} ${serverAddress(server)} ${serverArguments(server, serverOptions)}`;
      // A new server starts in maintenance, and its checks start only when told to.
      const checks = checksOf(`${serverOptions} ${server.options}`).map((kind) =>
        silent(`enable ${kind} ${id}`),
      );
      const states = state === 'maint' ? [] : [silent(`set server ${id} state ${state}`)];
      return [{ request, expected: ADDED }, ...checks, ...states];
    }
    case 'weight':
      return [silent(`set server ${step.backend}/${step.server} weight ${step.weight}`)];
    case 'idle':
      return [silent(`set server ${step.backend}/${step.server} weight 0`)];
    case 'ready':
    case 'drain':
    case 'maint':
      return [silent(`set server ${step.backend}/${step.server} state ${step.kind}`)];
    case 'delete': {
      const id = `${step.backend}/${step.server}`;
      return [
        silent(`set server ${id} state maint`),
        { request: `del server ${id}`, expected: DELETED, putOff: STILL_CONNECTED },
      ];
    }
  }
}

const PROMPT = '\n> ';

/**
 * Pipelines commands in prompt mode, the only transport without ambiguous answers (HAProxy reference 2): each answer
 * ends at the next prompt. Rejects with `HAPROXY_UNREACHABLE`.
 */
export async function converse(
  socket: string,
  requests: readonly Request[],
  signal?: AbortSignal,
): Promise<string[]> {
  const chunks: Buffer[] = [];
  const text = `prompt\n${requests.map(written).join('')}quit\n`;
  await talk(socket, text, signal, (chunk) => chunks.push(chunk));
  const answers = Buffer.concat(chunks).toString('utf8').split(PROMPT);
  // One empty answer for `prompt` itself, and what follows the last prompt.
  if (answers.length !== requests.length + 2) throw unfinished(socket);
  return answers.slice(1, -1).map((answer, index) => withoutPayloadPrompts(answer, requests[index] ?? ''));
}

/** A request as it is sent. What could be more than one request, or more than HAProxy can take, is never sent. */
function written(request: Request): string {
  const { line, payload } = typeof request === 'string' ? { line: request, payload: [] } : request;
  const isLine = !/[\n\r;<\\]/.test(line);
  const isPayload = payload.every((entry) => entry !== '' && !/[\n\r\0]/.test(entry));
  const text =
    typeof request === 'string'
      ? `${line}\n`
      : `${line} <<\n${payload.map((entry) => `${entry}\n`).join('')}\n`;
  if (isLine && isPayload && Buffer.byteLength(text) <= MAX_REQUEST_BYTES + 1) return text;
  throw new TandemError('HAPROXY_UNREACHABLE', 'a runtime command is too long or not one line', {
    details: { command: line.slice(0, 80) },
  });
}

/** HAProxy asks for every line of a payload, and for the empty one after it, with a prompt of its own. */
function withoutPayloadPrompts(answer: string, request: Request): string {
  if (typeof request === 'string') return answer;
  const prompts = '+ '.repeat(request.payload.length + 1);
  return answer.startsWith(prompts) ? answer.slice(prompts.length) : answer;
}

function unfinished(socket: string): TandemError {
  return new TandemError(
    'HAPROXY_UNREACHABLE',
    `the runtime socket ${socket} closed before it had answered everything`,
  );
}

async function talk(
  socket: string,
  text: string,
  signal: AbortSignal | undefined,
  onChunk: (chunk: Buffer) => void,
): Promise<void> {
  try {
    await withDeadline(signal, DEADLINE_MS, (inner) => stream(socket, text, inner, onChunk));
  } catch (error) {
    if (signal?.aborted === true) throw error;
    throw new TandemError(
      'HAPROXY_UNREACHABLE',
      `the runtime socket ${socket} does not answer: ${messageOf(error)}`,
      { cause: error },
    );
  }
}

/** Writes a text, and resolves with everything that comes until the other side closes. */
export async function exchange(socket: string, text: string, signal: AbortSignal): Promise<string> {
  const chunks: Buffer[] = [];
  await stream(socket, text, signal, (chunk) => chunks.push(chunk));
  return Buffer.concat(chunks).toString('utf8');
}

/** Writes a text, and hands over whatever comes until the other side closes. */
function stream(
  socket: string,
  text: string,
  signal: AbortSignal,
  onChunk: (chunk: Buffer) => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const connection = net.connect(socket);
    const onAbort = () => connection.destroy(signal.reason as Error);
    signal.addEventListener('abort', onAbort, { once: true });
    connection.on('data', onChunk);
    connection.once('error', reject);
    connection.once('close', () => {
      signal.removeEventListener('abort', onAbort);
      resolve();
    });
    connection.write(text);
  });
}

function parseInfo(text: string): RunningIdentity {
  const field = (name: string) => new RegExp(`^${name}: (.*)$`, 'm').exec(text)?.[1];
  const pid = field('Pid');
  if (pid === undefined || field('Stopping') !== '0') {
    throw new TandemError('HAPROXY_UNREACHABLE', 'HAProxy is on its way out or does not say who it is');
  }
  return {
    incarnation: `${pid}:${field('Start_time_sec') ?? ''}`,
    version: field('Version') ?? '',
    mark: field('description') ?? '',
  };
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
