#!/usr/bin/env node
import { registerCommand } from '../commands/register.ts';
import { command, runCli } from '../run-cli.ts';

await runCli(
  { name: 'tandem-registrar', commands: [command({ ...registerCommand, command: '$0' })] },
  process.argv.slice(2),
);
