import path from 'node:path';

import { sleepOrAborted } from '@tandem/core';
import { startEmbeddedZooKeeper } from '@tandem/embedded-zookeeper';

import { watchRouting } from './routing.ts';
import { ms, type Outcome, playScript, startHost } from './scenario.ts';
import { createTimeline, type Timeline } from './timeline.ts';
import { startTraffic } from './traffic.ts';
import { createWorld, type World } from './world.ts';

const DEFAULT_SECONDS = 30;
/** What the events of the script take by themselves, and how many pauses lie between them. */
const SCRIPT_SECONDS = 8;
const PAUSES = 13;

/** Runs the demo; true when the system did what it promises. Leaves nothing running, whatever happens. */
export async function runDemo(options: {
  seconds: number | undefined;
  zookeeper: string | undefined;
}): Promise<boolean> {
  const isLive = options.seconds === undefined && process.stdout.isTTY;
  const timeline = createTimeline((text) => process.stdout.write(text), process.stdout.isTTY);
  const interrupt = new AbortController();
  const onSignal = () => interrupt.abort();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, onSignal);
  const zookeeper = options.zookeeper === undefined ? await startEmbeddedZooKeeper() : undefined;
  const world = await createWorld(options.zookeeper ?? zookeeper?.connectString ?? '');
  const routing = watchRouting({ socket: world.runtimeSocket, backend: 'web' });
  let isKept = false;
  try {
    introduce(timeline, world, options.zookeeper ?? 'the embedded one');
    const outcome = await whileNotInterrupted(interrupt.signal, async () => {
      const traffic = await startHost(world, routing, timeline);
      const pauseMs = Math.max(
        300,
        (((options.seconds ?? DEFAULT_SECONDS) - SCRIPT_SECONDS) * 1_000) / PAUSES,
      );
      const pause = async () => void (await sleepOrAborted(pauseMs, interrupt.signal));
      await pause();
      return playScript({ world, routing, traffic, timeline, pause });
    });
    if (outcome === undefined) return false;
    isKept = summarise(timeline, outcome);
    if (isLive) await goOn(timeline, world, interrupt.signal);
    return isKept;
  } finally {
    routing.stop();
    await world.end({ keepFiles: !isKept });
    await zookeeper?.close();
    if (!isKept) timeline.say(`The files and logs are left in ${world.directory}.`);
  }
}

async function whileNotInterrupted<T>(signal: AbortSignal, task: () => Promise<T>): Promise<T | undefined> {
  return Promise.race([
    task(),
    new Promise<undefined>((resolve) =>
      signal.addEventListener('abort', () => resolve(undefined), { once: true }),
    ),
  ]);
}

function introduce(timeline: Timeline, world: World, zookeeper: string): void {
  timeline.say(`Tandem: a registrar, a discovery daemon, HAProxy and a toy service on this machine.
  ZooKeeper     ${zookeeper}
  haproxy.cfg   ${path.join(world.directory, 'run', 'haproxy.cfg')}
  logs          ${world.log('register')}
                ${world.log('discover')}
  try           curl -i http://127.0.0.1:${world.port}/
`);
}

function summarise(timeline: Timeline, outcome: Outcome): boolean {
  const { requests, failed, lostWithHaproxy, haproxyBackAfterMs, reloads, slowest, broken } = outcome;
  timeline.say(`
requests              ${requests}
failed                ${failed.length}
lost with HAProxy     ${lostWithHaproxy}${haproxyBackAfterMs === undefined ? '' : ` (it served again after ${ms(haproxyBackAfterMs)})`}
reloads               ${reloads.length}${reloads.length === 0 ? '' : ` (${reloads.join(', ')})`}
slowest propagation   ${slowest === undefined ? 'none' : `${ms(slowest.ms)} (${slowest.what})`}`);
  for (const promise of broken) timeline.say(`BROKEN PROMISE        ${promise}`);
  timeline.say(broken.length === 0 ? '\nEvery promise was kept.' : '\nNot every promise was kept.');
  return broken.length === 0;
}

/** After the script: traffic goes on, and whoever watches may play. */
async function goOn(timeline: Timeline, world: World, signal: AbortSignal): Promise<void> {
  timeline.say(
    `\nIt goes on until Ctrl-C: curl -i http://127.0.0.1:${world.port}/ or edit ${world.directory}/services.d.`,
  );
  const traffic = startTraffic({ port: world.port, perSecond: 50 });
  while (!(await sleepOrAborted(5_000, signal))) {
    timeline.follow(`${traffic.answered} requests answered, ${traffic.failures.length} failed`);
  }
  await traffic.stop();
}
