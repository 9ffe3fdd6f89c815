import type { CommandModule } from 'yargs';

import { configOption } from './options.ts';

export const discoverCommand: CommandModule<object, { config: string }> = {
  command: 'discover',
  describe: 'Run the discovery daemon: keep the local HAProxy routing to what is alive',
  builder: (yargs) =>
    yargs
      .option('config', configOption)
      .example('$0 discover --config /etc/tandem/tandem.yaml', 'In the foreground, logs on stdout')
      .epilogue('HAProxy goes on when the daemon ends and is found again by the next one (haproxy.on_exit).'),
  async handler({ config }) {
    const { runDiscovery } = await import('../daemons/discovery.ts');
    await runDiscovery(config);
  },
};
