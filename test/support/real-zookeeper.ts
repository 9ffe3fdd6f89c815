// A real ZooKeeper, from Debian's packages, as a child of the test process. On loopback only.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, openSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePorts } from './ports.ts';
import { askWord } from './zookeeper-wire.ts';

export { freePorts };

const JAR = '/usr/share/java/zookeeper.jar';
const LOGGER_JAR = '/usr/share/java/slf4j-simple.jar';
/** Starts a program that the kernel kills when its parent dies in whatever way. Part of every Linux. */
/** What the JAR does not name itself among those that Netty, and so TLS, needs. */
const NETTY_JARS = ['codec', 'resolver'].map((part) => `/usr/share/java/netty-${part}.jar`);
const SETPRIV = '/usr/bin/setpriv';
const READY_DEADLINE_MS = 30_000;
const START_ATTEMPTS = 3;

export interface RealZooKeeperOptions {
  /** Session timeouts go from 2 to 20 ticks. Default 500. */
  readonly tickTimeMs?: number;
  /** Where the data goes; default: a new directory below the system's temporary one. */
  readonly dir?: string;
  /** Default: a free one. */
  readonly port?: number;
  /** Where it listens on loopback; default: 127.0.0.1. */
  readonly host?: string;
  /** A second port, where it speaks TLS. */
  readonly tls?: RealZooKeeperTls;
  /** System properties of ZooKeeper, such as `zookeeper.skipACL`; may change before each start. */
  readonly properties?: Record<string, string>;
}

/** PEM files, read at the start: its certificate with the private key, and whom it trusts. */
export interface RealZooKeeperTls {
  readonly keyStore: string;
  readonly trustStore: string;
  /** Turns away whoever has no certificate. */
  readonly needsClientCertificate?: boolean;
}

export interface RealZooKeeper {
  readonly port: number;
  /** Where it speaks TLS, if it does. */
  readonly securePort: number;
  readonly connectString: string;
  readonly dir: string;
  /** Of the Java process that runs now or ran last. */
  readonly pid: number;
  /** Ends the server by a signal (SIGKILL by default) and waits until it is gone. Its data stay. */
  kill(signal?: NodeJS.Signals): Promise<void>;
  /** Only sends a signal, such as SIGSTOP and SIGCONT. */
  signal(signal: NodeJS.Signals): void;
  /** Starts it, also again after a kill, on the same port and data, and waits until it serves. */
  start(): Promise<void>;
  /** Ends it for good and removes its data. */
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Starts a ZooKeeper server and waits until it serves. Without Java or ZooKeeper it throws: nothing real is ever skipped. */
export async function startRealZooKeeper(options: RealZooKeeperOptions = {}): Promise<RealZooKeeper> {
  assertInstalled();
  const dir = options.dir ?? (await mkdtemp(path.join(tmpdir(), 'tandem-zookeeper-')));
  for (let attempt = 1; ; attempt++) {
    const [free = 0, secure = 0] = await freePorts(2);
    const server = createServerProcess({
      ...options,
      dir,
      port: options.port ?? free,
      securePort: options.tls === undefined ? 0 : secure,
    });
    try {
      await server.start();
      return server;
    } catch (error) {
      await server.kill();
      // Between finding a free port and using it somebody else may have taken it.
      if (options.port === undefined && attempt < START_ATTEMPTS && /in use/i.test(String(error))) continue;
      if (options.dir === undefined) await rm(dir, { recursive: true, force: true });
      throw error;
    }
  }
}

export function assertInstalled(): void {
  if (!existsSync(JAR))
    throw new Error(`${JAR} is missing: run deploy/setup.sh (it installs "zookeeper" and Java)`);
}

export interface ServerProcessOptions extends RealZooKeeperOptions {
  readonly dir: string;
  readonly port: number;
  readonly securePort?: number;
  /** More lines of its zoo.cfg. */
  readonly settings?: Readonly<Record<string, string | number>>;
}

/** A server that does not run yet. */
export function createServerProcess(options: ServerProcessOptions): RealZooKeeper {
  const { dir, host = '127.0.0.1', port, securePort = 0 } = options;
  let child: ChildProcess | undefined;

  async function kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    if (child === undefined || !isRunning(child)) return;
    const gone = once(child, 'exit');
    child.kill(signal);
    await gone;
  }

  async function stop(): Promise<void> {
    await kill();
    await rm(dir, { recursive: true, force: true });
  }

