import type { CommandModule } from 'yargs';

import { type DaemonArguments, reachDaemon } from '../control/ask.ts';
import { parseOverridden } from '../control/registrar-answers.ts';
import { printable } from '../printable.ts';
import { warnIfForgetful } from '../remembered.ts';
import { daemonOptions, servicePositional } from './options.ts';

interface WeightArguments extends DaemonArguments {
  service: string;
  weight: number | undefined;
  reset: boolean;
}

const MAX_WEIGHT = 256;

export const weightCommand: CommandModule<object, WeightArguments> = {
  command: 'weight <service> [weight]',
  describe: 'Give a service of this host another share of the traffic',
  builder: (yargs) =>
    yargs
      .positional('service', servicePositional)
      .positional('weight', { type: 'number', describe: `0 (nothing) to ${MAX_WEIGHT}` })
      .option('reset', { type: 'boolean', default: false, describe: 'That of its service file again' })
      .check(({ weight, reset }) => {
        if (reset === (weight !== undefined)) throw new Error('name a weight or --reset');
        if (weight !== undefined && !isWeight(weight))
          throw new Error(`a weight is a whole number from 0 to ${MAX_WEIGHT}`);
        return true;
      })
      .options(daemonOptions('registrar'))
      .example('$0 weight payments 1', 'A canary: little traffic, whatever its file says')
      .example('$0 weight payments --reset', 'As its file says')
      .epilogue('Outlives restarts of the registrar, and stands in for the service file until it is reset.'),
  async handler({ service, weight, reset: _reset, ...daemon }) {
    const ask = await reachDaemon('registrar', daemon);
    const path = ['v1', 'services', service, 'weight'];
    const answer =
      weight === undefined
        ? await ask({ method: 'DELETE', path })
        : await ask({ method: 'PUT', path, body: { weight } });
    const what = weight === undefined ? 'has the weight of its service file' : `has the weight ${weight}`;
    process.stdout.write(`${printable(service)}: ${what}\n`);
    warnIfForgetful(parseOverridden(answer));
  },
};

function isWeight(weight: number): boolean {
  return Number.isInteger(weight) && weight >= 0 && weight <= MAX_WEIGHT;
}
