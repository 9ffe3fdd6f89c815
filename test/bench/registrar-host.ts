// A registrar as a process of its own, and services on loopback ports for it to probe.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { askControl } from '@tandem/core';

import { unitArguments } from './unit-arguments.ts';
import { type Usage, usageOf } from './usage.ts';

const START_LIMIT_MS = 60_000;

export interface RegistrarHostOptions {
  /** The `registry` of the host file, as YAML. */
  readonly registry: string;
  /** By service, its `register` section as YAML. */
  readonly services: ReadonlyMap<string, string>;
}

export class RegistrarHost implements AsyncDisposable {
  readonly #directory: string;
  readonly #services: number;
  #daemon: ChildProcess | undefined;

  static async create({ registry, services }: RegistrarHostOptions): Promise<RegistrarHost> {
    const directory = await mkdtemp(path.join(tmpdir(), 'tandem-bench-'));
    await mkdir(path.join(directory, 'services.d'));
    await writeFile(
      path.join(directory, 'tandem.yaml'),
      `host: { name: bench, address: 127.0.0.1 }
registry: ${registry}
state_dir: state
registrar: { control: registrar.sock }
`,
    );
    for (const [service, register] of services) {
      const text = `service: ${service}\nregister: ${register}\n`;
      await writeFile(path.join(directory, 'services.d', `${service}.yaml`), text);
    }
    return new RegistrarHost(directory, services.size);
  }

  private constructor(directory: string, services: number) {
    this.#directory = directory;
    this.#services = services;
  }

  /** Starts the daemon, and resolves when so many services are announced. */
  async start(announced = this.#services): Promise<void> {
    const output = openSync(path.join(this.#directory, 'register.log'), 'a');
    this.#daemon = spawn(
      process.execPath,
      [...unitArguments('registrar'), '--config', path.join(this.#directory, 'tandem.yaml')],
      { stdio: ['ignore', output, output] },
    );
    closeSync(output);
    const giveUpAt = performance.now() + START_LIMIT_MS;
    while ((await this.#countAnnounced()) < announced) {
      if (performance.now() > giveUpAt || this.#daemon.exitCode !== null)
        throw new Error(`not everything is announced:\n${this.log().slice(-2_000)}`);
      await sleep(100);
    }
  }

  async #countAnnounced(): Promise<number> {
    const file = path.join(this.#directory, 'registrar.sock');
    const question = { file, daemon: 'registrar', method: 'GET', path: ['v1', 'state'] } as const;
    const state = (await askControl(question).catch(() => ({}))) as { services?: { announced: boolean }[] };
    return (state.services ?? []).filter(({ announced }) => announced).length;
  }

  log(): string {
    return readFileSync(path.join(this.#directory, 'register.log'), 'utf8');
  }

  usage(): Usage {
    return usageOf(this.#daemon?.pid ?? 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#daemon !== undefined && this.#daemon.exitCode === null) {
      const gone = once(this.#daemon, 'exit');
      this.#daemon.kill('SIGTERM');
      await gone;
    }
    await rm(this.#directory, { recursive: true, force: true });
  }
}