  return {
    port,
    securePort,
    connectString: `${host.includes(':') ? `[${host}]` : host}:${port}`,
    dir,
    get pid() {
      return child?.pid ?? -1;
    },
    kill,
    signal(signal) {
      child?.kill(signal);
    },
    async start() {
      if (child !== undefined && isRunning(child)) throw new Error('this ZooKeeper is running already');
      child = await spawnServer(options);
      await untilReady(child, { dir, host, port });
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

function isRunning(child: ChildProcess): boolean {
  return child.pid !== undefined && child.exitCode === null && child.signalCode === null;
}

async function spawnServer(options: ServerProcessOptions): Promise<ChildProcess> {
  const { dir, host = '127.0.0.1', port, securePort = 0, tickTimeMs = 500, tls, settings } = options;
  await mkdir(dir, { recursive: true });
  const config = path.join(dir, 'zoo.cfg');
  const lines = {
    tickTime: tickTimeMs,
    initLimit: 20,
    syncLimit: 10,
    dataDir: dir,
    clientPort: port,
    clientPortAddress: host,
    ...(tls === undefined ? {} : { secureClientPort: securePort, secureClientPortAddress: host }),
    maxClientCnxns: 0,
    '4lw.commands.whitelist': '*',
    'admin.enableServer': false,
    ...settings,
  };
  await writeFile(
    config,
    Object.entries(lines)
      .map(([key, value]) => `${key}=${value}\n`)
      .join(''),
  );
  const java = [
    'java',
    '-Xmx256m',
    '-XX:+UseSerialGC',
    '-XX:TieredStopAtLevel=1',
    '-Dzookeeper.forceSync=no',
    '-Dzookeeper.preAllocSize=1024',
    '-Dzookeeper.admin.enableServer=false',
    '-Dorg.slf4j.simpleLogger.defaultLogLevel=warn',
    ...Object.entries({ ...tlsProperties(tls), ...options.properties }).map(
      ([name, value]) => `-D${name}=${value}`,
    ),
    '-cp',
    [JAR, LOGGER_JAR, ...NETTY_JARS].filter((jar) => existsSync(jar)).join(':'),
    'org.apache.zookeeper.server.quorum.QuorumPeerMain',
    config,
  ];
  const [command = '', ...rest] = existsSync(SETPRIV) ? [SETPRIV, '--pdeathsig', 'KILL', ...java] : java;
  const log = openSync(logFile(dir), 'a');
  const child = spawn(command, rest, { stdio: ['ignore', log, log] });
  closeSync(log);
  const killNow = () => child.kill('SIGKILL');
  process.on('exit', killNow);
  child.on('exit', () => process.off('exit', killNow));
  // A program that cannot be started has no pid; untilReady says so.
  child.on('error', () => process.off('exit', killNow));
  return child;
}

function tlsProperties(tls: RealZooKeeperTls | undefined): Record<string, string> {
  if (tls === undefined) return {};
  return {
    'zookeeper.serverCnxnFactory': 'org.apache.zookeeper.server.NettyServerCnxnFactory',
    'zookeeper.ssl.keyStore.location': tls.keyStore,
    'zookeeper.ssl.keyStore.type': 'PEM',
    'zookeeper.ssl.trustStore.location': tls.trustStore,
    'zookeeper.ssl.trustStore.type': 'PEM',
    'zookeeper.ssl.clientAuth': tls.needsClientCertificate === true ? 'need' : 'none',
    // The names in our certificates are those of the tests.
    'zookeeper.ssl.hostnameVerification': 'false',
    'zookeeper.ssl.clientHostnameVerification': 'false',
  };
}

function logFile(dir: string): string {
  return path.join(dir, 'server.log');
}

async function untilReady(
  child: ChildProcess,
  { dir, host, port }: { dir: string; host: string; port: number },
): Promise<void> {
  const deadline = Date.now() + READY_DEADLINE_MS;
  while (Date.now() < deadline && isRunning(child)) {
    const answer = await askWord(port, 'srvr', { host }).catch(() => '');
    if (/^Mode: /m.test(answer)) return;
    await sleep(30);
  }
  const why = isRunning(child) ? `does not serve after ${READY_DEADLINE_MS} ms` : 'did not start';
  const log = await readFile(logFile(dir), 'utf8').catch(() => '');
  throw new Error(
    `the real ZooKeeper ${why} on port ${port}; Java and ZooKeeper are installed by deploy/setup.sh. ` +
      `The end of its log:\n${log.slice(-2000)}`,
  );
}
