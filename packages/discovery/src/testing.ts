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
export type { HoldKind, Offers } from './output.ts';
export { type Circumstances, ORDINARY, planChanges, type Step } from './haproxy/plan.ts';
export { RunningView } from './haproxy/running-view.ts';
export { createStateReader } from './haproxy/server-state.ts';
export { parseServerOptions } from './haproxy/server-options.ts';
export { abilitiesOf, staticOption } from './haproxy/versions.ts';
export { createHaproxyProcess, type HaproxyProcess } from './haproxy/process.ts';
export { converse, executeSteps, readIdentity, type Running } from './haproxy/runtime.ts';
export { createStructureStore, type StructureStore } from './haproxy/structure-store.ts';
export { createSnapshotStore, type SnapshotStore } from './snapshot-store.ts';
export { endpointsOf, type SetAside, vetStructure, type VetDeps, whyTaken } from './haproxy/vet.ts';
export { type Endpoint, formatBind, overlaps, parseEndpoint } from './haproxy/endpoints.ts';
export { explainComplaint } from './haproxy/complaints.ts';
export { createLayout } from './haproxy/layout.ts';
export {
  type Ask,
  executeMapSteps,
  type MapStep,
  notesIn,
  parseMap,
  planMap,
  readMaps,
  renderMap,
  type RunningEntry,
} from './haproxy/maps.ts';
export {
  assignSpares,
  noSpares,
  notesOf,
  placeMembership,
  placementOf,
  placeService,
  readNotes,
  type Spares,
} from './haproxy/ports.ts';
export { createRouting, readSpares } from './haproxy/routing.ts';
