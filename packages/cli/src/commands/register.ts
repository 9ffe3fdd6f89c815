import type { CommandModule } from 'yargs';

import { configOption } from './options.ts';

export const registerCommand: CommandModule<object, { config: string }> = {
  command: 'register',
  describe: 'Run the registrar: probe the services of this host and announce the healthy ones',
  builder: (yargs) =>
    yargs
      .option('config', configOption)
      .example('$0 register --config /etc/tandem/tandem.yaml', 'In the foreground, logs on stdout')
      .epilogue(
        'SIGTERM withdraws everything, waits registrar.shutdown_delay and ends, a second one ends at once; SIGUSR2 ' +
          'ends and leaves the session to a successor.',
      ),
  async handler({ config }) {
    const { runRegistrar } = await import('../daemons/registrar.ts');
    await runRegistrar(config);
  },
};
