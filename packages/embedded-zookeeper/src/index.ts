export {
  startEmbeddedZooKeeper,
  type EmbeddedZooKeeper,
  type EmbeddedZooKeeperOptions,
  type SessionSummary,
} from './server.ts';
