import { mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import path from 'node:path';

import {
  createBackoff,
  createLatest,
  type ErrorCode,
  type Instance,
  isTandemError,
  type Latest,
  type Log,
  messageOf,
  type Rejection,
  runCommand,
  settled,
  TandemError,
  watchDirectories,
  writeFileAtomic,
} from '@tandem/core';

import { CANDIDATE, type TemplateConfig } from '../config/outputs.ts';
import type { Offers, Output } from '../output.ts';
import { type Complaint, createComplaint } from './complaint.ts';
import { holdsText } from './kept-file.ts';
import { type TemplateData, toTemplateData } from './template-data.ts';
import { compileTemplate, type Template } from './template-engine.ts';
import { createTemplateMemory, markOf, type TemplateMemoryStore } from './template-memory.ts';

const LOOK_MS = 2_000;
const FIRST_WAIT_MS = 10_000;
const MAX_OUTPUT = 2_000;

export interface TemplateOutputDeps {
  readonly stateDir: string;
  readonly log: Log;
  /** How long the first rendering waits for services of which nothing is known. */
  readonly firstWaitMs?: number;
}

/**
 * Keeps a file that a Handlebars template becomes. The text is written beside the target, `check` has to take it, only
 * then it becomes the target, and `reload` makes it known. Equal text does nothing, also after a restart. A refused text
 * leaves the target as it is; while the newest template makes such texts, the last one that did not is used. A reload
 * that failed, or of whose success nothing is known, is run again. Edited or deleted targets are put back.
 */
export function createTemplateOutput(config: TemplateConfig, deps: TemplateOutputDeps): Output {
  return new TemplateOutput(config, deps);
}

class TemplateOutput implements Output {
  readonly #config: TemplateConfig;
  readonly #log: Log;
  readonly #firstWaitMs: number;
  readonly #memory: TemplateMemoryStore;
  readonly #offered: Latest<Offers> = createLatest();
  readonly #wake: Latest<true> = createLatest();
  readonly #backoff = createBackoff({ baseMs: 500, maxMs: 60_000 });
  readonly #reading: Complaint;
  readonly #updating: Complaint;
  readonly #complaints = new Map<string, string>();
  #offers: Offers | undefined;
  #known: ReadonlyMap<string, readonly Instance[]> = new Map();
  #source: string | undefined;
  #newest: Template | undefined;
  /** The last one whose text the check has taken. */
  #accepted: Template | undefined;
  /** The marks of the text that is the target, and of that with which the last reload succeeded. */
  #installed: string | undefined;
  #loaded: string | undefined;
  #hasRendered = false;
  #notBefore = -Infinity;
  #soon: NodeJS.Timeout | undefined;

  constructor(config: TemplateConfig, { stateDir, log, firstWaitMs = FIRST_WAIT_MS }: TemplateOutputDeps) {
    this.#config = config;
    this.#log = log.child({ output: config.name });
    this.#firstWaitMs = firstWaitMs;
    this.#memory = createTemplateMemory(stateDir, config.target, this.#log);
    this.#reading = createComplaint(this.#log, {
      failed: 'a template is broken, its last good version stays in use',
      over: 'a template is whole again',
    });
    this.#updating = createComplaint(this.#log, {
      failed: 'cannot bring the target of a template up to date, trying again',
      over: 'the target of a template is up to date again',
    });
  }

  offer(offers: Offers): void {
    this.#offered.set(offers);
  }

  async run(signal: AbortSignal): Promise<void> {
    const close = () => {
      this.#offered.close();
      this.#wake.close();
    };
    signal.addEventListener('abort', close, { once: true });
    if (signal.aborted) close();
    const looks = setInterval(() => this.#wake.set(true), LOOK_MS);
    try {
      await this.#remember();
      await Promise.all([this.#gather(), this.#watch(signal), this.#keep(signal)]);
    } finally {
      clearTimeout(this.#soon);
      clearInterval(looks);
      signal.removeEventListener('abort', close);
    }
  }

  /** Offers count once they have settled; what looks after the target in between has those from before. */
  async #gather(): Promise<void> {
    for await (const offers of settled(this.#offered, this.#config.settle)) {
      this.#offers = offers;
      this.#hasChanged();
    }
  }

  async #watch(signal: AbortSignal): Promise<void> {
    const directory = path.dirname(this.#config.template);
    for await (const _ of watchDirectories([directory], { signal })) {
      if (await this.#readTemplate()) this.#hasChanged();
    }
  }

  async #keep(signal: AbortSignal): Promise<void> {
    const startedAt = performance.now();
    for await (const _ of this.#wake) {
      if (this.#offers === undefined || performance.now() < this.#notBefore) continue;
      await this.#readTemplate();
      try {
        const data = this.#toData(this.#offers, this.#firstWaitMs - (performance.now() - startedAt));
        if (data === undefined) continue;
        await this.#update(data, signal);
        this.#backoff.reset();
        this.#updating.over({ target: this.#config.target });
      } catch (error) {
        if (signal.aborted) return;
        const retryMs = Math.round(this.#backoff.next());
        this.#notBefore = performance.now() + retryMs;
        this.#lookIn(retryMs);
        this.#updating.failed(error, { target: this.#config.target });
      }
    }
  }

  /** Something new is tried at once, whatever has failed before. */
  #hasChanged(): void {
    this.#notBefore = -Infinity;
    this.#wake.set(true);
  }

  #lookIn(ms: number): void {
    clearTimeout(this.#soon);
    this.#soon = setTimeout(() => this.#wake.set(true), Math.ceil(ms) + 1);
  }

  /** Says whether there is another template than before. A broken one changes nothing. */
  async #readTemplate(): Promise<boolean> {
    const { template: file } = this.#config;
    try {
      const source = await readFile(file, 'utf8').catch((error: unknown) => {
        throw new TandemError('TEMPLATE_BROKEN', `${file}: ${messageOf(error)}`, { cause: error });
      });
      if (source === this.#source) return false;
      this.#newest = compileTemplate(source, file);
      this.#source = source;
      this.#reading.over({ template: file });
      return true;
    } catch (error) {
      // The good version may come back as it was.
      this.#source = undefined;
      this.#reading.failed(error, { template: file });
      return false;
    }
  }

  /** What the template shall see; undefined while it is worth waiting for services of which nothing is known. */
  #toData(offers: Offers, waitMs: number): TemplateData | undefined {
    const known = new Map<string, readonly Instance[]>();
    for (const [name, offer] of offers) {
      const instances = offer.instances ?? this.#known.get(name);
      if (instances !== undefined) known.set(name, instances);
    }
    if (known.size < offers.size && !this.#hasRendered && waitMs > 0) {
      this.#lookIn(waitMs);
      return undefined;
    }
    this.#known = known;
    const { data, rejected } = toTemplateData(offers, known, this.#config);
    for (const name of this.#complaints.keys()) if (!offers.has(name)) this.#complaints.delete(name);
    for (const name of offers.keys()) this.#complain(name, rejected.get(name) ?? []);
    return data;
  }

  async #update(data: TemplateData, signal: AbortSignal): Promise<void> {
    let refusal: TandemError | undefined;
    for (const template of new Set([this.#newest, this.#accepted])) {
      if (template === undefined) continue;
      try {
        await this.#install(template.render(data), signal);
        this.#accepted = template;
        this.#hasRendered = true;
        break;
      } catch (error) {
        if (!isTandemError(error, 'TEMPLATE_BROKEN') && !isTandemError(error, 'TEMPLATE_REFUSED'))
          throw error;
        refusal ??= error;
      }
    }
    await this.#reload(signal);
    await this.#memory.save({ loaded: this.#loaded, known: this.#known });
    if (refusal !== undefined) throw refusal;
  }

  /** Makes the target this text, if the check takes it. */
  async #install(text: string, signal: AbortSignal): Promise<void> {
    const { target, mode, check, timeoutMs } = this.#config;
    const mark = markOf(text);
    if (await holdsText(target, text)) {
      this.#installed = mark;
      return;
    }
    if (this.#installed === mark)
      this.#log.warn({ target }, 'somebody has changed the target of a template, it is put back');
    const { dir, base } = path.parse(target);
    const candidate = path.join(dir, `.${base}.${process.pid}.candidate`);
    try {
      // A failure of this one shows in the next.
      await mkdir(dir, { recursive: true, mode: 0o755 }).catch(() => {});
      await writeFileAtomic(candidate, text, { mode, exactMode: true, durable: true });
      if (check !== undefined) {
        const argv = check.map((word) => word.replaceAll(CANDIDATE, () => candidate));
        await execute(argv, { signal, timeoutMs }, 'TEMPLATE_REFUSED');
      }
      // Whatever is read from here on is not what the last reload has read.
      this.#loaded = undefined;
      await this.#memory.save({ loaded: undefined, known: this.#known });
      await replace(candidate, target);
    } finally {
      await rm(candidate, { force: true }).catch(() => {});
    }
    this.#installed = mark;
    this.#log.info({ target }, 'a template has a new target');
  }

  async #reload(signal: AbortSignal): Promise<void> {
    const { reload, timeoutMs } = this.#config;
    const installed = this.#installed;
    if (reload === undefined || installed === undefined || installed === this.#loaded) return;
    await execute(reload, { signal, timeoutMs }, 'TEMPLATE_RELOAD_FAILED');
    this.#loaded = installed;
  }

  /** What a former life knew, and the candidates that it left behind. */
  async #remember(): Promise<void> {
    const { loaded, known } = await this.#memory.load();
    this.#loaded = loaded;
    this.#known = known;
    const { dir, base } = path.parse(this.#config.target);
    const names = await readdir(dir === '' ? '.' : dir).catch(() => []);
    for (const name of names) {
      const [before, after] = name.split(`${base}.`);
      if (/^\.{1,2}$/.test(before ?? '') && /^\d+\.candidate(\.\d+\.\d+\.tmp)?$/.test(after ?? ''))
        await rm(path.join(dir, name), { force: true }).catch(() => {});
    }
  }

  /** Says what is set aside once, when it changes. */
  #complain(service: string, rejected: readonly Rejection[]): void {
    const text = JSON.stringify(rejected);
    if (text === (this.#complaints.get(service) ?? '[]')) return;
    this.#complaints.set(service, text);
    if (rejected.length === 0) return;
    const facts = { service, count: rejected.length, rejected: rejected.slice(0, 10) };
    this.#log.warn(facts, 'kept text of the registry out of a template');
  }
}

/** Runs a program that has to exit with 0; throws with what it said otherwise. */
async function execute(
  argv: readonly string[],
  options: { signal: AbortSignal; timeoutMs: number },
  code: ErrorCode,
): Promise<void> {
  const result = await runCommand(argv, options);
  if (result.kind === 'exited' && result.code === 0) return;
  const output = result.output.trim().slice(-MAX_OUTPUT);
  const said = output === '' ? '' : `: ${output}`;
  throw new TandemError(code, `${argv[0] ?? ''} ${endingOf(result, options.timeoutMs)}${said}`, {
    details: { argv, output },
  });
}

function endingOf(result: Awaited<ReturnType<typeof runCommand>>, timeoutMs: number): string {
  switch (result.kind) {
    case 'exited':
      return `exited with ${result.code}`;
    case 'killed':
      return `was killed by ${result.signal}`;
    case 'timed-out':
      return `took longer than ${timeoutMs} ms`;
    case 'not-started':
      return `cannot be started (${messageOf(result.cause)})`;
  }
}

async function replace(candidate: string, target: string): Promise<void> {
  try {
    await rename(candidate, target);
  } catch (error) {
    throw new TandemError('FILE_WRITE_FAILED', `cannot write ${target}: ${messageOf(error)}`, {
      cause: error,
      details: { file: target },
    });
  }
}
