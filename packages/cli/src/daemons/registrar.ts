import path from 'node:path';

import { messageOf } from '@tandem/core';
import { createRegistrar } from '@tandem/registrar';
import { openRegistry } from '@tandem/registry';

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
    await followServices(({ registrations, problems }) =>
      registrar.update(registrations, { isComplete: problems.length === 0 }),
    );
    await aborted(signal);
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
