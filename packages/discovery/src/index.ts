export { type Catalog } from './catalog.ts';
export { type DiscoverConfig, type DiscoveredService, DiscoverSection } from './config/discover.ts';
export { type HaproxyConfig, HaproxySection } from './config/haproxy.ts';
export { createDiscovery, type Discovery } from './discovery.ts';
export { createDesiredBuilder } from './haproxy/desired.ts';
export { buildStructure } from './haproxy/structure.ts';
export { checkConfig } from './haproxy/check-config.ts';
export { renderConfig, renderSample } from './haproxy/render.ts';
export { readMasterPid, readRunning } from './haproxy/runtime.ts';
