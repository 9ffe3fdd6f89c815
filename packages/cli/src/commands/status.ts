import { isTandemError, sleepOrAborted } from '@tandem/core';
import type { CommandModule } from 'yargs';

import { type DaemonState, parseState } from '../control/answers.ts';
import { askDiscovery, controlSocket, type DaemonArguments } from '../control/ask.ts';
import { printableJson } from '../printable.ts';
import { formatService, formatStatus } from '../status.ts';
import { daemonOptions } from './options.ts';

interface StatusArguments extends DaemonArguments {
  service: string | undefined;
  json: boolean;
  watch: boolean;
}

const REFRESH_MS = 1_000;
const CLEAR_SCREEN = '\u001b[H\u001b[2J';

export const statusCommand: CommandModule<object, StatusArguments> = {
  command: 'status [service]',
  describe: 'Show what the discovery daemon of this host sees, and what it makes of it',
  builder: (yargs) =>
    yargs
      .positional('service', { type: 'string', describe: 'Only this service, with its instances' })
      .option('json', { type: 'boolean', default: false, describe: 'For programs: everything as JSON' })
      .option('watch', { type: 'boolean', default: false, describe: 'Again every second, until Ctrl-C' })
      .options(daemonOptions)
      .example('$0 status', 'Every service in a line, and what somebody should look at')
      .example('$0 status payments --watch', 'The instances of one')
      .example("$0 status --json | jq '.services[].instances[].id'", 'For programs')
      .epilogue(
        'IN USE get traffic from this host; HELD are those of "tandem hold"; GUARDED have gone from the registry in a ' +
          'loss that is too large to be believed at once. Exit code 1 when no daemon answers.',
      ),
  async handler({ service, json, watch, ...daemon }) {
    const file = await controlSocket(daemon);
    const show = async (signal?: AbortSignal): Promise<string> => {
      const question = {
        method: 'GET',
        path: ['v1', 'state'],
        ...(signal === undefined ? {} : { signal }),
      } as const;
      const answer = await askDiscovery(file, question);
      if (json) return `${printableJson(answer)}\n`;
      return format(parseState(answer), service);
    };
    if (watch) await refresh(show, json);
    else process.stdout.write(await show());
  },
};

function format(state: DaemonState, service: string | undefined): string {
  return service === undefined ? formatStatus(state) : formatService(state, service);
}

/** Goes on while the daemon is away: that is when somebody looks. */
async function refresh(show: (signal: AbortSignal) => Promise<string>, json: boolean): Promise<void> {
  const controller = new AbortController();
  const end = () => controller.abort(new Error('the operator has seen enough'));
  const { signal } = controller;
  process.once('SIGINT', end);
  process.once('SIGTERM', end);
  // Whoever reads has gone, such as head.
  process.stdout.once('error', end);
  try {
    do {
      const text = await show(signal).catch((error: unknown) => {
        if (signal.aborted) return '';
        if (!isTandemError(error)) throw error;
        return json ? '' : `${error.message}\n`;
      });
      process.stdout.write(process.stdout.isTTY && !json ? `${CLEAR_SCREEN}${text}` : text);
    } while (!(await sleepOrAborted(REFRESH_MS, signal)));
  } finally {
    process.off('SIGINT', end);
    process.off('SIGTERM', end);
  }
}
