import type { CommandModule } from 'yargs';

interface DemoArguments {
  seconds: number | undefined;
  zookeeper: string | undefined;
}

export const demoCommand: CommandModule<object, DemoArguments> = {
  command: 'demo',
  describe: 'Show the whole system on this machine: no ZooKeeper needed, only HAProxy',
  builder: (yargs) =>
    yargs
      .option('seconds', {
        type: 'number',
        requiresArg: true,
        describe: 'Play the script once, in about so many seconds; exit 0 only if every promise was kept',
      })
      .option('zookeeper', {
        type: 'string',
        requiresArg: true,
        describe: 'Use a real ZooKeeper at HOST:PORT',
      })
      .check(({ seconds }) => {
        if (seconds !== undefined && !(seconds >= 5 && seconds <= 3_600))
          throw new Error('--seconds must be from 5 to 3600');
        return true;
      })
      .example('$0 demo', 'In a terminal: until Ctrl-C')
      .example('$0 demo --seconds 30', 'Once, as a test')
      .example('$0 demo --zookeeper 127.0.0.1:2181', 'On your own ZooKeeper'),
  async handler({ seconds, zookeeper }) {
    const { runDemo } = await import('../demo/run.ts');
    process.exitCode = (await runDemo({ seconds, zookeeper })) ? 0 : 1;
  },
};
