import type { CommandModule } from 'yargs';

import { type DaemonArguments, reachDaemon } from '../control/ask.ts';
import { parseRegistrarState } from '../control/registrar-answers.ts';
import { printableJson } from '../printable.ts';
import { printState } from '../refresh.ts';
import { formatRegistered, formatRegistrar } from '../services.ts';
import { daemonOptions, stateOptions } from './options.ts';

interface ServicesArguments extends DaemonArguments {
  service: string | undefined;
  json: boolean;
  watch: boolean;
}

export const servicesCommand: CommandModule<object, ServicesArguments> = {
  command: 'services [service]',
  describe: 'Show what the registrar of this host sees and announces, and why not',
  builder: (yargs) =>
    yargs
      .positional('service', { type: 'string', describe: 'Only this service, with its checks' })
      .options(stateOptions)
      .options(daemonOptions('registrar'))
      .example('$0 services', 'Every service in a line')
      .example('$0 services payments --watch', 'The checks of one')
      .example("$0 services --json | jq '.services[] | select(.announced | not)'", 'For programs')
      .epilogue('Exit code 1 when no registrar answers.'),
  async handler({ service, json, watch, ...daemon }) {
    const ask = await reachDaemon('registrar', daemon);
    const show = async (signal: AbortSignal): Promise<string> => {
      const answer = await ask({ method: 'GET', path: ['v1', 'state'], signal });
      if (json) return `${printableJson(answer)}\n`;
      const state = parseRegistrarState(answer);
      return service === undefined ? formatRegistrar(state) : formatRegistered(state, service);
    };
    await printState(show, { json, watch });
  },
};
