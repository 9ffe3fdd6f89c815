// Containers behind a recorded API, told of as different daemons do.
import { type BackendPlace } from './http-backend.ts';
import { type DockerApi, eventOf, idOf, startDockerApi } from './docker-api.ts';

/**
 * `docker`: as version 1.41 of the API has it. `podman`: as that of Debian 12 (4.3) answers: its lists say nothing of
 * health and network, and a `health_status` event does not say the result.
 */
export type Dialect = 'docker' | 'podman';

export interface ContainerSetup {
  readonly labels: Readonly<Record<string, string>>;
  /** Ports inside, and where the host publishes them. */
  readonly ports?: Readonly<Record<number, number>>;
  readonly onHost?: boolean;
  readonly health?: 'starting' | 'healthy' | 'unhealthy';
}

export interface Containers {
  readonly api: DockerApi;
  /** By number; one that runs already is another one from now on. */
  start(number: number, setup: ContainerSetup): void;
  die(number: number): void;
  turn(number: number, health: ContainerSetup['health']): void;
  /** Does this without an event. */
  silently(change: () => void): void;
  /** What every list shows now. */
  list(): readonly unknown[];
}

export async function startContainers(dialect: Dialect, place: BackendPlace = {}): Promise<Containers> {
  const api = await startDockerApi(place);
  const running = new Map<number, ContainerSetup>();
  let isSilent = false;

  function list(): readonly unknown[] {
    return [...running].map(([number, setup]) => entryOf(dialect, number, setup));
  }
  function show(number: number, setup: ContainerSetup, actions: readonly string[]): void {
    api.serveSilently(list());
    api.inspected.clear();
    for (const [each, one] of running) api.inspected.set(idOf(each), inspectionOf(each, one));
    const attributes = { image: 'team/web:1.2', name: `web-${number}`, ...setup.labels };
    if (!isSilent) for (const action of actions) api.emit(eventOf(action, attributes, idOf(number)));
  }
  return {
    api,
    list,
    start(number, setup) {
      running.set(number, setup);
      show(number, setup, ['create', 'start']);
    },
    die(number) {
      const setup = running.get(number);
      if (setup === undefined) throw new Error(`no container ${number} runs`);
      running.delete(number);
      show(
        number,
        setup,
        dialect === 'docker' ? ['kill', 'die', 'stop', 'destroy'] : ['kill', 'die', 'cleanup', 'remove'],
      );
    },
    turn(number, health) {
      const setup = {
        ...(running.get(number) ?? { labels: {} }),
        ...(health === undefined ? {} : { health }),
      };
      running.set(number, setup);
      show(number, setup, [dialect === 'docker' ? `health_status: ${health}` : 'health_status']);
    },
    silently(change) {
      isSilent = true;
      change();
      isSilent = false;
    },
  };
}

function entryOf(
  dialect: Dialect,
  number: number,
  { labels, ports = {}, onHost, health }: ContainerSetup,
): unknown {
  const words = { starting: ' (health: starting)', healthy: ' (healthy)', unhealthy: ' (unhealthy)' };
  const published = Object.entries(ports).map(([inside, outside]) => ({
    ...(dialect === 'docker' ? { IP: '0.0.0.0' } : {}),
    PrivatePort: Number(inside),
    PublicPort: outside,
    Type: 'tcp',
  }));
  return {
    Id: idOf(number),
    Names: [`/web-${number}`],
    Image: 'team/web:1.2',
    Created: 1_700_000_000 + number,
    Ports: published,
    Labels: labels,
    State: 'running',
    Status: `Up 5 minutes${dialect === 'docker' && health !== undefined ? words[health] : ''}`,
    ...(dialect === 'docker' ? { HostConfig: { NetworkMode: networkOf(onHost) } } : {}),
    NetworkSettings: { Networks: onHost === true && dialect === 'podman' ? null : {} },
    Mounts: [],
  };
}

function inspectionOf(number: number, { labels, onHost, health }: ContainerSetup): unknown {
  return {
    Id: idOf(number),
    Name: `/web-${number}`,
    State: {
      Status: 'running',
      Running: true,
      ...(health === undefined ? {} : { Health: { Status: health, FailingStreak: 0, Log: [] } }),
    },
    Config: { Image: 'team/web:1.2', Labels: labels },
    HostConfig: { NetworkMode: networkOf(onHost) },
  };
}

function networkOf(onHost: boolean | undefined): string {
  return onHost === true ? 'host' : 'default';
}
