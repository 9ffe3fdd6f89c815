import path from 'node:path';

import { createDesiredBuilder, readSpares, renderConfig } from '@tandem/discovery';
import type { CommandModule } from 'yargs';

import { invalidConfig } from '../daemon.ts';
import { printable } from '../printable.ts';
import { createServiceFiles } from '../service-files.ts';
import { loadHostSettings } from '../settings.ts';
import { describeRejected, type Surveyed, surveyServices } from '../survey.ts';
import { configOption } from './options.ts';

interface RenderArguments {
  config: string;
  offline: boolean;
  timeout: number;
}

export const renderCommand: CommandModule<object, RenderArguments> = {
  command: 'render',
  describe: 'Print the haproxy.cfg that would be written, without touching anything',
  builder: (yargs) =>
    yargs
      .option('config', configOption)
      .option('offline', {
        type: 'boolean',
        default: false,
        describe: 'Ask no source: no server lines',
      })
      .option('timeout', { type: 'number', default: 5, describe: 'Seconds to wait for the sources' })
      .example('$0 render --config ./tandem.yaml | haproxy -c -f /dev/stdin', 'Let HAProxy judge it')
      .epilogue(
        'Exit code 1 when something is missing in it, each thing named on stderr: a source or a name that is not ' +
          'answered in time, an instance or a service that is set aside.',
      ),
  async handler({ config, offline, timeout }) {
    const loaded = await loadHostSettings(path.resolve(config));
    if (!loaded.ok) throw invalidConfig(loaded.problems);
    const services = await createServiceFiles(loaded.value).load();
    if (services.problems.length > 0) throw invalidConfig(services.problems);
    const surveyed = offline
      ? new Map<string, Surveyed>()
      : await surveyServices(loaded.value, services.discovered, timeout * 1_000);
    const offers = new Map(
      services.discovered.map((service) => [
        service.service,
        { service, instances: surveyed.get(service.service)?.instances, holds: new Map() },
      ]),
    );
    const spares = await readSpares(loaded.value.haproxy);
    const { desired, rejected, unplaced } = createDesiredBuilder(loaded.value.haproxy, spares)(offers);
    process.stdout.write(renderConfig(desired.structure, desired.membership).text);
    for (const { service } of services.discovered) {
      const reason = unplaced.get(service);
      const missing = [
        ...(reason === undefined ? [] : [`is not there: ${reason}`]),
        ...(surveyed.get(service)?.missing ?? []),
        ...describeRejected(rejected.get(service) ?? []),
      ];
      for (const text of missing) process.stderr.write(`tandem: ${printable(`${service}: ${text}`)}\n`);
      if (missing.length > 0) process.exitCode = 1;
    }
  },
};
