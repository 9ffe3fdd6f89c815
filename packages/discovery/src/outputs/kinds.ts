import type { Log } from '@tandem/core';

import type { DiscoverySettings } from '../config/discovery.ts';
import type { HaproxyConfig } from '../config/haproxy.ts';
import type { Offers, Output } from '../output.ts';
import { createHaproxyOutput, type HaproxyOutput } from './haproxy.ts';

/** Everything that is kept in step with the services. */
export interface Outputs {
  readonly haproxy: HaproxyOutput;
  /** HAProxy among them. */
  readonly all: readonly Output[];
}

/** HAProxy always is one; files and templates are where the host file names them, and are only loaded then. */
export function createOutputs(options: {
  readonly settings: DiscoverySettings;
  readonly haproxy: HaproxyConfig;
  readonly stateDir: string;
  readonly log: Log;
}): Outputs {
  const { settings, stateDir, log } = options;
  const { files, templates } = settings;
  const haproxy = createHaproxyOutput({ config: options.haproxy, stateDir, log });
  const file = async (config: NonNullable<typeof files>) =>
    (await import('./file.ts')).createFileOutput(config, log);
  const template = async (config: (typeof templates)[number]) =>
    (await import('./template.ts')).createTemplateOutput(config, { stateDir, log });
  return {
    haproxy,
    all: [
      haproxy,
      ...(files === undefined ? [] : [lazily(() => file(files))]),
      ...templates.map((config) => lazily(() => template(config))),
    ],
  };
}

/** An output that is loaded when it begins to run. */
function lazily(load: () => Promise<Output>): Output {
  let newest: Offers | undefined;
  let loaded: Output | undefined;
  return {
    offer(offers) {
      newest = offers;
      loaded?.offer(offers);
    },
    async run(signal) {
      loaded = await load();
      if (newest !== undefined) loaded.offer(newest);
      await loaded.run(signal);
    },
  };
}
