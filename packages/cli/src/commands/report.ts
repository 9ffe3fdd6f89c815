import type { CommandModule } from 'yargs';

import { type DaemonArguments, reachDaemon } from '../control/ask.ts';
import { parseReported } from '../control/registrar-answers.ts';
import { printable } from '../printable.ts';
import { daemonOptions, servicePositional } from './options.ts';

const STATUSES = ['pass', 'warn', 'fail'] as const;

interface ReportArguments extends DaemonArguments {
  service: string;
  status: (typeof STATUSES)[number];
  reason: string | undefined;
  check: string | undefined;
}

export const reportCommand: CommandModule<object, ReportArguments> = {
  command: 'report <service> <status>',
  describe: 'Say how a service of this host is, to a push check of it',
  builder: (yargs) =>
    yargs
      .positional('service', servicePositional)
      .positional('status', {
        choices: STATUSES,
        demandOption: true,
        describe: 'warn counts as pass, and is shown',
      })
      .option('reason', { type: 'string', requiresArg: true, describe: 'Why, for people' })
      .option('check', {
        type: 'string',
        requiresArg: true,
        describe: 'The name of the push check, where the service has several',
      })
      .options(daemonOptions('registrar'))
      .example('$0 report payments pass', 'Again before its ttl is over: silence is failure')
      .example('$0 report payments fail --reason "disk full"', 'Withdrawn at once')
      .epilogue(
        'The same without this command: POST /v1/services/NAME/health on registrar.control, with ' +
          '{"status": "pass"} and, if you like, a "reason" and a "check".',
      ),
  async handler({ service, status, reason, check, ...daemon }) {
    const ask = await reachDaemon('registrar', daemon);
    const path = ['v1', 'services', service, 'health'];
    const reported = parseReported(await ask({ method: 'POST', path, body: { status, reason, check } }));
    process.stdout.write(`${printable(service)}: ${status}, taken by ${printable(reported.check)}\n`);
  },
};
