import { command } from '../run-cli.ts';
import { checkCommand } from './check.ts';
import { discoverCommand } from './discover.ts';
import { drainCommand } from './drain.ts';
import { holdCommand } from './hold.ts';
import { registerCommand } from './register.ts';
import { releaseCommand } from './release.ts';
import { renderCommand } from './render.ts';
import { reportCommand } from './report.ts';
import { servicesCommand } from './services.ts';
import { statusCommand } from './status.ts';
import { undrainCommand } from './undrain.ts';
import { weightCommand } from './weight.ts';

/** What is run on a host; the demo on top of it needs the whole checkout. */
export const hostCommands = [
  command(registerCommand),
  command(discoverCommand),
  command(checkCommand),
  command(renderCommand),
  command(statusCommand),
  command(holdCommand),
  command(releaseCommand),
  command(servicesCommand),
  command(drainCommand),
  command(undrainCommand),
  command(weightCommand),
  command(reportCommand),
];
