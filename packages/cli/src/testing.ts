// For tests only: the demo's host, traffic and view of routing are what the end-to-end tests need too.
export { type Route, type Routing, watchRouting } from './demo/routing.ts';
export { startTraffic, type Traffic } from './demo/traffic.ts';
export { CHECK, createWorld, type Daemon, type World } from './demo/world.ts';
export {
  announcedHost,
  createServiceFiles,
  type HostSettings,
  loadHostSettings,
  registryProblems,
} from './settings.ts';
