#!/usr/bin/env node
import { checkCommand } from './commands/check.ts';
import { demoCommand } from './commands/demo.ts';
import { discoverCommand } from './commands/discover.ts';
import { registerCommand } from './commands/register.ts';
import { renderCommand } from './commands/render.ts';
import { command, runCli } from './run-cli.ts';

await runCli(
  {
    name: 'tandem',
    commands: [
      command(registerCommand),
      command(discoverCommand),
      command(checkCommand),
      command(renderCommand),
      command(demoCommand),
    ],
  },
  process.argv.slice(2),
);
