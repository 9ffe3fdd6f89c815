#!/usr/bin/env node
// The commands of a host, for the bundle. The demo needs the whole checkout.
import { checkCommand } from '../commands/check.ts';
import { discoverCommand } from '../commands/discover.ts';
import { registerCommand } from '../commands/register.ts';
import { renderCommand } from '../commands/render.ts';
import { command, runCli } from '../run-cli.ts';

await runCli(
  {
    name: 'tandem',
    commands: [
      command(registerCommand),
      command(discoverCommand),
      command(checkCommand),
      command(renderCommand),
    ],
  },
  process.argv.slice(2),
);
