import { formatDuration, parseDuration, TandemError } from '@tandem/core';
import type { CommandModule } from 'yargs';

import { type DaemonArguments, reachDaemon } from '../control/ask.ts';
import { parseOverridden } from '../control/registrar-answers.ts';
import { MAX_WAIT_MS } from '../control/registrar-routes.ts';
import { printable } from '../printable.ts';
import { warnIfForgetful } from '../remembered.ts';
import { allOption, checkOneOrAll, daemonOptions, drainPath } from './options.ts';

interface DrainArguments extends DaemonArguments {
  service: string | undefined;
  all: boolean;
  wait: string | undefined;
}

const DEFAULT_WAIT_MS = 10_000;
/** What an answer may take beside the wait. */
const ANSWER_MS = 10_000;

export const drainCommand: CommandModule<object, DrainArguments> = {
  command: 'drain [service]',
  describe: 'Take a service of this host out of rotation, until "tandem undrain"',
  builder: (yargs) =>
    yargs
      .positional('service', { type: 'string', describe: 'The name of the service' })
      .option('all', allOption)
      .option('wait', {
        type: 'string',
        describe: `Until the registry has confirmed, or so long (default: ${formatDuration(DEFAULT_WAIT_MS)})`,
      })
      .check((args) => {
        waitOf(args.wait);
        return checkOneOrAll(args);
      })
      .options(daemonOptions('registrar'))
      .example('$0 drain payments', 'No host sends new requests to it once the registry knows')
      .example('$0 drain payments --wait=30s', 'In a deployment: go on when it is out')
      .example('$0 drain --all', 'Everything on this host, before it is rebooted')
      .epilogue(
        'Its checks go on, and the drain outlives restarts of the registrar. Works while the registry is away: it is ' +
          'told when it is back. Exit code 1 when it has not confirmed in time; the drain is in force all the same.',
      ),
  async handler({ service, wait, all: _all, ...daemon }) {
    const waitMs = waitOf(wait);
    const ask = await reachDaemon('registrar', daemon);
    const drained = parseOverridden(
      await ask({
        method: 'PUT',
        path: drainPath(service),
        ...(waitMs === undefined
          ? {}
          : { body: { wait: formatDuration(waitMs) }, timeoutMs: waitMs + ANSWER_MS }),
      }),
    );
    const what = service === undefined ? 'every service' : printable(service);
    const known = drained.confirmed === true ? ', and the registry has confirmed it' : '';
    process.stdout.write(`${what}: drained${known}\n`);
    warnIfForgetful(drained);
    if (waitMs !== undefined && drained.confirmed !== true)
      throw new TandemError(
        'DEADLINE_EXCEEDED',
        `the registry has not confirmed within ${formatDuration(waitMs)}: others may still send requests. The drain ` +
          'stays in force; "tandem services" shows how things stand',
      );
  },
};

/** Undefined when nobody wants to wait. Throws for what is no duration. */
function waitOf(wait: string | undefined): number | undefined {
  if (wait === undefined) return undefined;
  const waitMs = wait === '' ? DEFAULT_WAIT_MS : parseDuration(wait);
  if (waitMs === undefined || waitMs < 1 || waitMs > MAX_WAIT_MS)
    throw new Error(
      `--wait: "${printable(wait)}" is not a duration such as 10s, up to ${formatDuration(MAX_WAIT_MS)}. Name the ` +
        'service first, or write --wait=10s',
    );
  return waitMs;
}
