import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';

import {
  acquireProcessLock,
  type ConfigProblem,
  createLatest,
  createLog,
  formatProblem,
  type Log,
  messageOf,
  systemErrorCode,
  TandemError,
  watchDirectories,
} from '@tandem/core';

import { hostProblems } from './host-problems.ts';
import { createServiceFiles, type Services } from './service-files.ts';
import { createServiceMemory } from './service-memory.ts';
import { type HostSettings, loadHostSettings } from './settings.ts';

/** How a daemon is asked to end: for good, or leaving everything to a successor. */
export type Ending = 'stop' | 'hand-over';

/** What a daemon gets to work with. */
export interface DaemonContext {
  readonly settings: HostSettings;
  readonly log: Log;
  /** Aborted when the daemon shall end; the reason for it is `ending()`. */
  readonly signal: AbortSignal;
  readonly ending: () => Ending;
  /**
   * Calls back with the service files now, and whenever they change or SIGHUP comes; never while nothing is known of
   * them. Resolves when they were looked at for the first time.
   */
  readonly followServices: (apply: (services: Services) => void) => Promise<FollowedServices>;
}

export interface FollowedServices {
  /** Resolves at the first call, or when the daemon shall end. */
  readonly known: Promise<void>;
}

/** The mistakes of a configuration, as one error. */
export function invalidConfig(problems: readonly ConfigProblem[]): TandemError {
  return new TandemError('CONFIG_INVALID', problems.map(formatProblem).join('\n'));
}

/** Loads the configuration, takes the daemon's lock, and runs it until a signal ends it. */
export async function runDaemon(
  name: 'registrar' | 'discovery',
  configFile: string,
  run: (context: DaemonContext) => Promise<void>,
): Promise<void> {
  const loaded = await loadHostSettings(path.resolve(configFile));
  if (!loaded.ok) throw invalidConfig(loaded.problems);
  const settings = loaded.value;
  const problems = await hostProblems(settings);
  if (problems.length > 0) throw invalidConfig(problems);
  const log = createLog({ level: settings.log.level, name });
  await makeDirectory(settings.stateDir, 'state_dir');
  const lock = await acquireProcessLock(
    path.join(settings.stateDir, `${name}.lock`),
    `the ${name} of this state_dir`,
  );
  const { signal, ending, onHangup, dispose } = listenForSignals(log);
  try {
    log.info({ configFile: settings.file, node: process.version }, 'starting');
    await run({
      settings,
      log,
      signal,
      ending,
      followServices: (apply) => followServices({ name, settings, log, signal, onHangup, apply }),
    });
    log.info({ ending: ending() }, 'stopped');
  } finally {
    dispose();
    await lock.release();
  }
}

export async function makeDirectory(directory: string, setting: string): Promise<void> {
  try {
    await mkdir(directory, { recursive: true, mode: 0o750 });
  } catch (error) {
    const reason = systemErrorCode(error) === 'EACCES' ? 'permission denied' : messageOf(error);
    throw new TandemError(
      'FILE_WRITE_FAILED',
      `cannot create ${directory}: ${reason}. Create it for this user, or set ${setting}`,
      { cause: error },
    );
  }
}

async function followServices(options: {
  name: string;
  settings: HostSettings;
  log: Log;
  signal: AbortSignal;
  onHangup: (listener: () => void) => void;
  apply: (services: Services) => void;
}): Promise<FollowedServices> {
  const { name, settings, log, signal, onHangup, apply } = options;
  const memory = createServiceMemory(path.join(settings.stateDir, `${name}-services.json`), log);
  const files = createServiceFiles(settings, memory);
  let becomeKnown = () => {};
  const known = new Promise<void>((resolve) => {
    becomeKnown = resolve;
    signal.addEventListener('abort', () => resolve(), { once: true });
    if (signal.aborted) resolve();
  });
  const reasons = createLatest<true>(signal);
  let said = '';
  const reload = async (): Promise<void> => {
    const services = await files.load();
    const text = JSON.stringify(services.problems);
    if (text !== said) {
      for (const problem of services.problems) log.error({ ...problem }, 'set a service file aside');
      if (!services.isKnown) log.warn({}, 'nothing is known of the services, leaving everything as it is');
    }
    said = text;
    // An outage of the directory is no reason to tear down what an earlier life has left.
    if (!services.isKnown) return;
    apply(services);
    becomeKnown();
    await files.remember();
  };
  // Watching begins before reading, so that a change in between is not missed.
  onHangup(() => {
    reasons.set(true);
    void reviewHostFile(settings, log).catch((error: unknown) => {
      log.error({ err: messageOf(error) }, 'cannot look at the host file');
    });
  });
  void forEach(watchDirectories([settings.servicesDir], { signal }), () => reasons.set(true), log);
  await reload();
  void forEach(reasons, reload, log);
  return { known };
}

/**
 * Says what the host file means by now. Its settings stay those of the start: a restart takes new ones, and costs
 * nobody a request.
 */
async function reviewHostFile(settings: HostSettings, log: Log): Promise<void> {
  const loaded = await loadHostSettings(settings.file);
  const problems = loaded.ok ? await hostProblems(loaded.value) : loaded.problems;
  for (const problem of problems)
    log.error({ ...problem }, 'a mistake in the host file, going on with the settings of the start');
  if (loaded.ok && problems.length === 0 && !isDeepStrictEqual(loaded.value, settings))
    log.warn({ file: settings.file }, 'the host file has changed, a restart of the daemon will take it');
}

/** Takes every value; a failure costs that value only, and is logged. */
async function forEach<T>(
  values: AsyncIterable<T>,
  take: (value: T) => void | Promise<void>,
  log: Log,
): Promise<void> {
  for await (const value of values) {
    try {
      await take(value);
    } catch (error) {
      log.error({ err: messageOf(error) }, 'cannot follow the service files');
    }
  }
}

function listenForSignals(log: Log) {
  const controller = new AbortController();
  let ending: Ending = 'stop';
  const end = (signal: NodeJS.Signals) => {
    // SIGUSR2 is how an upgrade says that a successor takes over.
    ending = signal === 'SIGUSR2' ? 'hand-over' : 'stop';
    log.info({ signal }, 'asked to end');
    controller.abort(new Error(signal));
  };
  // Without a listener a lost terminal or a reload by the init system would end the daemon.
  let hungUp = () => {};
  const onSighup = () => hungUp();
  const signals = ['SIGTERM', 'SIGINT', 'SIGUSR2'] as const;
  for (const signal of signals) process.on(signal, end);
  process.on('SIGHUP', onSighup);
  return {
    signal: controller.signal,
    ending: () => ending,
    onHangup: (listener: () => void) => {
      hungUp = listener;
    },
    dispose: () => {
      process.off('SIGHUP', onSighup);
      for (const signal of signals) process.off(signal, end);
    },
  };
}
