import type { Routing } from './routing.ts';
import type { Timeline } from './timeline.ts';
import { type Failure, startTraffic, type Traffic } from './traffic.ts';
import { CHECK, type Daemon, type World } from './world.ts';

export const REQUESTS_PER_SECOND = 200;
/** What is promised for the way from a change to routing, and how much more a busy machine may take here. */
const OUT_MS = CHECK.intervalMs * CHECK.fall + 100;
const IN_MS = CHECK.intervalMs * CHECK.rise + 100;
const RELOAD_MS = 2_000;
const LIMIT_MS = 15_000;
const SLACK_MS = 1_500;

/** What came of playing the script. */
export interface Outcome {
  readonly requests: number;
  readonly failed: readonly Failure[];
  /** Requests lost while HAProxy itself was dead; nobody can promise those. */
  readonly lostWithHaproxy: number;
  readonly haproxyBackAfterMs: number | undefined;
  readonly reloads: readonly string[];
  readonly slowest: { readonly what: string; readonly ms: number } | undefined;
  /** Promises that were not kept, in words. Empty is a success. */
  readonly broken: readonly string[];
}

/** Plays every event once, with `pauseMs` of quiet traffic between them. */
export async function playScript(deps: {
  world: World;
  routing: Routing;
  traffic: Traffic;
  timeline: Timeline;
  pause: () => Promise<void>;
}): Promise<Outcome> {
  const script = new Script(deps);
  await script.killInstance('web-2');
  await script.restartInstance('web-2');
  await script.join('web-4');
  await script.drain('web-1');
  await script.restartDaemon('discover', 'discovery daemon');
  await script.restartDaemon('register', 'registrar');
  await script.changeDefinition();
  await script.killHaproxy();
  return script.outcome();
}

class Script {
  readonly #world: World;
  readonly #routing: Routing;
  readonly #traffic: Traffic;
  readonly #timeline: Timeline;
  readonly #pause: () => Promise<void>;
  readonly #broken: string[] = [];
  #slowest: Outcome['slowest'];
  #haproxyDied: { at: number; backAt: number | undefined } | undefined;

  constructor(deps: Parameters<typeof playScript>[0]) {
    this.#world = deps.world;
    this.#routing = deps.routing;
    this.#traffic = deps.traffic;
    this.#timeline = deps.timeline;
    this.#pause = deps.pause;
  }

  async killInstance(name: string): Promise<void> {
    const port = this.#world.portOf(name);
    this.#timeline.act(`kill -9 of instance ${name} (port ${port})`);
    const at = performance.now();
    await this.#world.signalInstance(name, 'SIGKILL');
    await this.#expect(`${name} out of rotation`, at, OUT_MS, (ports) => !ports.has(port));
    await this.#pause();
  }

  async restartInstance(name: string): Promise<void> {
    this.#timeline.act(`start instance ${name} again`);
    const at = await this.#world.startInstance(name);
    await this.#expect(`${name} back in rotation`, at, IN_MS, (ports) => ports.has(this.#world.portOf(name)));
    await this.#pause();
  }

