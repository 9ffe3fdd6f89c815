import type { Options } from 'yargs';

/** `--config`, the same for every command that reads one. */
export const configOption = {
  alias: 'c',
  type: 'string',
  default: '/etc/tandem/tandem.yaml',
  describe: 'The host file; service files lie in its services_dir',
  requiresArg: true,
} as const satisfies Options;
