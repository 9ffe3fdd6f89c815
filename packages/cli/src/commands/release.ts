import { TandemError } from '@tandem/core';
import type { CommandModule } from 'yargs';

import { parseHeld, parseState } from '../control/discovery-answers.ts';
import { type Ask, type DaemonArguments, reachDaemon } from '../control/ask.ts';
import { printable } from '../printable.ts';
import { warnIfForgetful } from '../remembered.ts';
import { findService } from '../status.ts';
import { daemonOptions, servicePositional } from './options.ts';

interface ReleaseArguments extends DaemonArguments {
  service: string;
  instance: string | undefined;
  all: boolean;
}

export const releaseCommand: CommandModule<object, ReleaseArguments> = {
  command: 'release <service> [instance]',
  describe: 'Bring back what "tandem hold" has taken out of use',
  builder: (yargs) =>
    yargs
      .positional('service', servicePositional)
      .positional('instance', {
        type: 'string',
        describe: 'As for "tandem hold"; may be left out when only one is held',
      })
      .option('all', { type: 'boolean', default: false, describe: 'Every instance of the service' })
      .check(({ all, instance }) => {
        if (all && instance !== undefined) throw new Error('name an instance or --all, not both');
        return true;
      })
      .options(daemonOptions('discovery'))
      .example('$0 release payments i-1234', 'It gets traffic again at once')
      .example('$0 release payments --all', 'Everything that is held of it'),
  async handler({ service, instance, all, ...daemon }) {
    const ask = await reachDaemon('discovery', daemon);
    const wanted = instance === undefined ? await heldOf(ask, service, all) : [instance];
    for (const one of wanted) {
      const path = ['v1', 'services', service, 'holds', one];
      const released = parseHeld(await ask({ method: 'DELETE', path }));
      process.stdout.write(`${printable(service)}: ${printable(released.instance)} is in use again\n`);
      warnIfForgetful(released);
    }
    if (wanted.length === 0) process.stdout.write(`${printable(service)}: nothing is held\n`);
  },
};

async function heldOf(ask: Ask, service: string, all: boolean): Promise<string[]> {
  const state = parseState(await ask({ method: 'GET', path: ['v1', 'state'] }));
  const held = findService(state, service).instances.filter((instance) => instance.held !== undefined);
  if (all || held.length <= 1) return held.map(({ id }) => id);
  const names = held.map(({ id }) => printable(id)).join(', ');
  throw new TandemError('CONTROL_REFUSED', `several are held, name one of them or --all: ${names}`);
}
