import type { Options } from 'yargs';

/** `--config`, the same for every command that reads one. */
export const configOption = {
  alias: 'c',
  type: 'string',
  default: '/etc/tandem/tandem.yaml',
  describe: 'The host file; service files lie in its services_dir',
  requiresArg: true,
} as const satisfies Options;

/** How a command finds the discovery daemon of this host. */
export const daemonOptions = {
  config: {
    ...configOption,
    describe: 'The host file: discovery.control in it says where the daemon answers',
  },
  socket: {
    type: 'string',
    requiresArg: true,
    describe: 'The control socket itself, should the host file be of no use',
  },
} as const satisfies Readonly<Record<string, Options>>;
