import type { Log } from './log.ts';
import { type CommandResult, runCommand } from './run-command.ts';
import { messageOf } from './errors.ts';

/** Who has started this process and wants to hear from it: systemd, or another that speaks its protocol. */
export interface InitSystem {
  /** Where it listens: a path, or an abstract name that begins with `@`. */
  readonly socket: string;
  /** How long it stands silence before it takes the process for dead. */
  readonly watchdogMs?: number;
}

/** What systemd has left for the process with this number in its environment; undefined when nobody wants to hear. */
export function findInitSystem(
  environment: Readonly<Record<string, string | undefined>>,
  pid: number,
): InitSystem | undefined {
  const { NOTIFY_SOCKET: socket = '', WATCHDOG_USEC: limit = '', WATCHDOG_PID: whose } = environment;
  if (!/^[/@]./.test(socket)) return undefined;
  const watchdogMs = Math.floor(Number(limit) / 1_000);
  // A child of the one that is meant must not answer for it.
  const isOurs = whose === undefined || Number(whose) === pid;
  return isOurs && watchdogMs > 0 ? { socket, watchdogMs } : { socket };
}

/**
 * A daemon's words to the init system, in the order in which they were said. Never in the way: they are handed over in
 * the background, a status or a sign of life that nobody has heard yet is replaced by the next one, and an init system
 * that does not listen is logged once.
 */
export interface Notify {
  /** False when nobody wants to hear: then nothing of this has any effect. */
  readonly isHeard: boolean;
  /** The daemon does its work; also after `reloading`. */
  ready(): void;
  /** The daemon takes another configuration; `ready` follows. */
  reloading(): void;
  /** The daemon ends, which may take that long. */
  stopping(limitMs: number): void;
  /** A line for people. Said again only when it is another one, and not more often than every few seconds. */
  status(line: string): void;
  /** The daemon makes progress. To be called as long as that is so; passed on as often as the watchdog needs. */
  alive(): void;
  /** Resolves when everything that was said has been handed over, or could not be. Nothing is said afterwards. */
  close(): Promise<void>;
}

export interface NotifyDeps {
  readonly log: Log;
  /** Milliseconds that only ever grow. */
  readonly now?: () => number;
  /** Microseconds of the clock that systemd compares with. */
  readonly monotonicUsec?: () => bigint;
  readonly run?: typeof runCommand;
  /** How long `close` waits for words that are not taken. */
  readonly closeLimitMs?: number;
}

const STATUS_EVERY_MS = 2_000;
/** systemd-notify itself gives up after five seconds of an init system that is too busy. */
const SEND_LIMIT_MS = 10_000;
const CLOSE_LIMIT_MS = 6_000;
/** How far from each other calls of `alive` may be for half the limit of the watchdog to be kept. */
const ALIVE_SLACK_MS = 1_000;
const MAX_STATUS_LENGTH = 200;

/** Says nothing: nobody wants to hear. */
const SILENT: Notify = {
  isHeard: false,
  ready() {},
  reloading() {},
  stopping() {},
  status() {},
  alive() {},
  close: () => Promise.resolve(),
};

/** One word, with what kind it is when a later one of its kind replaces it. */
interface Word {
  readonly lines: readonly string[];
  readonly replaces?: 'status' | 'alive';
}

/**
 * Node.js has no datagrams over unix sockets, so `systemd-notify` carries the words. As another process than the daemon:
 * the unit needs `NotifyAccess=all`.
 */
export function createNotify(init: InitSystem | undefined, deps: NotifyDeps): Notify {
  if (init === undefined) return SILENT;
  const { now = () => performance.now(), monotonicUsec = () => process.hrtime.bigint() / 1_000n } = deps;
  const { watchdogMs } = init;
  const mouth = createMouth(init.socket, deps);
  let status = { wanted: '', said: '', at: -Infinity };
  let aliveAt = -Infinity;
  let timer: NodeJS.Timeout | undefined;

  function sayStatus(): void {
    timer = undefined;
    if (status.wanted === status.said) return;
    status = { ...status, said: status.wanted, at: now() };
    mouth.say({ lines: [`STATUS=${status.said}`], replaces: 'status' });
  }

  return {
    isHeard: true,
    ready: () => mouth.say({ lines: ['READY=1'] }),
    reloading: () => mouth.say({ lines: ['RELOADING=1', `MONOTONIC_USEC=${monotonicUsec()}`] }),
    stopping: (limitMs) =>
      mouth.say({ lines: ['STOPPING=1', `EXTEND_TIMEOUT_USEC=${Math.ceil(limitMs * 1_000)}`] }),
    status(line) {
      status = { ...status, wanted: oneLine(line) };
      timer ??= setTimeout(sayStatus, Math.max(0, status.at + STATUS_EVERY_MS - now()));
    },
    alive() {
      if (watchdogMs === undefined || now() - aliveAt < watchdogMs / 2 - ALIVE_SLACK_MS) return;
      aliveAt = now();
      mouth.say({ lines: ['WATCHDOG=1'], replaces: 'alive' });
    },
    close() {
      clearTimeout(timer);
      return mouth.close();
    },
  };
}

function oneLine(text: string): string {
  return text.replace(/\p{Cc}+/gu, ' ').slice(0, MAX_STATUS_LENGTH);
}

/** Hands words over, one after the other. */
function createMouth(
  socket: string,
  { log, run = runCommand, closeLimitMs = CLOSE_LIMIT_MS }: NotifyDeps,
): { say(word: Word): void; close(): Promise<void> } {
  const waiting: Word[] = [];
  const controller = new AbortController();
  const { signal } = controller;
  let talking: Promise<void> | undefined;
  let isClosed = false;
  let isFailing = false;

  async function talk(): Promise<void> {
    for (let word = waiting.shift(); word !== undefined; word = waiting.shift()) {
      const reason = await handOver(word);
      if (reason !== undefined && !isFailing) log.warn({ socket, reason }, 'cannot reach the init system');
      isFailing = reason !== undefined;
    }
    talking = undefined;
  }

  /** Undefined when it was heard, else why not. */
  async function handOver({ lines }: Word): Promise<string | undefined> {
    try {
      const env = { NOTIFY_SOCKET: socket };
      return complaintOf(await run(['systemd-notify', ...lines], { signal, timeoutMs: SEND_LIMIT_MS, env }));
    } catch (error) {
      return messageOf(error);
    }
  }

  return {
    say(word) {
      if (isClosed) return;
      const at = waiting.findIndex(({ replaces }) => replaces !== undefined && replaces === word.replaces);
      if (at >= 0) waiting.splice(at, 1);
      waiting.push(word);
      talking ??= talk();
    },
    async close() {
      isClosed = true;
      // What ends must not be kept by an init system that does not listen.
      const timer = setTimeout(() => controller.abort(new Error('it does not answer')), closeLimitMs);
      await talking;
      clearTimeout(timer);
    },
  };
}

function complaintOf(result: CommandResult): string | undefined {
  switch (result.kind) {
    case 'exited':
      return result.code === 0 ? undefined : result.output.trim() || `exit status ${result.code}`;
    case 'killed':
      return `systemd-notify was killed by ${result.signal}`;
    case 'timed-out':
      return 'it does not answer';
    case 'not-started':
      return `cannot start systemd-notify: ${messageOf(result.cause)}`;
  }
}
