import { type Log } from '@tandem/core';

import { placeKey, type ServiceRegistration } from './config.ts';
import type { Finder, Found } from './finder.ts';

/** Services of service files and those that finders have found, as one whole. */
export interface AllServices {
  /** The services of the service files from now on; incomplete while one of these cannot be read. */
  takeFiles(registrations: readonly ServiceRegistration[], options: { isComplete: boolean }): void;
  /** Ends every finder. What was handed on last stays. */
  end(): Promise<void>;
}

/**
 * Runs the finders and hands on the union of everything after each change. It is whole only when the service files were
 * read and every finder has answered: until then nothing that an earlier life announced may be withdrawn.
 */
export function followAllServices(deps: {
  readonly finders: readonly Finder[];
  readonly update: (services: readonly ServiceRegistration[], options: { isComplete: boolean }) => void;
  readonly log: Log;
}): AllServices {
  const { finders, update, log } = deps;
  const ending = new AbortController();
  const { signal } = ending;
  const found = new Map<Finder, Found>();
  let files: Found | undefined;
  let told = new Set<string>();

  function unite(): void {
    const parts = [files, ...finders.map((finder) => found.get(finder))];
    const { registrations, setAside } = mergeServices(parts.map((part) => part?.registrations ?? []));
    const texts = new Set<string>();
    for (const { registration, takenBy } of setAside) {
      const { service, origin, path, config } = registration;
      const facts = { service, origin, path, port: config.port, takenBy };
      const text = JSON.stringify(facts);
      if (!told.has(text)) log.error(facts, 'place is taken, service set aside');
      texts.add(text);
    }
    told = texts;
    update(registrations, { isComplete: parts.every((part) => part?.isComplete === true) });
  }
  async function follow(finder: Finder): Promise<void> {
    const take = (services: Found) => {
      if (signal.aborted) return;
      found.set(finder, services);
      unite();
    };
    try {
      await finder.follow(take, signal);
    } catch (error) {
      log.error({ err: error }, 'a finder is broken, keeping what it has found');
    }
  }
  const following = Promise.all(finders.map(follow));
  return {
    takeFiles(registrations, { isComplete }) {
      files = { registrations, isComplete };
      unite();
    },
    async end() {
      ending.abort();
      await following;
    },
  };
}

export interface SetAside {
  readonly registration: ServiceRegistration;
  /** Whoever has the place. */
  readonly takenBy: string;
}

/** All of the parts; of what wants one place the first gets it, which is how a service file wins over a container. */
export function mergeServices(parts: readonly (readonly ServiceRegistration[])[]): {
  readonly registrations: readonly ServiceRegistration[];
  readonly setAside: readonly SetAside[];
} {
  const [files = [], ...found] = parts;
  // Two service files that want one place are the registrar's to tell of.
  const owners = new Map(files.map((file) => [placeKey(file), file]));
  const registrations = [...files];
  const setAside: SetAside[] = [];
  for (const registration of found.flat()) {
    const owner = owners.get(placeKey(registration));
    if (owner === undefined) {
      owners.set(placeKey(registration), registration);
      registrations.push(registration);
    } else setAside.push({ registration, takenBy: owner.origin ?? `the service file of ${owner.service}` });
  }
  return { registrations, setAside };
}
