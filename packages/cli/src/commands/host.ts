import { command } from '../run-cli.ts';
import { checkCommand } from './check.ts';
import { discoverCommand } from './discover.ts';
import { registerCommand } from './register.ts';
import { renderCommand } from './render.ts';

/** What is run on a host; the demo on top of it needs the whole checkout. */
export const hostCommands = [
  command(registerCommand),
  command(discoverCommand),
  command(checkCommand),
  command(renderCommand),
];
