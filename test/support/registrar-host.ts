// A host with the real registrar as a child process, an embedded registry, and the view that other hosts have of it.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { type Instance, silentLog } from '@tandem/core';
import { type EmbeddedZooKeeper, startEmbeddedZooKeeper } from '@tandem/embedded-zookeeper';
import { openRegistry } from '@tandem/registry';

import { eventually } from './eventually.ts';
import { type Finished, root, tandem } from './tandem.ts';

const MAIN = path.join(root, 'packages', 'cli', 'dist', 'main.js');

/** Where a ZooKeeper listens. */
type Place = Pick<EmbeddedZooKeeper, 'connectString' | 'port'>;

export interface RegistrarHost<Z extends Place = EmbeddedZooKeeper> extends AsyncDisposable {
  readonly directory: string;
  readonly config: string;
  readonly hostFile: string;
  readonly servicesDir: string;
  readonly zookeeper: Z;
  write(name: string, text: string): Promise<void>;
  remove(name: string): Promise<void>;
  start(env?: NodeJS.ProcessEnv): ChildProcess;
  end(daemon: ChildProcess, signal: NodeJS.Signals): Promise<void>;
  /** The lines of every registrar's log with this message. */
  logged(message: string): Record<string, unknown>[];
  untilLogged(message: string, count?: number): Promise<void>;
  /** A command against this host. */
  command(...args: string[]): Promise<Finished>;
  /** What another host sees of a service by now; begins to look at the first call. */
  seen(service: string): readonly Instance[] | undefined;
  /** Every state in which another host has seen a service, as sorted ports, since it was there first. */
  history(service: string): readonly string[];
  /** Resolves when another host sees just these ports. */
  becomes(service: string, ports: readonly number[]): Promise<void>;
}

interface View {
  current: readonly Instance[] | undefined;
  readonly history: string[];
  ended: Promise<void>;
}

/** @param more lines for the host file */
export async function createRegistrarHost(
  more = '',
  options: { name?: string; zookeeper?: EmbeddedZooKeeper } = {},
): Promise<RegistrarHost> {
  const { name, zookeeper = await startEmbeddedZooKeeper({ tickTimeMs: 200 }) } = options;
  const host = await createRegistrarHostAt(zookeeper, more, name);
  return {
    ...host,
    async [Symbol.asyncDispose]() {
      await host[Symbol.asyncDispose]();
      if (options.zookeeper === undefined) await zookeeper.close();
    },
  };
}

/** The same at a ZooKeeper of somebody else, who ends it. */
export async function createRegistrarHostAt<Z extends Place>(
  zookeeper: Z,
  more = '',
  name = 'h',
): Promise<RegistrarHost<Z>> {
  const directory = await mkdtemp(path.join(tmpdir(), 'tandem-registrar-'));
  const servicesDir = path.join(directory, 'services.d');
  await mkdir(servicesDir);
  const hostFile = `host: { name: ${name}, address: 127.0.0.1 }
registry: { zookeeper: { servers: ['${zookeeper.connectString}'], session_timeout: 3s } }
state_dir: state
discovery: { control: run/discovery.sock }
${more}`;
  const config = path.join(directory, 'tandem.yaml');
  await writeFile(config, hostFile);
  const registry = await openRegistry(
    {
      kind: 'zookeeper',
      pathTemplate: '/services/{service}',
      zookeeper: {
        servers: [{ host: '127.0.0.1', port: zookeeper.port }],
        chroot: '',
        sessionTimeoutMs: 4_000,
        pathEncoding: false,
        mirror: 'auto',
        tls: undefined,
        auth: undefined,
        acl: 'open',
      },
    },
    { log: silentLog },
  );
  const watching = new AbortController();
  const views = new Map<string, View>();
  const children = new Set<ChildProcess>();
  const log = path.join(directory, 'register.log');

  function viewOf(service: string): View {
    const known = views.get(service);
    if (known !== undefined) return known;
    const view: View = { current: undefined, history: [], ended: Promise.resolve() };
    views.set(service, view);
    view.ended = (async () => {
      for await (const { instances } of registry.watch(`/services/${service}`, watching.signal)) {
        view.current = instances;
        if (instances.length > 0 || view.history.length > 0) view.history.push(portsOf(instances));
      }
    })();
    return view;
  }

  async function end(daemon: ChildProcess, signal: NodeJS.Signals): Promise<void> {
    if (daemon.exitCode !== null || daemon.signalCode !== null) return;
    const gone = once(daemon, 'exit');
    daemon.kill(signal);
    await gone;
  }

  function logged(message: string): Record<string, unknown>[] {
    return readFileSync(log, 'utf8')
      .split('\n')
      .filter((line) => line.startsWith('{') && line.endsWith('}'))
      .map((line) => JSON.parse(line) as Record<string, unknown>)
      .filter((entry) => entry['msg'] === message);
  }

  return {
    directory,
    config,
    hostFile,
    servicesDir,
    zookeeper,
    write: (name, text) => writeFile(path.join(servicesDir, `${name}.yaml`), text),
    remove: (name) => rm(path.join(servicesDir, `${name}.yaml`)),
    start(env = {}) {
      const output = openSync(log, 'a');
      const child = spawn(process.execPath, ['--enable-source-maps', MAIN, 'register', '--config', config], {
        stdio: ['ignore', output, output],
        env: { ...process.env, ...env },
      });
      closeSync(output);
      children.add(child);
      child.once('exit', () => children.delete(child));
      return child;
    },
    end,
    logged,
    untilLogged: (message, count = 1) =>
      eventually(
        () => {
          if (logged(message).length < count) throw new Error(`never logged ${count} times: ${message}`);
        },
        { withinMs: 30_000 },
      ),
    command: (...args) => tandem([...args, '--config', config]),
    seen: (service) => viewOf(service).current,
    history: (service) => viewOf(service).history,
    becomes(service, ports) {
      const view = viewOf(service);
      const wanted = ports.toSorted((a, b) => a - b).join();
      return eventually(
        () => {
          const have = portsOf(view.current ?? []);
          if (view.current === undefined || have !== wanted)
            throw new Error(`${service} has [${have}] instead of [${wanted}]`);
        },
        { withinMs: 30_000 },
      );
    },
    async [Symbol.asyncDispose]() {
      for (const child of children) await end(child, 'SIGKILL');
      watching.abort();
      await Promise.all([...views.values()].map(({ ended }) => ended));
      await registry.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

function portsOf(instances: readonly Instance[]): string {
  return instances
    .map(({ port }) => port)
    .toSorted((a, b) => a - b)
    .join();
}
