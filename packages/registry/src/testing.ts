/**
 * The inner parts of the registries, for the project's own tests and for nobody else: production code imports the package
 * itself. Nothing here is promised to stay.
 */
export { createMemoryStore, type MemoryStore } from './memory/store.ts';
export { type Children, createChildren } from './zookeeper/children.ts';
export { createPace } from './zookeeper/pace.ts';
export { type Connection, type ConnectionEvent, openConnection } from './zookeeper/connection.ts';
export { createAnnouncer } from './zookeeper/announcer.ts';
export { createDialer } from './zookeeper/dialer.ts';
export { openCredentials } from './zookeeper/credentials.ts';
export { createFramer } from './zookeeper/framer.ts';
export { startHeartbeat } from './zookeeper/heartbeat.ts';
export { JuteReader, JuteWriter } from './zookeeper/jute.ts';
export {
  BAD_VERSION,
  create,
  exists,
  getChildren,
  getData,
  multiRead,
  NO_NODE,
  NODE_EXISTS,
  OPCODE,
  refusal,
  remove,
  removeWatches,
  setRecursiveWatches,
  setData,
  sync,
} from './zookeeper/opcodes.ts';
export { createReconnectDelay } from './zookeeper/reconnect-delay.ts';
export { openZooKeeperRegistry } from './zookeeper/registry.ts';
export { createRecursiveWatches } from './zookeeper/recursive-watches.ts';
export { readResume, writeResume } from './zookeeper/resume-file.ts';
export { createServerList } from './zookeeper/server-list.ts';
export { explainServer, parseServer } from './zookeeper/servers.ts';
export { openSession, type Session } from './zookeeper/session.ts';
export { openTls } from './zookeeper/tls.ts';
export { createWatchTable } from './zookeeper/watches.ts';
