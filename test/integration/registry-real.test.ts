import { after, before } from 'node:test';

import { registryConformance } from '../conformance/registry.ts';
import { type RealZooKeeper, startRealZooKeeper } from '../support/real-zookeeper.ts';
import { nodesOf, noSurprises, openTestRegistry } from '../support/registries.ts';

let server: RealZooKeeper;
let count = 0;

before(async () => {
  server = await startRealZooKeeper();
});
after(() => server.stop());
noSurprises();

registryConformance('ZooKeeper registry on a real server', () => {
  count += 1;
  const chroot = `/real/${count}`;
  return {
    open: (options) => openTestRegistry(server.port, { ...options, chroot }),
    nodes: nodesOf(server.port, chroot),
  };
});
