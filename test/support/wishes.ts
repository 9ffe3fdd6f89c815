// What somebody wants of a few services, and what must stand in the registry because of it: the judge of a registrar.
import { type ServiceRegistration, RegisterSection } from '@tandem/registrar';

export const NAMES = ['a', 'b', 'c'] as const;
export type Name = (typeof NAMES)[number];
export const PORTS = [1, 2, 3] as const;
export type Port = (typeof PORTS)[number];
export const PATHS = ['/services/x', '/services/y'] as const;
const ADDRESS = '10.0.0.5';

export const WISHING_HOST = { name: 'i-1', address: ADDRESS, labels: {} };

/** What a service file says. */
export interface File {
  readonly port: Port;
  readonly path: (typeof PATHS)[number];
  readonly weight: number | undefined;
  readonly version: string;
  readonly address: string | undefined;
  readonly extra: Readonly<Record<string, unknown>>;
}

export interface Expected {
  readonly lines: readonly string[];
  /** Where something else may stand: where a service was that is not up where it shall be. */
  readonly tolerated: ReadonlySet<string>;
}

export class Wishes {
  readonly files = new Map<Name, File>();
  /** Where services were before they moved, in this life of the registrar. */
  readonly #former = new Map<Name, Set<string>>();
  readonly #weights = new Map<Name, number>();
  readonly #drained = new Set<Name>();
  readonly #exempt = new Set<Name>();
  readonly #isUp: (port: Port) => boolean;
  readonly #schedule: Readonly<Record<string, unknown>>;
  #isAllDrained = false;

  /** @param isUp whether a port passes its checks in the end */
  constructor(isUp: (port: Port) => boolean, schedule: Readonly<Record<string, unknown>>) {
    this.#isUp = isUp;
    this.#schedule = schedule;
  }

  /** Undefined: the file is gone. */
  change(name: Name, file: File | undefined): void {
    const before = this.files.get(name);
    if (file === undefined) {
      this.files.delete(name);
      this.#former.delete(name);
      return;
    }
    this.files.set(name, file);
    const former = this.#former.get(name) ?? new Set();
    if (before !== undefined) former.add(placeOf(before));
    former.delete(placeOf(file));
    this.#former.set(name, former);
  }

  /** The registrar has another life, which knows nothing of earlier places. */
  restart(): void {
    this.#former.clear();
  }

  drain(service: Name | undefined): void {
    if (service === undefined) {
      this.#isAllDrained = true;
      this.#exempt.clear();
      return;
    }
    this.#drained.add(service);
    this.#exempt.delete(service);
  }

  undrain(service: Name | undefined): void {
    if (service === undefined) {
      this.#isAllDrained = false;
      this.#exempt.clear();
      this.#drained.clear();
      return;
    }
    this.#drained.delete(service);
    if (this.#isAllDrained) this.#exempt.add(service);
  }

  weigh(service: Name, weight: number | undefined): void {
    if (weight === undefined) this.#weights.delete(service);
    else this.#weights.set(service, weight);
  }

  registrations(): ServiceRegistration[] {
    return this.#sorted().map(([service, { port, path, weight, version, address, extra }]) => ({
      service,
      path,
      config: RegisterSection.parse({
        port,
        ...(weight === undefined ? {} : { weight }),
        ...(address === undefined ? {} : { address }),
        labels: { version },
        checks: [{ tcp: this.#schedule }],
        ...extra,
      }),
    }));
  }

  expected(): Expected {
    const taken = new Set<string>();
    const lines: string[] = [];
    const tolerated = new Set<string>();
    for (const [name, file] of this.#sorted()) {
      const place = placeOf(file);
      // The first has it.
      if (taken.has(place)) continue;
      taken.add(place);
      const isDrained = this.#drained.has(name) || (this.#isAllDrained && !this.#exempt.has(name));
      if (isDrained) continue;
      if (this.#isUp(file.port)) {
        const own = (file.extra['weight'] as number | undefined) ?? file.weight;
        lines.push(`${place} ${this.#weights.get(name) ?? own ?? '-'} ${file.version}`);
      } else for (const former of this.#former.get(name) ?? []) tolerated.add(former);
    }
    return { lines: lines.toSorted(), tolerated };
  }

  #sorted(): [Name, File][] {
    return [...this.files].toSorted(([a], [b]) => (a < b ? -1 : 1));
  }
}

/** One record below a path, as `Expected` has it. */
export function lineOf(path: string, record: string): string {
  const { host, port, weight, labels } = JSON.parse(record) as {
    host: string;
    port: number;
    weight?: number;
    labels?: Record<string, string>;
  };
  return `${path} ${host}:${port} ${weight ?? '-'} ${labels?.['version']}`;
}

/** What stands and is not merely tolerated, in order: to be compared with the lines that are expected. */
export function untolerated(standing: readonly string[], { lines, tolerated }: Expected): string[] {
  const isTolerated = (line: string) =>
    !lines.includes(line) && tolerated.has(line.split(' ').slice(0, 2).join(' '));
  return standing.filter((line) => !isTolerated(line)).toSorted();
}

function placeOf({ path, port, address = ADDRESS }: File): string {
  return `${path} ${address}:${port}`;
}
