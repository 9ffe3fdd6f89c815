import { type Log, messageOf, runCommand, sleep, TandemError } from '@tandem/core';

import type { HaproxyConfig, ReloadRequest } from '../config/haproxy.ts';
import { type Binary, createBinary } from './binary.ts';
import { reloadByMaster } from './master.ts';
import { alertsOf } from './output-file.ts';
import type { HaproxyProcess, ReloadAnswer } from './process.ts';
import { readIdentity, readMasterPid } from './runtime.ts';

const OUR_MARK = 'tandem ';
/** How long a HAProxy that has just been asked to load our file for the first time may take to show our socket. */
const INTRODUCTION_MS = 5_000;
const POLL_MS = 50;

/**
 * Somebody else's HAProxy, such as systemd's. This daemon writes its file, checks it, and asks its owner to load it;
 * whether HAProxy runs is the owner's business.
 */
export function createExternalProcess(config: HaproxyConfig, { log }: { log: Log }): HaproxyProcess {
  const { reload } = config;
  // The configuration demands it in this mode.
  if (reload === undefined) throw new TandemError('CONFIG_INVALID', 'external mode needs haproxy.reload');
  return new ExternalProcess(config, reload, log);
}

class ExternalProcess implements HaproxyProcess {
  readonly #config: HaproxyConfig;
  readonly #reload: ReloadRequest;
  readonly #log: Log;
  readonly #binary: Binary;
  #state: 'unknown' | 'introduced' | 'found' | 'absent' = 'unknown';

  constructor(config: HaproxyConfig, reload: ReloadRequest, log: Log) {
    this.#config = config;
    this.#reload = reload;
    this.#log = log;
    this.#binary = createBinary(config.binary);
  }

  check(file: string, signal: AbortSignal): Promise<string | undefined> {
    return this.#binary.check(file, signal);
  }

  async ensure(signal: AbortSignal): Promise<'found' | 'absent'> {
    const before = this.#state;
    const { configFile, runtimeSocket } = this.#config;
    try {
      const { mark, version } = await readIdentity(runtimeSocket, signal);
      this.#state = 'found';
      if (before !== 'found') {
        this.#log.info({ mark, version }, 'found a running HAProxy');
        if (!mark.startsWith(OUR_MARK))
          this.#log.warn({ mark, configFile }, 'HAProxy runs on a file that is not ours, handing it ours');
      }
      return 'found';
    } catch (error) {
      signal.throwIfAborted();
      if (before === 'unknown') {
        this.#state = 'introduced';
        if (await this.#introduce(signal)) return this.ensure(signal);
      }
      this.#state = 'absent';
      if (before !== 'absent') {
        this.#log.warn(
          { runtimeSocket, err: messageOf(error), remedy: `let its owner start it with -f ${configFile}` },
          'HAProxy does not answer: its file is kept current, and it is looked after as soon as it appears',
        );
      }
      return 'absent';
    }
  }

  /**
   * A HAProxy that still runs on what its owner gave it before has no runtime socket of ours. It is asked, once in a
   * daemon's life, to load the file that lies ready.
   */
  async #introduce(signal: AbortSignal): Promise<boolean> {
    try {
      if (this.#reload.kind === 'master-socket') await readMasterPid(this.#reload.path, signal);
      const answer = await this.requestReload(signal);
      if (answer.kind === 'refused') {
        this.#log.info(
          { output: alertsOf(answer.output) },
          'HAProxy does not run, or does not take the file',
        );
        return false;
      }
      const giveUpAt = performance.now() + INTRODUCTION_MS;
      while (performance.now() < giveUpAt) {
        if (await isAnswering(this.#config.runtimeSocket, signal)) return true;
        await sleep(POLL_MS, signal);
      }
    } catch (error) {
      signal.throwIfAborted();
      this.#log.info({ err: messageOf(error) }, 'nobody takes a request for a reload');
    }
    return false;
  }

  /** Somebody else's may be started again at any moment. */
  isRunning(): boolean {
    return true;
  }

  async requestReload(signal: AbortSignal): Promise<ReloadAnswer> {
    const { reloadDeadlineMs } = this.#config;
    switch (this.#reload.kind) {
      case 'master-socket':
        return this.#explain(
          await reloadByMaster(this.#reload.path, {
            signal,
            deadlineMs: reloadDeadlineMs,
            isAlive: () => true,
          }),
        );
      case 'command':
        return runReloadCommand(this.#reload.argv, { signal, timeoutMs: reloadDeadlineMs });
    }
  }

  async #explain(answer: ReloadAnswer): Promise<ReloadAnswer> {
    if (answer.kind === 'taken' || answer.output !== '') return answer;
    return { kind: 'refused', output: `the master could not load it. ${await this.complaint()}` };
  }

  /** What it says goes to its owner; from 2.7 on a master tells it with its answer, too. */
  complaint(): Promise<string> {
    return Promise.resolve(
      `See its own log, and whether its owner starts it with -f ${this.#config.configFile}`,
    );
  }

  stop(): Promise<void> {
    return Promise.resolve();
  }

  tidy(): Promise<void> {
    return Promise.resolve();
  }
}

async function isAnswering(socket: string, signal: AbortSignal): Promise<boolean> {
  try {
    await readIdentity(socket, signal);
    return true;
  } catch {
    signal.throwIfAborted();
    return false;
  }
}

/** However the command ends, short of success, nothing was loaded on its account. */
async function runReloadCommand(
  argv: readonly string[],
  options: { signal: AbortSignal; timeoutMs: number },
): Promise<ReloadAnswer> {
  const result = await runCommand(argv, options);
  const name = `"${argv.join(' ')}"`;
  const said = result.output.trim() === '' ? '' : `: ${result.output.trim()}`;
  switch (result.kind) {
    case 'exited':
      return result.code === 0
        ? { kind: 'taken' }
        : { kind: 'refused', output: `${name} ended with ${result.code}${said}` };
    case 'timed-out':
      return { kind: 'refused', output: `${name} did not end within ${options.timeoutMs} ms${said}` };
    case 'killed':
      return { kind: 'refused', output: `${name} was ended by ${result.signal}${said}` };
    case 'not-started':
      return { kind: 'refused', output: `${name} cannot be started: ${messageOf(result.cause)}` };
  }
}
