import { isTandemError, messageOf } from '@tandem/core';
import yargs, { type Argv, type CommandModule } from 'yargs';

/** What a command line is about; the commands differ between `tandem` and the bundles of one daemon. */
export interface Cli {
  readonly name: string;
  readonly commands: readonly AddCommand[];
}

type AddCommand = (parser: Argv) => Argv;

/** A command, with the type of its arguments kept to itself. */
export function command<T>(module: CommandModule<object, T>): AddCommand {
  return (parser) => parser.command(module);
}

/** 0 done, 1 failed at run time, 2 wrong usage or invalid configuration. */
type ExitCode = 0 | 1 | 2;

/** Runs one command line and ends the process with its exit code. Never prints a stack trace for a user's mistake. */
export async function runCli(cli: Cli, argv: readonly string[]): Promise<never> {
  const code = await run(cli, argv);
  process.exit(code === 0 ? (process.exitCode ?? 0) : code);
}

async function run(cli: Cli, argv: readonly string[]): Promise<ExitCode> {
  let usageMistake: string | undefined;
  const parser = yargs(argv as string[])
    .scriptName(cli.name)
    .usage(cli.commands.length > 1 ? '$0 <command> [options]' : '$0 [options]')
    .strict()
    .demandCommand(cli.commands.length > 1 ? 1 : 0, 'Name a command.')
    .recommendCommands()
    .help()
    .alias('help', 'h')
    .version('0.1.0')
    .wrap(Math.min(110, process.stdout.columns ?? 100))
    .exitProcess(false)
    .showHelpOnFail(false)
    .fail((message: string | null, error: Error | undefined) => {
      // Only what a command itself has thrown comes without a message.
      if (message === null && error !== undefined) throw error;
      usageMistake = message ?? 'Wrong usage.';
      throw new Error(usageMistake);
    });
  for (const add of cli.commands) add(parser);
  try {
    await parser.parseAsync();
    return 0;
  } catch (error) {
    if (usageMistake !== undefined) {
      process.stderr.write(`${cli.name}: ${usageMistake}\nTry "${cli.name} --help".\n`);
      return 2;
    }
    return report(cli.name, error);
  }
}

function report(name: string, error: unknown): ExitCode {
  if (isTandemError(error, 'CONFIG_INVALID')) {
    process.stderr.write(`${error.message}\n`);
    return 2;
  }
  if (isTandemError(error)) {
    process.stderr.write(`${name}: ${error.message} [${error.code}]\n`);
    return 1;
  }
  const stack = error instanceof Error ? error.stack : undefined;
  process.stderr.write(`${name}: a fault in Tandem: ${stack ?? messageOf(error)}\n`);
  return 1;
}
