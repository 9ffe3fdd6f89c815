// A host that has followed several services in a ZooKeeper, and of which nothing runs any more: what it knew is saved.
import { startEmbeddedZooKeeper } from '@tandem/embedded-zookeeper';

import { createDiscoveryHost, type DiscoveryHost } from './discovery-host.ts';
import { announceMember, type Member } from './members.ts';
import { type Origin, startHttpOrigin } from './origin.ts';
import { freePorts } from './real-zookeeper.ts';

export interface SavedHost extends AsyncDisposable {
  readonly host: DiscoveryHost;
  readonly services: readonly { readonly name: string; readonly listen: number }[];
  /** The members of every service. */
  readonly origins: readonly Origin[];
}

/** Runs a daemon until it has saved all of it, then ends it, HAProxy and ZooKeeper. */
export async function createSavedHost(options: { services: number; members: number }): Promise<SavedHost> {
  const zookeeper = await startEmbeddedZooKeeper();
  const host = await createDiscoveryHost('', `127.0.0.1:${zookeeper.port}`);
  const origins = await Promise.all(Array.from({ length: options.members }, () => startHttpOrigin()));
  const members: Member[] = [];
  const end = async () => {
    await host[Symbol.asyncDispose]();
    for (const origin of origins) await origin.close();
  };
  try {
    const listens = await freePorts(options.services);
    const services = listens.map((listen, index) => ({ name: `service-${index}`, listen }));
    for (const { name, listen } of services) {
      await host.write(name, serviceFile(name, listen));
      for (const [index, origin] of origins.entries())
        members.push(
          await announceMember(zookeeper.port, `/services/${name}`, origin.instance(`i-${index}`)),
        );
    }
    const daemon = host.start();
    await Promise.all(
      services.map(({ name }) =>
        host.becomes(
          name,
          origins.map(({ port }) => port),
        ),
      ),
    );
    // Saves what is still to be saved; HAProxy would outlive it.
    await host.end(daemon, 'SIGTERM');
    await host.killHaproxy();
    return { host, services, origins, [Symbol.asyncDispose]: end };
  } catch (error) {
    await end();
    throw error;
  } finally {
    for (const member of members) await member.leave();
    await zookeeper.close();
  }
}

export function serviceFile(name: string, listen: number): string {
  return `service: ${name}\ndiscover: { listen: ${listen} }\n`;
}
