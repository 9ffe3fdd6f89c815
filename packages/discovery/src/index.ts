export { type Catalog } from './catalog.ts';
export {
  type DiscoverConfig,
  type DiscoveredService,
  DiscoverSection,
  type HaproxyConfig,
  HaproxySection,
} from './config.ts';
export { createDiscovery, type Discovery } from './discovery.ts';
export { buildMembership, buildStructure } from './haproxy/model.ts';
export { checkConfig } from './haproxy/check-config.ts';
export { renderConfig, renderSample } from './haproxy/render.ts';
export { readMasterPid, readRunning } from './haproxy/runtime.ts';
