import type { CommandModule } from 'yargs';

import { type DaemonArguments, reachDaemon } from '../control/ask.ts';
import { parseHeld } from '../control/discovery-answers.ts';
import { printable } from '../printable.ts';
import { warnIfForgetful } from '../remembered.ts';
import { daemonOptions, servicePositional } from './options.ts';

interface HoldArguments extends DaemonArguments {
  service: string;
  instance: string;
  maint: boolean;
}

export const holdCommand: CommandModule<object, HoldArguments> = {
  command: 'hold <service> <instance>',
  describe: 'Take one instance of a service out of use on this host, until it is released',
  builder: (yargs) =>
    yargs
      .positional('service', servicePositional)
      .positional('instance', {
        type: 'string',
        demandOption: true,
        describe: 'Its name, its address:port, or any part of them that no other instance has',
      })
      .option('maint', {
        type: 'boolean',
        default: false,
        describe: 'Maintenance: nothing at all goes there any more. Default: drain, what is begun may finish',
      })
      .options(daemonOptions('discovery'))
      .example('$0 hold payments i-1234', 'New requests go to the others')
      .example('$0 hold payments 10.0.0.5:8080 --maint', 'By its address, and at once')
      .epilogue(
        'Holds only for this host, and outlives restarts of the daemon and of HAProxy. "tandem status" shows what is ' +
          'held, "tandem release" ends it.',
      ),
  async handler({ service, instance, maint, ...daemon }) {
    const kind = maint ? 'maint' : 'drain';
    const ask = await reachDaemon('discovery', daemon);
    const held = parseHeld(
      await ask({
        method: 'PUT',
        path: ['v1', 'services', service, 'holds', instance],
        body: { kind },
      }),
    );
    process.stdout.write(`${printable(service)}: ${printable(held.instance)} is in ${kind}\n`);
    warnIfForgetful(held);
  },
};
