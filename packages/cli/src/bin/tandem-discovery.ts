#!/usr/bin/env node
import { discoverCommand } from '../commands/discover.ts';
import { command, runCli } from '../run-cli.ts';

await runCli(
  { name: 'tandem-discovery', commands: [command({ ...discoverCommand, command: '$0' })] },
  process.argv.slice(2),
);
