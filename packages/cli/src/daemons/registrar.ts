import path from 'node:path';

import { messageOf } from '@tandem/core';
import { createFinders, createRegistrar, followAllServices } from '@tandem/registrar';
import { openRegistry, servicePath } from '@tandem/registry';

import { invalidConfig, runDaemon } from '../daemon.ts';
import { announcedHost } from '../settings.ts';

const WITHDRAW_DEADLINE_MS = 5_000;

/** The registrar in the foreground. SIGTERM withdraws everything; SIGUSR2 leaves it to a successor. */
export function runRegistrar(configFile: string): Promise<void> {
  return runDaemon('registrar', configFile, async ({ settings, log, signal, ending, followServices }) => {
    const host = announcedHost(settings);
    if (!host.ok) throw invalidConfig(host.problems);
    const resumeFile = path.join(settings.stateDir, 'registrar-session.json');
    const registry = await openRegistry(settings.registry, { log, resumeFile });
    const registrar = createRegistrar({ host: host.value, registry, log });
    const pathOf = (service: string) => servicePath(settings.registry, service);
    const all = followAllServices({
      finders: createFinders(settings.registrar, { address: host.value.address, pathOf, log }),
      update: (services, options) => registrar.update(services, options),
      log,
      signal,
    });
    await followServices(({ registrations, problems }) =>
      all.takeFiles(registrations, { isComplete: problems.length === 0 }),
    );
    await aborted(signal);
    await all.end();
    if (ending() === 'stop') {
      try {
        await registrar.withdrawAll(AbortSignal.timeout(WITHDRAW_DEADLINE_MS));
      } catch (error) {
        log.warn({ err: messageOf(error) }, 'ending before the registry has confirmed every withdrawal');
      }
    }
    await registrar.stop();
    await registry.close({ keep: ending() === 'hand-over' });
  });
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
