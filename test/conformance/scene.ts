import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

import type { Instance } from '@tandem/core';
import type { Announcer, Registry } from '@tandem/registry';

import { type Follower, follow, limit } from '../support/registries.ts';

/** One empty registry, reached through as many clients as a test wants. */
export interface RegistrySubject {
  open(options?: { resumeFile?: string }): Promise<Registry>;
  /** What really stands below a path, oldest first, by another way than through the clients. */
  standing(path: string): Promise<readonly Standing[]>;
}

/** One record: an instance that stands there twice is two of them. */
export interface Standing {
  /** Stays the same until it is written anew. */
  readonly mark: string;
  /** `name:weight` or `name` */
  readonly label: string;
}

/** A subject with a client, and an end for everything that a test opens. */
export async function enter<S extends RegistrySubject>(start: () => Promise<S> | S) {
  const subject = await start();
  const directory = await mkdtemp(path.join(tmpdir(), 'tandem-conformance-'));
  const registries: Registry[] = [];
  const followers: Follower[] = [];
  const open = async (options?: Parameters<S['open']>[0]): Promise<Registry> => {
    const registry = await subject.open(options);
    registries.push(registry);
    return registry;
  };
  const registry = await open();
  return {
    subject,
    registry,
    open,
    resumeFile: path.join(directory, 'session.json'),
    standing: (path: string) => subject.standing(path),
    async labels(path: string): Promise<string[]> {
      return (await subject.standing(path)).map(({ label }) => label).toSorted();
    },
    follow(path: string, of: Registry = registry): Follower {
      const follower = follow(of, path);
      followers.push(follower);
      return follower;
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(followers.map((follower) => follower.stop()));
      await Promise.all(registries.map((each) => each.close()));
      await rm(directory, { recursive: true, force: true });
    },
  };
}

export async function announce(registry: Registry, path: string, instance: Instance): Promise<Announcer> {
  const announcer = registry.announce(path, instance);
  announcer.set(instance);
  await announcer.agreed(limit());
  return announcer;
}
