/**
 * The inner parts of the ZooKeeper client, for the project's own unit tests and for nobody else: production code imports
 * the package itself. Nothing here is promised to stay.
 */
export { type Connection, type ConnectionEvent, openConnection } from './zookeeper/connection.ts';
export { createDialer } from './zookeeper/dialer.ts';
export { openCredentials } from './zookeeper/credentials.ts';
export { createEphemeral } from './zookeeper/ephemeral.ts';
export { createFramer } from './zookeeper/framer.ts';
export { startHeartbeat } from './zookeeper/heartbeat.ts';
export { JuteReader, JuteWriter } from './zookeeper/jute.ts';
export {
  create,
  exists,
  getChildren,
  getData,
  NO_NODE,
  NODE_EXISTS,
  OPCODE,
  refusal,
  remove,
  sync,
} from './zookeeper/opcodes.ts';
export { createReconnectDelay } from './zookeeper/reconnect-delay.ts';
export { openZooKeeperRegistry } from './zookeeper/registry.ts';
export { readResume, writeResume } from './zookeeper/resume-file.ts';
export { createServerList } from './zookeeper/server-list.ts';
export { explainServer, parseServer } from './zookeeper/servers.ts';
export { openSession, type Session } from './zookeeper/session.ts';
export { openTls } from './zookeeper/tls.ts';
export { createWatchTable } from './zookeeper/watches.ts';
