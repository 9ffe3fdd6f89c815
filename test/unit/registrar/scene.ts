// A registrar on a clock that only the test moves, with checks that the test decides.
import type { TestContext } from 'node:test';

import { createRegistrar, openRegistrar, type Registrar, type RegistrarDeps } from '@tandem/registrar';

import { createManualClock, type ManualClock } from './manual-clock.ts';
import { createScriptedCheck, type ScriptedCheck, scriptedBy } from './scripted.ts';
import { createFakeRegistry, type FakeRegistry, HOST, recordLog } from './support.ts';

export interface Scene {
  readonly clock: ManualClock;
  readonly registry: FakeRegistry;
  readonly log: ReturnType<typeof recordLog>;
  readonly registrar: Registrar;
  /** What was asked of the registry since the last look. */
  readonly news: () => string[];
  /** The weight that stands at a place; `none` without one, undefined where nothing stands. */
  readonly weight: (key: string) => number | 'none' | undefined;
  readonly said: (message: string) => number;
}

export interface SceneOptions extends Partial<RegistrarDeps> {
  readonly registry?: FakeRegistry;
  readonly clock?: ManualClock;
  readonly checks?: Readonly<Record<number, ScriptedCheck>>;
  /** Where it remembers. Default: nowhere. */
  readonly stateDir?: string;
}

export async function enter(context: TestContext, options: SceneOptions = {}): Promise<Scene> {
  const { checks = { 80: createScriptedCheck('pass') }, stateDir, ...rest } = options;
  const registry = options.registry ?? createFakeRegistry();
  const clock = options.clock ?? createManualClock();
  const log = recordLog();
  const deps = { host: HOST, log, createCheck: scriptedBy(checks), ...rest, registry, clock };
  const registrar =
    stateDir === undefined ? createRegistrar(deps) : await openRegistrar({ ...deps, stateDir });
  context.after(async () => {
    const stopped = registrar.stop();
    await clock.advance(10_000);
    await stopped;
  });
  return {
    clock,
    registry,
    log,
    registrar,
    news: () => registry.history.splice(0),
    weight: (key) => {
      const instance = registry.standing.get(key);
      return instance === undefined ? undefined : (instance.weight ?? 'none');
    },
    said: (message) => log.lines.filter((line) => line.message === message).length,
  };
}

/** Whether something that is waited for has come true yet. */
export function watchOver(task: Promise<void>): { readonly isOver: boolean; readonly over: Promise<void> } {
  const watched = { isOver: false, over: wait() };
  async function wait(): Promise<void> {
    await task;
    watched.isOver = true;
  }
  return watched;
}
