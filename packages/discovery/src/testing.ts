/**
 * The inner parts of discovery, for the project's own tests and for nobody else: production code imports the package
 * itself. Nothing here is promised to stay.
 */
export { createAddressMemory, NO_MEMORY } from './address-memory.ts';
export { withAddresses } from './addresses.ts';
export { assumeKnown, type CatalogPolicy, type Known, passKnown, recordSnapshot } from './catalog.ts';
export { type Guard, guardChange, mergeInstances, openGuard, passTime } from './guard.ts';
export { isSameOrigin, originOf } from './origin.ts';
export { createHoldsStore } from './holds-store.ts';
export { followFallback } from './fallback.ts';
export { createFirstWords } from './first-words.ts';
export { findInstances } from './holding.ts';
export { preferNear } from './locality.ts';
export { createSelector, selectInstances, type SelectionInput } from './selection.ts';
export { chooseLeader, chooseSubset } from './subset.ts';
export { filtered, matchesFilter } from './filter.ts';
export { type Applied, type Applier, createApplier, type Look } from './haproxy/apply.ts';
export type { Desired } from './haproxy/desired.ts';
export { DiscoverySection } from './config/discovery.ts';
export {
  type FilesConfig,
  FilesSection,
  resolveOutputFiles,
  type TemplateConfig,
  TemplateSection,
} from './config/outputs.ts';
export { createFileOutput, renderInstances } from './outputs/file.ts';
export { compileTemplate } from './outputs/template-engine.ts';
export { toTemplateData } from './outputs/template-data.ts';
export { createTemplateOutput } from './outputs/template.ts';
export { createTemplateMemory } from './outputs/template-memory.ts';
export { keepApplied } from './haproxy/keep-applied.ts';
export {
  adoptServers,
  buildMembership,
  createMembershipBuilder,
  serversInFile,
  type Membership,
  type ReportedServer,
  type Server,
  serverAddress,
  serverArguments,
} from './haproxy/membership.ts';
export type { Allowance } from './haproxy/render.ts';
export type { Structure } from './haproxy/structure.ts';
export type { HoldKind, Offer, Offers, Output } from './output.ts';
export { createBinary } from './haproxy/binary.ts';
export { identify, isAlive } from './haproxy/identity.ts';
export { backendsWithKeptHealth, createKeptHealth, downServers } from './haproxy/kept-health.ts';
export { parseReloadAnswer, parseReloadCount } from './haproxy/master.ts';
export { alertsOf, createOutputFile } from './haproxy/output-file.ts';
export { findFatalLine } from './haproxy/preflight.ts';
export { type Circumstances, ORDINARY, planChanges, type Step } from './haproxy/plan.ts';
export { createForeignHoldsStore } from './haproxy/foreign-holds-store.ts';
export { RunningView } from './haproxy/running-view.ts';
export { findQuiet } from './haproxy/observe.ts';
export { createStateReader } from './haproxy/server-state.ts';
export { parseServerOptions } from './haproxy/server-options.ts';
export { abilitiesOf, staticOption } from './haproxy/versions.ts';
export { createHaproxyProcess, type HaproxyProcess } from './haproxy/process.ts';
export { createRetryPace, reloadTo } from './haproxy/reload.ts';
export { converse, executeSteps, readIdentity, type Running } from './haproxy/runtime.ts';
export { createStructureStore, type StructureStore } from './haproxy/structure-store.ts';
export { createSnapshotStore, type SavedCatalog } from './snapshot-store.ts';
export { publishedBy, reuseRecords, type Source, type SourceScene } from './source.ts';
export { pickPart } from './sources/multi.ts';
export { createSource, resolveSourceFiles, type SourceConfig, SourceSection } from './sources/kinds.ts';
export { bareImage, type ContainerQuery, readContainers } from './sources/docker-containers.ts';
export { readTasks, type TaskQuery } from './sources/marathon-tasks.ts';
export { remoteSource } from './sources/remote.ts';
export { createWorkers } from './haproxy/workers.ts';
export { endpointsOf, type SetAside } from './haproxy/parts.ts';
export { vetStructure, type VetDeps } from './haproxy/vet.ts';
export { whyTaken } from './haproxy/taken.ts';
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
  ledMap,
  type RunningEntry,
  withdrawnMap,
} from './haproxy/maps.ts';
export {
  assignSpares,
  noSpares,
  notesOf,
  placeMembership,
  placementOf,
  placeService,
  readNotes,
  SPARE_REST_MS,
  type Spares,
} from './haproxy/ports.ts';
export { createRouting, readSpares } from './haproxy/routing.ts';
export { instanceOf, readServing } from './haproxy/serving.ts';
