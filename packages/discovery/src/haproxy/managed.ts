import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import path from 'node:path';

import { cleanEnvironment, createBackoff, type Log, sleep, systemErrorCode, TandemError } from '@tandem/core';

import type { HaproxyConfig } from '../config/haproxy.ts';
import { type Binary, createBinary, missing } from './binary.ts';
import { identify, isAlive, type ProcessIdentity, sendSignal } from './identity.ts';
import { reloadByMaster } from './master.ts';
import { alertsOf, createOutputFile, type OutputFile } from './output-file.ts';
import type { Owner } from './preflight.ts';
import type { HaproxyProcess, ReloadAnswer } from './process.ts';
import { readMasterPid } from './runtime.ts';

/**
 * A master that re-executes itself for a reload is silent for a moment, and for 2 s after a failed bind (HAProxy
 * reference 2). Starting a second HAProxy then would be worse than waiting.
 */
const UNKNOWN_SILENCE_MS = 300;
const LIVING_SILENCE_MS = 10_000;
const ASK_AGAIN_MS = 1_000;
/** One that lived shorter than this is started again ever more slowly. */
const HEALTHY_LIFE_MS = 10_000;

/** A HAProxy that this daemon starts, detached, and finds again after a restart of its own. */
export function createManagedProcess(
  config: HaproxyConfig,
  deps: { log: Log; onExit: () => void },
): HaproxyProcess {
  return new ManagedProcess(config, deps);
}

class ManagedProcess implements HaproxyProcess {
  readonly #config: HaproxyConfig;
  readonly #log: Log;
  readonly #onExit: () => void;
  readonly #binary: Binary;
  readonly #output: OutputFile;
  readonly #restarts = createBackoff({ baseMs: 200, maxMs: 10_000 });
  #master: ProcessIdentity | undefined;
  #startedAt: number | undefined;
  #isStopping = false;
  /** How much HAProxy had said when it was last started or asked for a reload. */
  #place = 0;

  constructor(config: HaproxyConfig, deps: { log: Log; onExit: () => void }) {
    this.#config = config;
    this.#log = deps.log;
    this.#onExit = deps.onExit;
    this.#binary = createBinary(config.binary, ownUser());
    this.#output = createOutputFile(path.join(path.dirname(config.configFile), 'haproxy.log'), deps.log);
  }

  check(file: string, signal: AbortSignal): Promise<string | undefined> {
    return this.#binary.check(file, signal);
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

  async requestReload(signal: AbortSignal): Promise<ReloadAnswer> {
    const { masterSocket, reloadDeadlineMs } = this.#config;
    this.#place = await this.#output.size();
    const answer = await reloadByMaster(masterSocket, {
      signal,
      deadlineMs: reloadDeadlineMs,
      isAlive: () => this.isRunning(),
    });
    if (answer.kind === 'taken' || answer.output !== '') return answer;
    return { kind: 'refused', output: await this.#output.since(this.#place) };
  }

  async complaint(): Promise<string> {
    return alertsOf(await this.#output.since(this.#place));
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

  tidy(): Promise<void> {
    return this.#output.tidy();
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
    this.#place = await this.#output.size();
    await this.#output.lend(async (output) => {
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
      this.#log.info({ haproxyPid: child.pid, configFile, output: this.#output.path }, 'started HAProxy');
      child.once('exit', (exitCode, signal) => void this.#afterExit(child, { exitCode, signal }));
    });
  }

  async #afterExit(
    { pid }: ChildProcess,
    facts: { exitCode: number | null; signal: string | null },
  ): Promise<void> {
    // One that was replaced has ended because it was told to.
    if (this.#isStopping || pid !== this.#master?.pid) return;
    this.#log.error({ haproxyPid: pid, ...facts, lastWords: await this.complaint() }, 'HAProxy has ended');
    this.#onExit();
  }
}

/** HAProxy is a child of this process; there are no users on some systems. */
function ownUser(): Owner | undefined {
  const [uid, gid] = [process.geteuid?.(), process.getegid?.()];
  return uid === undefined || gid === undefined ? undefined : { uid, gid };
}
