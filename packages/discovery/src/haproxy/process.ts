import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { readFile, stat, truncate } from 'node:fs/promises';
import path from 'node:path';

import { createBackoff, type Log, messageOf, sleep, systemErrorCode, TandemError } from '@tandem/core';

import type { HaproxyConfig } from '../config/haproxy.ts';
import { cleanEnvironment, runCommand } from '../run-command.ts';
import { explainComplaint } from './complaints.ts';
import { askMaster, readMasterPid, requireSupported } from './runtime.ts';

/** HAProxy as a process in master-worker mode. It outlives this daemon and is adopted by the next one. */
export interface HaproxyProcess {
  /** Undefined when HAProxy would take the file, else what it says against it. Throws `HAPROXY_MISSING`. */
  check(file: string, signal: AbortSignal): Promise<string | undefined>;
  /**
   * Makes sure that a master runs and can be asked: finds the one that does, or starts one. One that can no longer be
   * asked, because its sockets were removed, is replaced: it finishes its requests and ends.
   */
  ensure(signal: AbortSignal): Promise<'found' | 'started'>;
  /** False once the master that was found or started is gone. */
  isRunning(): boolean;
  /** Keeps the file that HAProxy writes its output to small. To be called now and then. */
  tidy(): Promise<void>;
  /** Asks the master for a new worker. Proves nothing: look at what then runs. */
  requestReload(signal: AbortSignal): Promise<void>;
  /** Lets requests finish, then ends; at once after `graceMs`. */
  stop(graceMs: number): Promise<void>;
}

const CHECK_DEADLINE_MS = 30_000;
/**
 * While the master re-executes itself for a reload, its socket refuses for 10 to 60 ms, and for 2 s after a failed
 * bind (HAProxy reference 2). Starting a second HAProxy then would be worse than waiting.
 */
const UNKNOWN_SILENCE_MS = 300;
const LIVING_SILENCE_MS = 10_000;
const RELOAD_PATIENCE_MS = 5_000;
const MAX_LOG_BYTES = 4 * 1024 * 1024;
const ASK_AGAIN_MS = 1_000;
/** One that lived shorter than this is started again ever more slowly. */
const HEALTHY_LIFE_MS = 10_000;

/** @param onExit called when a HAProxy that this process has started is gone */
export function createHaproxyProcess(
  config: HaproxyConfig,
  deps: { log: Log; onExit: () => void },
): HaproxyProcess {
  return new ManagedProcess(config, deps);
}

class ManagedProcess implements HaproxyProcess {
  readonly #config: HaproxyConfig;
  readonly #log: Log;
  readonly #onExit: () => void;
  readonly #logFile: string;
  readonly #restarts = createBackoff({ baseMs: 200, maxMs: 10_000 });
  #master: Master | undefined;
  #startedAt: number | undefined;
  #isStopping = false;
  #isSupported = false;

  constructor(config: HaproxyConfig, deps: { log: Log; onExit: () => void }) {
    this.#config = config;
    this.#log = deps.log;
    this.#onExit = deps.onExit;
    this.#logFile = path.join(path.dirname(config.configFile), 'haproxy.log');
  }

