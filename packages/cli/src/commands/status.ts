import type { CommandModule } from 'yargs';

import { type DaemonArguments, reachDaemon } from '../control/ask.ts';
import { type DaemonState, parseState } from '../control/discovery-answers.ts';
import { printableJson } from '../printable.ts';
import { printState } from '../refresh.ts';
import { formatService, formatStatus } from '../status.ts';
import { daemonOptions, stateOptions } from './options.ts';

interface StatusArguments extends DaemonArguments {
  service: string | undefined;
  json: boolean;
  watch: boolean;
}

export const statusCommand: CommandModule<object, StatusArguments> = {
  command: 'status [service]',
  describe: 'Show what the discovery daemon of this host sees, and what it makes of it',
  builder: (yargs) =>
    yargs
      .positional('service', { type: 'string', describe: 'Only this service, with its instances' })
      .options(stateOptions)
      .options(daemonOptions('discovery'))
      .example('$0 status', 'Every service in a line, and what somebody should look at')
      .example('$0 status payments --watch', 'The instances of one')
      .example("$0 status --json | jq '.services[].instances[].id'", 'For programs')
      .epilogue(
        'IN USE get traffic from this host; HELD are those of "tandem hold"; GUARDED have gone from the registry in a ' +
          'loss that is too large to be believed at once. Exit code 1 when no daemon answers.',
      ),
  async handler({ service, json, watch, ...daemon }) {
    const ask = await reachDaemon('discovery', daemon);
    const show = async (signal: AbortSignal): Promise<string> => {
      const answer = await ask({ method: 'GET', path: ['v1', 'state'], signal });
      if (json) return `${printableJson(answer)}\n`;
      return format(parseState(answer), service);
    };
    await printState(show, { json, watch });
  },
};

function format(state: DaemonState, service: string | undefined): string {
  return service === undefined ? formatStatus(state) : formatService(state, service);
}
