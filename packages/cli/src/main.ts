#!/usr/bin/env node
import { demoCommand } from './commands/demo.ts';
import { hostCommands } from './commands/host.ts';
import { command, runCli } from './run-cli.ts';

await runCli({ name: 'tandem', commands: [...hostCommands, command(demoCommand)] }, process.argv.slice(2));