  async join(name: string): Promise<void> {
    await this.#world.startInstance(name);
    this.#timeline.act(
      `a new instance joins: ${name} (port ${this.#world.portOf(name)}), by a new service file`,
    );
    const at = performance.now();
    await this.#world.writeInstanceFile(name);
    await this.#expect(`${name} in rotation`, at, IN_MS + 100, (ports) =>
      ports.has(this.#world.portOf(name)),
    );
    await this.#pause();
  }

  async drain(name: string): Promise<void> {
    const port = this.#world.portOf(name);
    this.#timeline.act(
      `instance ${name} leaves by drain: it fails its check, serves on, and ends when nobody asks`,
    );
    const at = performance.now();
    const gone = this.#world.signalInstance(name, 'SIGTERM');
    await this.#expect(`${name} out of rotation`, at, OUT_MS, (ports) => !ports.has(port));
    await gone;
    this.#timeline.follow(`${name} has ended after ${ms(performance.now() - at)}, with nothing under way`);
    await this.#world.removeInstanceFile(name);
    await this.#pause();
  }

  /** Nobody may notice: same worker, same route, before and after. */
  async restartDaemon(daemon: Daemon, title: string): Promise<void> {
    const seen = this.#routing.history.length;
    this.#timeline.act(`kill -9 of the ${title}`);
    await this.#world.killDaemon(daemon);
    await this.#pause();
    this.#timeline.act(`start the ${title} again`);
    this.#world.startDaemon(daemon);
    await this.#pause();
    await this.#pause();
    const changes = this.#routing.history.length - seen;
    if (changes === 0)
      this.#timeline.follow('routing did not change, HAProxy went on, nothing was withdrawn');
    else this.#broken.push(`routing changed ${changes} times around the restart of the ${title}`);
  }

  async changeDefinition(): Promise<void> {
    const worker = this.#routing.current?.worker;
    this.#timeline.act('the service definition changes: balance leastconn');
    const at = performance.now();
    await this.#world.writeServiceFile({ balance: 'leastconn' });
    const reloadedAt = await this.#routing.until((route) => route.worker !== worker, LIMIT_MS);
    this.#judge('a reload has put the new definition in place', at, reloadedAt, RELOAD_MS);
    await this.#pause();
  }

  async killHaproxy(): Promise<void> {
    const pid = await this.#world.haproxyPid();
    if (pid === undefined) throw new Error('the demo has lost its HAProxy');
    this.#timeline.act(`kill -9 of HAProxy itself (pid ${pid})`);
    const at = performance.now();
    this.#haproxyDied = { at, backAt: undefined };
    process.kill(pid, 'SIGKILL');
    await this.#routing.until((route) => route.worker.length > 0, 0);
    const worker = this.#routing.current?.worker;
    const backAt = await this.#routing.until((route) => route.worker !== worker, LIMIT_MS);
    const answeredAt = await this.#traffic.nextAnswer();
    this.#haproxyDied = { at, backAt: answeredAt };
    if (backAt === undefined) this.#broken.push('HAProxy did not come back');
    else
      this.#timeline.follow(
        `HAProxy serves again after ${ms(answeredAt - at)}, with the membership of its file`,
      );
    await this.#pause();
  }

  async outcome(): Promise<Outcome> {
    await this.#traffic.stop();
    const died = this.#haproxyDied;
    const isLost = (failure: Failure) =>
      died !== undefined && failure.failedAt >= died.at && failure.sentAt <= (died.backAt ?? Infinity);
    const failed = this.#traffic.failures.filter((failure) => !isLost(failure));
    const reloads = await this.#world.reloadReasons();
    if (failed.length > 0)
      this.#broken.push(`${failed.length} requests failed, the first: ${failed[0]?.reason}`);
    if (reloads.join() !== 'structure-changed')
      this.#broken.push(
        `one reload was due, for the changed definition; there were: ${reloads.join(', ') || 'none'}`,
      );
    return {
      requests: this.#traffic.sent,
      failed,
      lostWithHaproxy: this.#traffic.failures.length - failed.length,
      haproxyBackAfterMs: died?.backAt === undefined ? undefined : died.backAt - died.at,
      reloads,
      slowest: this.#slowest,
      broken: this.#broken,
    };
  }

  async #expect(
    what: string,
    since: number,
    promisedMs: number,
    isSo: (ports: ReadonlySet<number>) => boolean,
  ): Promise<void> {
    const at = await this.#routing.until(({ ports }) => isSo(ports), LIMIT_MS);
    this.#judge(what, since, at, promisedMs);
  }

  #judge(what: string, since: number, at: number | undefined, promisedMs: number): void {
    if (at === undefined) {
      this.#broken.push(`${what}: not within ${ms(LIMIT_MS)}`);
      return;
    }
    const took = at - since;
    this.#timeline.follow(`${what} after ${ms(took)} (promised: ${ms(promisedMs)})`);
    if (took > promisedMs + SLACK_MS)
      this.#broken.push(`${what}: took ${ms(took)}, promised were ${ms(promisedMs)}`);
    if (took > (this.#slowest?.ms ?? 0)) this.#slowest = { what, ms: took };
  }
}

/** Brings the host up: three instances, both daemons, HAProxy; and then the traffic. */
export async function startHost(world: World, routing: Routing, timeline: Timeline): Promise<Traffic> {
  timeline.act('start three instances, the registrar and the discovery daemon');
  const startedAt = performance.now();
  const names = ['web-1', 'web-2', 'web-3'];
  await Promise.all(names.map((name) => world.startInstance(name)));
  for (const name of names) await world.writeInstanceFile(name);
  await world.writeServiceFile({ balance: 'roundrobin' });
  world.startDaemon('register');
  world.startDaemon('discover');
  const at = await routing.until(({ ports }) => names.every((name) => ports.has(world.portOf(name))), 60_000);
  if (at === undefined)
    throw new Error(`HAProxy did not come up; see ${world.log('discover')} and ${world.log('register')}`);
  timeline.follow(`HAProxy routes to all three after ${ms(at - startedAt)}`);
  timeline.act(`traffic: ${REQUESTS_PER_SECOND} requests a second, half of them on kept connections`);
  return startTraffic({ port: world.port, perSecond: REQUESTS_PER_SECOND });
}

export function ms(value: number): string {
  return `${Math.round(value)} ms`;
}
