import { after, before } from 'node:test';

import { type EmbeddedZooKeeper, startEmbeddedZooKeeper } from '@tandem/embedded-zookeeper';

import { registryConformance } from '../conformance/registry.ts';
import { zookeeperConformance, zookeeperSubject } from '../conformance/zookeeper.ts';
import { noSurprises } from '../support/registries.ts';

let server: EmbeddedZooKeeper;
let count = 0;

before(async () => {
  server = await startEmbeddedZooKeeper();
});
after(() => server.close());
noSurprises();

const start = () => {
  count += 1;
  return zookeeperSubject(server.port, `/embedded/${count}`);
};
registryConformance('ZooKeeper registry on the embedded server', start);
zookeeperConformance('ZooKeeper registry on the embedded server', start);
