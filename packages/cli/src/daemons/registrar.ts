import path from 'node:path';

import { formatDuration, messageOf, openControl, sleepOrAborted, withDeadline } from '@tandem/core';
import {
  createFinders,
  createReports,
  followAllServices,
  openRegistrar,
  type Registrar,
} from '@tandem/registrar';
import { openRegistry, servicePath } from '@tandem/registry';

import { registrarRoutes } from '../control/registrar-routes.ts';
import { type DaemonContext, type FollowedServices, invalidConfig, runDaemon } from '../daemon.ts';
import { summarize } from '../services.ts';
import { announcedHost } from '../settings.ts';
import { superviseDaemon } from '../supervision.ts';

const WITHDRAW_DEADLINE_MS = 5_000;
/** What ending may take beside withdrawals and the delay: probes that are called off, the end of the session. */
const END_MS = 10_000;

/** The registrar in the foreground. SIGTERM withdraws everything; SIGUSR2 leaves it to a successor. */
export function runRegistrar(configFile: string): Promise<void> {
  return runDaemon('registrar', configFile, async (context) => {
    const { settings, log, ending, followServices } = context;
    const host = announcedHost(settings);
    if (!host.ok) throw invalidConfig(host.problems);
    const resumeFile = path.join(settings.stateDir, 'registrar-session.json');
    const registry = await openRegistry(settings.registry, { log, resumeFile });
    // Should anything fail here, everything stays as it is for the next life.
    let keep = true;
    try {
      const reports = createReports();
      const registrar = await openRegistrar({
        host: host.value,
        registry,
        log,
        reports,
        settings: settings.registrar,
        stateDir: settings.stateDir,
      });
      let followed: FollowedServices | undefined;
      let start = () => {};
      const started = new Promise<void>((resolve) => {
        start = resolve;
      });
      // Before anything is announced: another registrar may have the socket.
      const control = await openControl({
        file: settings.registrar.control,
        group: settings.registrar.controlGroup,
        routes: registrarRoutes({
          registrar,
          reports,
          registry,
          problems: () => followed?.problems() ?? [],
          started,
        }),
        log,
      });
      const pathOf = (service: string) => servicePath(settings.registry, service);
      const all = followAllServices({
        finders: createFinders(settings.registrar, { address: host.value.address, pathOf, log }),
        update: (services, options) => registrar.update(services, options),
        log,
      });
      try {
        followed = await followServices(({ registrations, isComplete }) =>
          all.takeFiles(registrations, { isComplete }),
        );
        start();
        await runUntilEnd(registrar, followed, context);
        await all.end();
        await registrar.stop();
      } finally {
        await all.end();
        await control.close();
      }
      keep = ending() === 'hand-over';
    } finally {
      await registry.close({ keep });
    }
  });
}

async function runUntilEnd(
  registrar: Registrar,
  { problems }: FollowedServices,
  context: DaemonContext,
): Promise<void> {
  const { settings, log, signal, ending, notify, becomeReady } = context;
  const { heartbeatFile, shutdownDelayMs } = settings.registrar;
  const stopSupervision = superviseDaemon({
    // A registry that is away is no reason to keep a boot waiting: everything is announced when it is back.
    look: () => ({
      isReady: true,
      isAlive: registrar.overdue().length === 0,
      status: () => summarize(registrar.status(), problems().length),
    }),
    onReady: becomeReady,
    notify,
    heartbeatFile,
    log,
  });
  try {
    await aborted(signal);
    notify.stopping(shutdownDelayMs + 2 * WITHDRAW_DEADLINE_MS + END_MS);
    if (ending() === 'stop') await leave(registrar, context);
  } finally {
    stopSupervision();
  }
}

/** Takes everything out of rotation, gives those who still use it their time, and withdraws it for good. */
async function leave(registrar: Registrar, { settings, log, hurry }: DaemonContext): Promise<void> {
  const { shutdownDelayMs } = settings.registrar;
  const withdraw = async (task: (signal: AbortSignal) => Promise<void>) => {
    try {
      await withDeadline(hurry, WITHDRAW_DEADLINE_MS, task);
    } catch (error) {
      log.warn({ err: messageOf(error) }, 'the registry has not confirmed every withdrawal');
    }
  };
  if (shutdownDelayMs > 0) {
    await withdraw((signal) => registrar.beginShutdown(signal));
    log.info(
      { delay: formatDuration(shutdownDelayMs) },
      'withdrawn, waiting for requests that are under way',
    );
    await sleepOrAborted(shutdownDelayMs, hurry);
  }
  await withdraw((signal) => registrar.withdrawAll(signal));
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
