#!/usr/bin/env node
import { hostCommands } from '../commands/host.ts';
import { runCli } from '../run-cli.ts';

await runCli({ name: 'tandem', commands: hostCommands }, process.argv.slice(2));
