import type { Options } from 'yargs';

import { type DaemonName, DAEMONS } from '../control/ask.ts';

/** `--config`, the same for every command that reads one. */
export const configOption = {
  alias: 'c',
  type: 'string',
  default: '/etc/tandem/tandem.yaml',
  describe: 'The host file; service files lie in its services_dir',
  requiresArg: true,
} as const satisfies Options;

/** How a command finds a daemon of this host. */
export function daemonOptions(name: DaemonName) {
  return {
    config: {
      ...configOption,
      describe: `The host file: ${name}.control in it says where the ${DAEMONS[name]} answers`,
    },
    socket: {
      type: 'string',
      requiresArg: true,
      describe: 'The control socket itself, should the host file be of no use',
    },
  } as const satisfies Readonly<Record<string, Options>>;
}

/** How a command shows what a daemon sees. */
export const stateOptions = {
  json: { type: 'boolean', default: false, describe: 'For programs: everything as JSON' },
  watch: { type: 'boolean', default: false, describe: 'Again every second, until Ctrl-C' },
} as const satisfies Readonly<Record<string, Options>>;

/** The service that a command is about. */
export const servicePositional = {
  type: 'string',
  demandOption: true,
  describe: 'The name of the service',
} as const;

/** For what can be done to one service or to all. */
export const allOption = {
  type: 'boolean',
  default: false,
  describe: 'Every service of this host, also those that come later',
} as const satisfies Options;

export function checkOneOrAll({ service, all }: { service?: unknown; all?: unknown }): true {
  if ((service === undefined) === (all !== true)) throw new Error('name a service or --all');
  return true;
}

/** Where the registrar is told of a drain: of all services, if none is named. */
export function drainPath(service: string | undefined): readonly string[] {
  return service === undefined ? ['v1', 'drain'] : ['v1', 'services', service, 'drain'];
}
