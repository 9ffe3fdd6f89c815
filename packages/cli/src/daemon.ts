import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';

import {
  acquireProcessLock,
  type ConfigProblem,
  createLatest,
  createLog,
  createNotify,
  findInitSystem,
  formatProblem,
  type InitSystem,
  type Log,
  messageOf,
  type Notify,
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
  /** Aborted when the daemon is asked to end once more, by somebody who does not want to wait. */
  readonly hurry: AbortSignal;
  /** The init system, which may not be there. */
  readonly notify: Notify;
  /** Tells it that the daemon does its work; from then on, also of every SIGHUP. To be called once. */
  readonly becomeReady: () => void;
  /**
   * Calls back with the service files now, and whenever they change or SIGHUP comes; never while nothing is known of
   * them. Resolves when they were looked at for the first time.
   */
  readonly followServices: (apply: (services: Services) => void) => Promise<FollowedServices>;
}

export interface FollowedServices {
  /** Resolves at the first call, or when the daemon shall end. */
  readonly known: Promise<void>;
  /** What is wrong with them at present. */
  readonly problems: () => readonly ConfigProblem[];
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
  const notify = createNotify(takeInitSystem(), { log });
  await makeDirectory(settings.stateDir, 'state_dir');
  const lock = await acquireProcessLock(
    path.join(settings.stateDir, `${name}.lock`),
    `the ${name} of this state_dir`,
  );
  const { dispose, onHangup, ...ends } = listenForSignals(log);
  const reloads = reportReloads(notify);
  try {
    log.info({ configFile: settings.file, node: process.version }, 'starting');
    await run({
      settings,
      log,
      notify,
      becomeReady: () => reloads.becomeReady(),
      ...ends,
      followServices: (apply) =>
        followServices({ name, settings, log, signal: ends.signal, onHangup, reloads, apply }),
    });
    log.info({ ending: ends.ending() }, 'stopped');
  } finally {
    dispose();
    await notify.close();
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
  reloads: Reloads;
  apply: (services: Services) => void;
}): Promise<FollowedServices> {
  const { name, settings, log, signal, onHangup, reloads, apply } = options;
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
  let problems: readonly ConfigProblem[] = [];
  const reload = async (): Promise<void> => {
    const services = await files.load();
    problems = services.problems;
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
    reloads.begin();
    reasons.set(true);
    void reviewHostFile(settings, log).catch((error: unknown) => {
      log.error({ err: messageOf(error) }, 'cannot look at the host file');
    });
  });
  void forEach(watchDirectories([settings.servicesDir], { signal }), () => reasons.set(true), log);
  await reload();
  void forEach(reasons, () => reload().finally(reloads.track()), log);
  return { known, problems: () => problems };
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
  const hurry = new AbortController();
  let ending: Ending = 'stop';
  const end = (signal: NodeJS.Signals) => {
    if (controller.signal.aborted) {
      log.info({ signal }, 'asked to end once more');
      // Who wants everything withdrawn gets it; what is withdrawn already cannot be handed over.
      if (signal !== 'SIGUSR2') ending = 'stop';
      hurry.abort(new Error(signal));
      return;
    }
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
    hurry: hurry.signal,
    onHangup: (listener: () => void) => {
      hungUp = listener;
    },
    dispose: () => {
      process.off('SIGHUP', onSighup);
      for (const signal of signals) process.off(signal, end);
    },
  };
}

/**
 * What systemd has left for this process. Taken out of the environment: whatever this daemon starts is not spoken to,
 * and must not answer for it.
 */
function takeInitSystem(): InitSystem | undefined {
  const init = findInitSystem(process.env, process.pid);
  for (const name of ['NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID']) delete process.env[name];
  return init;
}

/** Tells the init system of each SIGHUP, and when what it asked for is done. */
interface Reloads {
  becomeReady(): void;
  begin(): void;
  /** To be called before a reload; what it returns, after it: then all that had begun before is done. */
  track(): () => void;
}

function reportReloads(notify: Notify): Reloads {
  let isReady = false;
  let isAsked = false;
  return {
    becomeReady() {
      isReady = true;
      notify.ready();
    },
    begin() {
      if (!isReady) return;
      isAsked = true;
      notify.reloading();
    },
    track() {
      const isMeant = isAsked;
      isAsked = false;
      return () => {
        if (isMeant) notify.ready();
      };
    },
  };
}
