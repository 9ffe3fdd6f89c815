import { after, before } from 'node:test';

import { registryConformance } from '../conformance/registry.ts';
import { zookeeperConformance, zookeeperSubject } from '../conformance/zookeeper.ts';
import { type RealZooKeeper, startRealZooKeeper } from '../support/real-zookeeper.ts';
import { noSurprises } from '../support/registries.ts';

let server: RealZooKeeper;
let count = 0;

before(async () => {
  server = await startRealZooKeeper();
});
after(() => server.stop());
noSurprises();

const start = () => {
  count += 1;
  return zookeeperSubject(server.port, `/real/${count}`);
};
registryConformance('ZooKeeper registry on a real server', start);
zookeeperConformance('ZooKeeper registry on a real server', start);
