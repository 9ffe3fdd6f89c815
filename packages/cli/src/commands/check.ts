import path from 'node:path';

import { isTandemError } from '@tandem/core';
import { createLayout, checkConfig, renderSample } from '@tandem/discovery';
import type { CommandModule } from 'yargs';

import { invalidConfig } from '../daemon.ts';
import { hostProblems, templateProblems } from '../host-problems.ts';
import { createServiceFiles, type Services } from '../service-files.ts';
import { announcedHost, type HostSettings, loadHostSettings } from '../settings.ts';
import { configOption } from './options.ts';

export const checkCommand: CommandModule<object, { config: string }> = {
  command: 'check',
  describe: 'Validate the host file and every service file',
  builder: (yargs) =>
    yargs
      .option('config', configOption)
      .example(
        '$0 check --config ./tandem.yaml',
        'Every mistake with file, line and column; exit code 2 if there is one',
      ),
  async handler({ config }) {
    const loaded = await loadHostSettings(path.resolve(config));
    if (!loaded.ok) throw invalidConfig(loaded.problems);
    const services = await createServiceFiles(loaded.value).load();
    const announcesNothing =
      services.registrations.length === 0 && loaded.value.registrar.docker === undefined;
    const host = announcesNothing ? undefined : announcedHost(loaded.value);
    const problems = [
      ...(await hostProblems(loaded.value)),
      ...(await templateProblems(loaded.value)),
      ...services.problems,
      ...(host?.ok === false ? host.problems : []),
    ];
    if (problems.length > 0) throw invalidConfig(problems);
    const verdict = await askHaproxy(loaded.value, services);
    const { registrations, discovered, files } = services;
    const counts = `${files} service files, ${registrations.length} registered, ${discovered.length} discovered`;
    process.stdout.write(`ok: ${config} and ${counts}${verdict}\n`);
  },
};

/** Lines of the host file that go to haproxy.cfg as they are can only be judged by HAProxy itself. */
async function askHaproxy(settings: HostSettings, services: Services): Promise<string> {
  const { structure, allowances } = createLayout(settings.haproxy)(services.discovered);
  const ask = (servers: typeof allowances) => checkConfig(settings.haproxy, renderSample(structure, servers));
  let complaint: string | undefined;
  try {
    const fullest = await ask(allowances);
    if (fullest === undefined) return '; haproxy takes the result';
    complaint = await ask(allowances.map((one) => ({ ...one, own: '' })));
    if (complaint === undefined)
      return `; haproxy takes the result, but not all that instance_options let instances add:\n${fullest}`;
  } catch (error) {
    if (isTandemError(error, 'HAPROXY_MISSING'))
      return '; haproxy is not installed here, its part is unchecked';
    throw error;
  }
  throw invalidConfig([
    {
      file: settings.file,
      line: 1,
      column: 1,
      path: 'haproxy',
      reason: `haproxy refuses the result ("tandem render" prints the file that its line numbers mean):\n${complaint}`,
    },
  ]);
}
