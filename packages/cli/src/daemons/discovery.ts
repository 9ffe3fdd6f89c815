import path from 'node:path';

import { acquireProcessLock, openControl } from '@tandem/core';
import { createDiscovery, type Discovery } from '@tandem/discovery';
import { openRegistry } from '@tandem/registry';

import { discoveryRoutes } from '../control/discovery-routes.ts';
import { type DaemonContext, makeDirectory, runDaemon } from '../daemon.ts';
import { countServices } from '../services.ts';
import { superviseDaemon } from '../supervision.ts';

/** The discovery daemon in the foreground. HAProxy goes on when it ends, unless `haproxy.on_exit` says `stop`. */
export function runDiscovery(configFile: string): Promise<void> {
  return runDaemon('discovery', configFile, async (context) => {
    const { settings, log, signal, followServices } = context;
    const { haproxy } = settings;
    for (const file of [haproxy.configFile, haproxy.runtimeSocket, haproxy.masterSocket]) {
      await makeDirectory(path.dirname(file), 'haproxy.config_file and haproxy.runtime_socket');
    }
    // Two daemons with different state_dirs would undo each other's work on one HAProxy.
    const lock = await acquireProcessLock(
      `${haproxy.runtimeSocket}.lock`,
      'the discovery daemon of this HAProxy',
    );
    const registry = await openRegistry(settings.registry, { log });
    try {
      const discovery = createDiscovery({
        registry,
        host: settings.host,
        settings: settings.discovery,
        haproxy,
        stateDir: settings.stateDir,
        log,
      });
      const { known } = await followServices((services) => discovery.update(services.discovered));
      const control = await openControl({
        file: settings.discovery.control,
        group: settings.discovery.controlGroup,
        routes: discoveryRoutes(discovery),
        log,
      });
      const stopSupervision = supervise(discovery, context);
      try {
        await known;
        await discovery.run(signal);
      } finally {
        stopSupervision();
        await control.close();
      }
    } finally {
      await registry.close();
      await lock.release();
    }
  });
}

/** A start must not hang on a registry or a HAProxy that is away: systemd would end it, and begin it again. */
const READY_LIMIT_MS = 20_000;
/** What is told of a daemon that serves is made anew so often: it takes a look at every instance. */
const LOOK_MS = 10_000;
/** What ending may take: an output or a disk that is stuck, HAProxy's last requests. */
const END_MS = 30_000;

function supervise(discovery: Discovery, context: DaemonContext): () => void {
  const { settings, log, signal, notify, becomeReady } = context;
  const startedAt = performance.now();
  let looked = { at: -Infinity, isServing: false, status: '' };
  signal.addEventListener('abort', () => notify.stopping(END_MS), { once: true });

  function look(now: number): typeof looked {
    const { phase, services, haproxy } = discovery.state();
    const isServing = phase === 'serving' && haproxy.applied !== undefined;
    const version = haproxy.running?.version ?? 'is not seen';
    const status = isServing
      ? `${countServices(services.length)}, HAProxy ${version}`
      : 'waiting for first answers';
    return { at: now, isServing, status };
  }

  return superviseDaemon({
    look() {
      const now = performance.now();
      if (notify.isHeard && (!looked.isServing || now - looked.at > LOOK_MS)) looked = look(now);
      // Whoever runs HAProxy may wait for this daemon first.
      const isWaitedFor = settings.haproxy.mode === 'external';
      return {
        isReady: looked.isServing || isWaitedFor || now - startedAt > READY_LIMIT_MS,
        // That this is reached at all: nothing else in here waits for anything without a limit.
        isAlive: true,
        status: () => looked.status,
      };
    },
    onReady: becomeReady,
    notify,
    heartbeatFile: undefined,
    log,
  });
}
