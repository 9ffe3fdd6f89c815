import type { CommandModule } from 'yargs';

import { type DaemonArguments, reachDaemon } from '../control/ask.ts';
import { parseOverridden } from '../control/registrar-answers.ts';
import { printable } from '../printable.ts';
import { warnIfForgetful } from '../remembered.ts';
import { allOption, checkOneOrAll, daemonOptions, drainPath } from './options.ts';

interface UndrainArguments extends DaemonArguments {
  service: string | undefined;
  all: boolean;
}

export const undrainCommand: CommandModule<object, UndrainArguments> = {
  command: 'undrain [service]',
  describe: 'Bring back what "tandem drain" has taken out of rotation',
  builder: (yargs) =>
    yargs
      .positional('service', { type: 'string', describe: 'The name of the service' })
      .option('all', allOption)
      .check(checkOneOrAll)
      .options(daemonOptions('registrar'))
      .example('$0 undrain payments', 'Announced again at once, if it is healthy')
      .example('$0 undrain --all', 'Whatever was drained by name or with --all'),
  async handler({ service, all: _all, ...daemon }) {
    const ask = await reachDaemon('registrar', daemon);
    const undrained = parseOverridden(await ask({ method: 'DELETE', path: drainPath(service) }));
    const what = service === undefined ? 'every service' : printable(service);
    process.stdout.write(`${what}: no longer drained\n`);
    warnIfForgetful(undrained);
  },
};
