/**
 * The inner parts of discovery, for the project's own tests and for nobody else: production code imports the package
 * itself. Nothing here is promised to stay.
 */
export { filtered, matchesFilter } from './filter.ts';
export { assumeKnown, type CatalogPolicy, type Known, passKnown, recordSnapshot } from './catalog.ts';
export { type Guard, guardChange, mergeInstances, openGuard, passTime } from './guard.ts';
export { createHoldsStore } from './holds-store.ts';
export { findInstances } from './holding.ts';
export { preferNear } from './locality.ts';
export { createSelector, selectInstances, type SelectionInput } from './selection.ts';
export { chooseLeader, chooseSubset } from './subset.ts';
export { type Applier, createApplier } from './haproxy/apply.ts';
export type { Desired } from './haproxy/desired.ts';
export { keepApplied } from './haproxy/keep-applied.ts';
export {
  adoptServers,
  buildMembership,
  type Membership,
  type ReportedServer,
  type Server,
  serverAddress,
  serverArguments,
} from './haproxy/membership.ts';
export type { Structure } from './haproxy/structure.ts';
export type { Offers } from './output.ts';
export { planChanges, type Step } from './haproxy/plan.ts';
export { createHaproxyProcess, type HaproxyProcess } from './haproxy/process.ts';
export { converse, executeSteps, readIdentity, type Running } from './haproxy/runtime.ts';
export { createStructureStore, type StructureStore } from './haproxy/structure-store.ts';
export { publishedBy, reuseRecords, type Source, type SourceScene } from './source.ts';
export { createSource, type SourceConfig, SourceSection } from './sources/kinds.ts';
export { createSnapshotStore, type SavedCatalog } from './snapshot-store.ts';
export { type SetAside, vetStructure, type VetDeps, whyTaken } from './haproxy/vet.ts';
