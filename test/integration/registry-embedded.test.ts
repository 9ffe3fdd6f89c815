import { after, before } from 'node:test';

import { type EmbeddedZooKeeper, startEmbeddedZooKeeper } from '@tandem/embedded-zookeeper';

import { registryConformance } from '../conformance/registry.ts';
import { zookeeperConformance, zookeeperSubject } from '../conformance/zookeeper.ts';
import { noSurprises } from '../support/registries.ts';

let server: EmbeddedZooKeeper;
/** One without persistent watches: changes are followed in classic mode. */
let older: EmbeddedZooKeeper;
let count = 0;

before(async () => {
  server = await startEmbeddedZooKeeper();
  older = await startEmbeddedZooKeeper({ generation: '3.5' });
});
after(() => Promise.all([server.close(), older.close()]));
noSurprises();

const start = () => {
  count += 1;
  return zookeeperSubject(server.port, `/embedded/${count}`);
};
registryConformance('ZooKeeper registry on the embedded server', start);
zookeeperConformance('ZooKeeper registry on the embedded server', start);

const startOnOlder = () => {
  count += 1;
  return zookeeperSubject(older.port, `/embedded/${count}`);
};
registryConformance('ZooKeeper registry on the embedded server of an older generation', startOnOlder);
zookeeperConformance('ZooKeeper registry on the embedded server of an older generation', startOnOlder);
