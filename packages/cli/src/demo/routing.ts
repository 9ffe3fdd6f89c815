import { readRunning } from '@tandem/discovery';

/** What HAProxy routes to at a moment, as it says itself. */
export interface Route {
  readonly ports: ReadonlySet<number>;
  readonly worker: string;
}

/** Looks at HAProxy again and again, so that the demo can say when routing followed. */
export interface Routing {
  readonly current: Route | undefined;
  /** Every route that was different from the one before, oldest first. */
  readonly history: readonly Route[];
  /** The moment (performance.now) at which a route satisfied `isSo`, or undefined after `limitMs`. */
  until(isSo: (route: Route) => boolean, limitMs: number): Promise<number | undefined>;
  stop(): void;
}

const LOOK_EVERY_MS = 5;

function sameSet<T>(a: ReadonlySet<T>, b: ReadonlySet<T>): boolean {
  return a.size === b.size && [...a].every((item) => b.has(item));
}

export function watchRouting(options: { socket: string; backend: string }): Routing {
  const history: Route[] = [];
  let current: Route | undefined;
  let waiting: { isSo: (route: Route) => boolean; resolve: (at: number | undefined) => void }[] = [];
  let stopped = false;

  function take(route: Route): void {
    const before = current;
    current = route;
    if (before?.worker !== route.worker || !sameSet(before.ports, route.ports)) history.push(route);
    const met = waiting.filter(({ isSo }) => isSo(route));
    waiting = waiting.filter((one) => !met.includes(one));
    for (const { resolve } of met) resolve(performance.now());
  }

  async function look(): Promise<void> {
    try {
      const running = await readRunning(options.socket);
      const servers = [...(running.backends.get(options.backend)?.values() ?? [])];
      const ports = servers.filter((server) => server.state === 'ready').map((server) => server.port);
      take({ ports: new Set(ports), worker: running.incarnation });
    } catch {
      // Away for the moment: the next look tells.
    }
    if (!stopped) setTimeout(() => void look(), LOOK_EVERY_MS);
  }
  void look();

  return {
    get current() {
      return current;
    },
    history,
    until(isSo, limitMs) {
      return new Promise((resolve) => {
        if (current !== undefined && isSo(current)) {
          resolve(performance.now());
          return;
        }
        const timer = setTimeout(() => resolve(undefined), limitMs);
        waiting.push({
          isSo,
          resolve(at) {
            clearTimeout(timer);
            resolve(at);
          },
        });
      });
    },
    stop() {
      stopped = true;
    },
  };
}
