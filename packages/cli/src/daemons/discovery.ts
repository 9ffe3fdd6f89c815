import path from 'node:path';

import { acquireProcessLock, openControl } from '@tandem/core';
import { createDiscovery } from '@tandem/discovery';
import { openRegistry } from '@tandem/registry';

import { discoveryRoutes } from '../control/routes.ts';
import { makeDirectory, runDaemon } from '../daemon.ts';

/** The discovery daemon in the foreground. HAProxy goes on when it ends, unless `haproxy.on_exit` says `stop`. */
export function runDiscovery(configFile: string): Promise<void> {
  return runDaemon('discovery', configFile, async ({ settings, log, signal, followServices }) => {
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
      try {
        await known;
        await discovery.run(signal);
      } finally {
        await control.close();
      }
    } finally {
      await registry.close();
      await lock.release();
    }
  });
}
