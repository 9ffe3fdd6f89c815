// Real servers of Debian's packages, as children of the test process. On loopback only.
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, closeSync, existsSync, openSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

import { eventually } from './eventually.ts';
import { freePorts } from './real-zookeeper.ts';

const run = promisify(execFile);
const SETPRIV = '/usr/bin/setpriv';
/** Some servers refuse to run as root; then all of them run as nobody. */
const NOBODY = 65_534;
const isRoot = process.getuid?.() === 0;

/** A server with a directory of its own. */
export interface RealServer {
  readonly port: number;
  readonly directory: string;
  /** Everything that it has written, as one text. */
  log(): Promise<string>;
  /** Only sends a signal, such as SIGSTOP and SIGCONT. */
  signal(signal: NodeJS.Signals): void;
  /** Ends it at once, and waits until it is gone. Its data stay. */
  kill(): Promise<void>;
  /** Starts it again after a kill, and does not wait until it serves. */
  launch(): void;
  /** Ends it for good and removes its data. */
  stop(): Promise<void>;
}

interface Launch {
  readonly program: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** Where the tests' servers keep their data; they need not be root. */
export async function createServerDirectory(name: string): Promise<string> {
  const directory = await mkdtemp(path.join(tmpdir(), `tandem-${name}-`));
  own(directory);
  return directory;
}

/** Gives a file to those who run the servers. */
export function own(file: string): void {
  if (isRoot) chownSync(file, NOBODY, NOBODY);
}

/** Runs a program to its end, as the servers do. */
export async function runAsServer({ program, args, env = {} }: Launch, directory: string): Promise<string> {
  const [command = '', ...rest] = unprivileged(program, args);
  const { stdout } = await run(command, rest, { cwd: directory, env: environment(directory, env) });
  return stdout;
}

function unprivileged(program: string, args: readonly string[]): string[] {
  const user = isRoot ? [`--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups'] : [];
  // Whatever becomes of the tests, the kernel ends what they have started.
  return [SETPRIV, ...user, '--pdeathsig', 'KILL', program, ...args];
}

function environment(directory: string, env: Readonly<Record<string, string>>): NodeJS.ProcessEnv {
  return { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', HOME: directory, LC_ALL: 'C.UTF-8', ...env };
}

/** A server that is launched, and may not serve yet. */
export function launchServer(
  launch: Launch,
  place: { readonly port: number; readonly directory: string },
): RealServer {
  const { port, directory } = place;
  const logFile = path.join(directory, 'server.log');
  let child = spawnServer();

  function spawnServer(): ChildProcess {
    assertInstalled(launch.program);
    const log = openSync(logFile, 'a');
    const [command = '', ...args] = unprivileged(launch.program, launch.args);
    const env = environment(directory, launch.env ?? {});
    // A group of its own: some are more than one process.
    const child = spawn(command, args, { cwd: directory, env, stdio: ['ignore', log, log], detached: true });
    closeSync(log);
    const killNow = () => signalGroup(child, 'SIGKILL');
    process.on('exit', killNow);
    child.on('exit', () => process.off('exit', killNow));
    return child;
  }
  async function kill(): Promise<void> {
    const isGone = child.exitCode !== null || child.signalCode !== null;
    const gone = isGone ? Promise.resolve() : once(child, 'exit');
    signalGroup(child, 'SIGKILL');
    await gone;
  }
  return {
    port,
    directory,
    log: () => readFile(logFile, 'utf8'),
    signal: (signal) => signalGroup(child, signal),
    kill,
    launch() {
      child = spawnServer();
    },
    async stop() {
      await kill();
      // Some of what it has started may still write for a moment.
      await eventually(() => rm(directory, { recursive: true, force: true }));
    },
  };
}

function signalGroup({ pid }: ChildProcess, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch {
    // Nobody is left in the group.
  }
}

export function assertInstalled(program: string): void {
  if (!existsSync(program)) throw new Error(`${program} is missing: run deploy/setup.sh`);
}

const REDIS = '/usr/bin/redis-server';

export async function startRedis(settings: readonly string[] = []): Promise<RealServer> {
  const directory = await createServerDirectory('redis');
  const [port = 0] = await freePorts(1);
  const args = ['--bind', '127.0.0.1', '--port', String(port), '--save', '', '--dir', directory, ...settings];
  return launchServer({ program: REDIS, args }, { port, directory });
}

const MARIADB = '/usr/sbin/mariadbd';

export async function startMariadb(
  settings: readonly string[],
  statements: readonly string[],
): Promise<RealServer> {
  assertInstalled(MARIADB);
  const directory = await createServerDirectory('mariadb');
  const [port = 0] = await freePorts(1);
  const [data, start] = [path.join(directory, 'data'), path.join(directory, 'start.sql')];
  const common = [`--datadir=${data}`, '--innodb-log-file-size=4M', '--innodb-buffer-pool-size=8M'];
  await writeFile(start, statements.map((statement) => `${statement};\n`).join(''));
  own(start);
  const args = ['--no-defaults', '--auth-root-authentication-method=normal', '--skip-test-db', ...common];
  await runAsServer({ program: '/usr/bin/mariadb-install-db', args }, directory);
  const listening = [`--port=${port}`, '--bind-address=127.0.0.1', `--socket=${directory}/socket`];
  return launchServer(
    {
      program: MARIADB,
      args: ['--no-defaults', ...common, ...listening, `--init-file=${start}`, '--skip-log-bin', ...settings],
    },
    { port, directory },
  );
}

async function postgresPrograms(): Promise<string> {
  const root = '/usr/lib/postgresql';
  const versions = await readdir(root).catch(() => []);
  const all = versions.toSorted((a, b) => Number(b) - Number(a)).map((name) => path.join(root, name, 'bin'));
  const newest = all.find((directory) => existsSync(path.join(directory, 'postgres')));
  if (newest === undefined) throw new Error(`there is no PostgreSQL in ${root}: run deploy/setup.sh`);
  return newest;
}

/**
 * @param access the lines of its pg_hba.conf
 * @param statements run before it listens
 */
export async function startPostgres(
  access: readonly string[],
  statements: readonly string[],
  settings: Readonly<Record<string, string>> = {},
): Promise<RealServer> {
  const programs = await postgresPrograms();
  const directory = await createServerDirectory('postgres');
  const [port = 0] = await freePorts(1);
  const data = path.join(directory, 'data');
  const args = ['-D', data, '-U', 'postgres', '--no-sync', '--no-instructions', '-E', 'UTF8', '-A', 'trust'];
  await runAsServer({ program: path.join(programs, 'initdb'), args }, directory);
  const postgres = path.join(programs, 'postgres');
  const lines = statements.map((statement) => `${statement};`).join('\n');
  const script = path.join(directory, 'start.sql');
  await writeFile(script, `${lines}\n`);
  own(script);
  const single = `"${postgres}" --single -j -D "${data}" postgres < "${script}"`;
  if (statements.length > 0) await runAsServer({ program: '/bin/sh', args: ['-c', single] }, directory);
  const hba = path.join(directory, 'pg_hba.conf');
  await writeFile(hba, access.map((line) => `${line}\n`).join(''));
  own(hba);
  const all = {
    listen_addresses: '127.0.0.1',
    unix_socket_directories: directory,
    hba_file: hba,
    fsync: 'off',
    log_line_prefix: '',
    ...settings,
  };
  const options = Object.entries(all).flatMap(([key, value]) => ['-c', `${key}=${value}`]);
  return launchServer(
    { program: postgres, args: ['-D', data, '-p', String(port), ...options] },
    { port, directory },
  );
}

const RABBITMQ = '/usr/lib/rabbitmq/bin/rabbitmq-server';

/** With Erlang's name server as a child of its own, which the system's would be otherwise, and stay. */
export async function startRabbitmq(): Promise<RealServer> {
  assertInstalled(RABBITMQ);
  const directory = await createServerDirectory('rabbitmq');
  const [port = 0, names = 0, distribution = 0] = await freePorts(3);
  const inDirectory = (name: string) => path.join(directory, name);
  const config = [
    `listeners.tcp.default = 127.0.0.1:${port}`,
    'log.console = true',
    'log.console.level = info',
    'log.file = false',
  ];
  for (const [name, lines] of [
    ['rabbitmq.conf', config],
    ['enabled_plugins', ['[].']],
  ] as const) {
    await writeFile(inDirectory(name), lines.map((line) => `${line}\n`).join(''));
    own(inDirectory(name));
  }
  const env = {
    ERL_EPMD_PORT: String(names),
    ERL_EPMD_ADDRESS: '127.0.0.1',
    RABBITMQ_NODENAME: 'tandem@localhost',
    RABBITMQ_DIST_PORT: String(distribution),
    RABBITMQ_BASE: directory,
    RABBITMQ_MNESIA_BASE: inDirectory('mnesia'),
    RABBITMQ_LOG_BASE: inDirectory('log'),
    RABBITMQ_CONFIG_FILE: inDirectory('rabbitmq.conf'),
    RABBITMQ_ENABLED_PLUGINS_FILE: inDirectory('enabled_plugins'),
    RABBITMQ_CONF_ENV_FILE: '/dev/null',
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '-kernel inet_dist_use_interface {127,0,0,1}',
  };
  const epmd = launchServer(
    { program: '/usr/bin/epmd', args: ['-port', String(names), '-address', '127.0.0.1'] },
    { port: names, directory: await createServerDirectory('epmd') },
  );
  const server = launchServer({ program: RABBITMQ, args: [], env }, { port, directory });
  return {
    ...server,
    async stop() {
      await server.stop();
      await epmd.stop();
    },
  };
}