  async check(file: string, signal: AbortSignal): Promise<string | undefined> {
    await this.#requireSupported(signal);
    const result = await runCommand([this.#config.binary, '-c', '-f', file], {
      signal,
      timeoutMs: CHECK_DEADLINE_MS,
    });
    switch (result.kind) {
      case 'exited':
        // Exactly 0: an empty file gives 2 and would take every listener away (HAProxy reference 3.3).
        return result.code === 0 ? undefined : alerts(result.output);
      case 'timed-out':
        return 'haproxy -c did not end in time';
      case 'killed':
        return `haproxy -c was ended by ${result.signal}`;
      case 'not-started':
        throw missing(this.#config.binary, result.cause);
    }
  }

  async #requireSupported(signal: AbortSignal): Promise<void> {
    if (this.#isSupported) return;
    const { output } = await runCommand([this.#config.binary, '-v'], {
      signal,
      timeoutMs: CHECK_DEADLINE_MS,
    });
    const version = /version (\S+)/.exec(output)?.[1];
    // A binary that cannot be started is told by the check itself.
    if (version !== undefined) requireSupported(version);
    this.#isSupported = version !== undefined;
  }

  async ensure(signal: AbortSignal): Promise<'found' | 'started'> {
    if (await this.#findMaster(signal)) return 'found';
    const unreachable = this.#master;
    await this.#pace(signal);
    await this.#start();
    if (unreachable !== undefined && isAlive(unreachable)) {
      this.#log.warn({ haproxyPid: unreachable.pid }, 'replaced a HAProxy that could not be asked any more');
      sendSignal(unreachable, 'SIGUSR1');
    }
    return 'started';
  }

  isRunning(): boolean {
    return this.#master !== undefined && isAlive(this.#master);
  }

  async requestReload(signal: AbortSignal): Promise<void> {
    const giveUpAt = performance.now() + RELOAD_PATIENCE_MS;
    for (;;) {
      try {
        await askMaster(this.#config.masterSocket, 'reload', signal);
        return;
      } catch (error) {
        if (signal.aborted || !this.isRunning() || performance.now() > giveUpAt) throw error;
        // The master is re-executing: a signal in this window would be lost, the socket at least refuses.
        await sleep(50, signal);
      }
    }
  }

  async stop(graceMs: number): Promise<void> {
    this.#isStopping = true;
    // A daemon that ends before its first apply has not looked for one yet.
    this.#master ??= await readMasterPid(this.#config.masterSocket).then(identify, () => undefined);
    const master = this.#master;
    if (master === undefined) return;
    const killAt = performance.now() + graceMs;
    let askAt = -Infinity;
    while (isAlive(master)) {
      const now = performance.now();
      if (now > killAt) {
        sendSignal(master, 'SIGTERM');
        return;
      }
      // A master that is just re-executing itself loses signals.
      if (now > askAt) {
        sendSignal(master, 'SIGUSR1');
        askAt = now + ASK_AGAIN_MS;
      }
      await sleep(20);
    }
  }

  /**
   * Whether a master answers; one that refuses for longer than a reload can take is dead. A socket that was removed
   * stays away, whatever its owner does.
   */
  async #findMaster(signal: AbortSignal): Promise<boolean> {
    const { masterSocket, runtimeSocket } = this.#config;
    const startedAt = performance.now();
    for (;;) {
      const answer = await this.#askForMaster(signal);
      const hasSockets = existsSync(masterSocket) && existsSync(runtimeSocket);
      if (answer === 'known' && hasSockets) return true;
      if (this.#master === undefined ? !existsSync(masterSocket) : !isAlive(this.#master)) return false;
      const patienceMs = this.#master !== undefined && hasSockets ? LIVING_SILENCE_MS : UNKNOWN_SILENCE_MS;
      if (performance.now() - startedAt > patienceMs) {
        // It lives, and its listeners would share their ports with those of a second one.
        if (this.#master === undefined && answer === 'silent')
          throw new TandemError('HAPROXY_UNREACHABLE', 'a HAProxy runs that does not answer');
        return false;
      }
      await sleep(20, signal);
    }
  }

  /** One question: the master is known now, or somebody listens and says nothing of use, or nobody listens. */
  async #askForMaster(signal: AbortSignal): Promise<'known' | 'silent' | 'absent'> {
    try {
      const pid = await readMasterPid(this.#config.masterSocket, signal);
      if (this.#master?.pid !== pid) this.#log.info({ haproxyPid: pid }, 'found a running HAProxy');
      this.#master = identify(pid);
      return 'known';
    } catch (error) {
      signal.throwIfAborted();
      const code = systemErrorCode(error);
      return code === 'ENOENT' || code === 'ECONNREFUSED' ? 'absent' : 'silent';
    }
  }

  async #pace(signal: AbortSignal): Promise<void> {
    if (this.#startedAt === undefined) return;
    if (performance.now() - this.#startedAt > HEALTHY_LIFE_MS) this.#restarts.reset();
    else await sleep(this.#restarts.next(), signal);
  }

  async #start(): Promise<void> {
    const { binary, masterSocket, configFile } = this.#config;
    await this.tidy();
    // A file, never a pipe: HAProxy stalls altogether once 64 KB of its output are left unread (reference 7).
    const output = openSync(this.#logFile, 'a', 0o640);
    try {
      const child = spawn(binary, ['-W', '-db', '-S', `${masterSocket},mode,600`, '-f', configFile], {
        detached: true,
        stdio: ['ignore', output, output],
        env: cleanEnvironment(),
      });
      try {
        await once(child, 'spawn');
      } catch (error) {
        throw missing(binary, error);
      }
      child.unref();
      this.#startedAt = performance.now();
      this.#master = child.pid === undefined ? undefined : identify(child.pid);
      this.#log.info({ haproxyPid: child.pid, configFile, output: this.#logFile }, 'started HAProxy');
      child.once('exit', (exitCode, signal) => void this.#afterExit(child, { exitCode, signal }));
    } finally {
      closeSync(output);
    }
  }

  async #afterExit(
    { pid }: ChildProcess,
    facts: { exitCode: number | null; signal: string | null },
  ): Promise<void> {
    // One that was replaced has ended because it was told to.
    if (this.#isStopping || pid !== this.#master?.pid) return;
    const lastWords = (await readFile(this.#logFile, 'utf8').catch(() => '')).slice(-2_000);
    this.#log.error(
      { haproxyPid: pid, ...facts, lastWords: explainComplaint(alerts(lastWords)) },
      'HAProxy has ended',
    );
    this.#onExit();
  }

  async tidy(): Promise<void> {
    try {
      if ((await stat(this.#logFile)).size > MAX_LOG_BYTES) await truncate(this.#logFile);
    } catch (error) {
      if (systemErrorCode(error) !== 'ENOENT')
        this.#log.warn({ err: messageOf(error) }, "cannot trim HAProxy's log");
    }
  }
}

function missing(binary: string, cause: unknown): TandemError {
  return new TandemError(
    'HAPROXY_MISSING',
    `cannot start ${binary}: ${messageOf(cause)}. Install HAProxy 2.6 or later, or set haproxy.binary`,
    { cause },
  );
}

/** The lines that say what is wrong; everything when there is no such line. */
function alerts(output: string): string {
  const lines = output.split('\n').filter((line) => line.includes('[ALERT]'));
  return (lines.length === 0 ? output : lines.join('\n')).trim();
}

/** A process, and what tells it from a later one with the same pid, where /proc can be read. */
interface Master {
  readonly pid: number;
  readonly bornAt: string | undefined;
}

function identify(pid: number): Master {
  return { pid, bornAt: birthOf(pid) };
}

function isAlive({ pid, bornAt }: Master): boolean {
  if (bornAt !== undefined) return birthOf(pid) === bornAt;
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return systemErrorCode(error) === 'EPERM';
  }
}

/** The kernel's start time of a process. A zombie that nobody has reaped yet is dead, though it still takes signals. */
function birthOf(pid: number): string | undefined {
  try {
    // proc(5): the state is the first field after the command in its last parenthesis, the start time the 20th.
    const status = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = status.slice(status.lastIndexOf(')') + 2).split(' ');
    return /^[ZX]/.test(fields[0] ?? '') ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

function sendSignal(master: Master, name: NodeJS.Signals): void {
  try {
    if (isAlive(master)) process.kill(master.pid, name);
  } catch (error) {
    // It has gone by itself in between.
    if (systemErrorCode(error) !== 'ESRCH') throw error;
  }
}
