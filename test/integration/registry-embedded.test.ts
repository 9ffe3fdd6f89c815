import { after, before } from 'node:test';

import { type EmbeddedZooKeeper, startEmbeddedZooKeeper } from '@tandem/embedded-zookeeper';

import { registryConformance } from '../conformance/registry.ts';
import { nodesOf, noSurprises, openTestRegistry } from '../support/registries.ts';

let server: EmbeddedZooKeeper;
let count = 0;

before(async () => {
  server = await startEmbeddedZooKeeper();
});
after(() => server.close());
noSurprises();

registryConformance('ZooKeeper registry on the embedded server', () => {
  count += 1;
  const chroot = `/embedded/${count}`;
  return {
    open: (options) => openTestRegistry(server.port, { ...options, chroot }),
    nodes: nodesOf(server.port, chroot),
  };
});
