// For tests only: the demo's host, traffic and view of routing are what the end-to-end tests need too.
export { type Route, type Routing, watchRouting } from './demo/routing.ts';
export { startTraffic, type Traffic } from './demo/traffic.ts';
export { CHECK, createWorld, type Daemon, type World } from './demo/world.ts';
export { claim, listenClaim, overlap, settleClaims, type Version } from './claims.ts';
export { parseState } from './control/discovery-answers.ts';
export { discoveryRoutes } from './control/discovery-routes.ts';
export { parseRegistrarState } from './control/registrar-answers.ts';
export { type RegistrarFront, registrarRoutes } from './control/registrar-routes.ts';
export { hostProblems } from './host-problems.ts';
export { createServiceFiles } from './service-files.ts';
export { createServiceMemory } from './service-memory.ts';
export { announcedHost, type HostSettings, loadHostSettings, registryProblems } from './settings.ts';
export { formatService, formatStatus } from './status.ts';
export { printableJson } from './printable.ts';
export { formatRegistered, formatRegistrar, summarize } from './services.ts';
export { superviseDaemon } from './supervision.ts';
export { formatTable } from './table.ts';
