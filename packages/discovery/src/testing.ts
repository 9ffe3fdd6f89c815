/**
 * The inner parts of discovery, for the project's own tests and for nobody else: production code imports the package
 * itself. Nothing here is promised to stay.
 */
export { type CatalogEntry, emptyCatalog, forgetService, recordSnapshot } from './catalog.ts';
export { type Applied, type Applier, createApplier, type Look } from './haproxy/apply.ts';
export type { Desired } from './haproxy/desired.ts';
export { keepApplied } from './haproxy/keep-applied.ts';
export {
  adoptServers,
  buildMembership,
  createMembershipBuilder,
  optionsInFile,
  type Membership,
  type ReportedServer,
  type Server,
  serverAddress,
  serverArguments,
} from './haproxy/membership.ts';
export type { Structure } from './haproxy/structure.ts';
export { identify, isAlive } from './haproxy/identity.ts';
export { backendsWithKeptHealth, createKeptHealth, downServers } from './haproxy/kept-health.ts';
export { parseReloadAnswer, parseReloadCount } from './haproxy/master.ts';
export { alertsOf, createOutputFile } from './haproxy/output-file.ts';
export { findFatalLine } from './haproxy/preflight.ts';
export type { HoldKind, Offers } from './output.ts';
export { type Circumstances, ORDINARY, planChanges, type Step } from './haproxy/plan.ts';
export { RunningView } from './haproxy/running-view.ts';
export { createStateReader } from './haproxy/server-state.ts';
export { parseServerOptions } from './haproxy/server-options.ts';
export { abilitiesOf, staticOption } from './haproxy/versions.ts';
export { createHaproxyProcess, type HaproxyProcess } from './haproxy/process.ts';
export { createRetryPace, reloadTo } from './haproxy/reload.ts';
export { converse, executeSteps, readIdentity, type Running } from './haproxy/runtime.ts';
export { createStructureStore, type StructureStore } from './haproxy/structure-store.ts';
export { createSnapshotStore, type SnapshotStore } from './snapshot-store.ts';
export { createWorkers } from './haproxy/workers.ts';
export { type SetAside, vetStructure, type VetDeps, whyTaken } from './haproxy/vet.ts';
