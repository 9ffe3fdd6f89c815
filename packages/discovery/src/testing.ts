/**
 * The inner parts of discovery, for the project's own tests and for nobody else: production code imports the package
 * itself. Nothing here is promised to stay.
 */
export { assumeKnown, type CatalogPolicy, type Known, passKnown, recordSnapshot } from './catalog.ts';
export { type Guard, guardChange, mergeInstances, openGuard, passTime } from './guard.ts';
export { createHoldsStore } from './holds-store.ts';
export { findInstances } from './holding.ts';
export { preferNear } from './locality.ts';
export { createSelector, selectInstances, type SelectionInput } from './selection.ts';
export { chooseLeader, chooseSubset } from './subset.ts';
export { type AddressResolver, createAddressResolver, withAddresses } from './addresses.ts';
export { queryName } from './dns.ts';
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
export type { HoldKind, Offer, Offers, Output } from './output.ts';
export { type Circumstances, ORDINARY, planChanges, type Step } from './haproxy/plan.ts';
export { RunningView } from './haproxy/running-view.ts';
export { createStateReader } from './haproxy/server-state.ts';
export { parseServerOptions } from './haproxy/server-options.ts';
export { abilitiesOf, staticOption } from './haproxy/versions.ts';
export { createHaproxyProcess, type HaproxyProcess } from './haproxy/process.ts';
export { converse, executeSteps, readIdentity, type Running } from './haproxy/runtime.ts';
export { createStructureStore, type StructureStore } from './haproxy/structure-store.ts';
export { createSnapshotStore, type SavedCatalog } from './snapshot-store.ts';
export { publishedBy, reuseRecords, type Source, type SourceScene } from './source.ts';
export { pickPart } from './sources/multi.ts';
export { createSource, resolveSourceFiles, type SourceConfig, SourceSection } from './sources/kinds.ts';
export { type SetAside, vetStructure, type VetDeps, whyTaken } from './haproxy/vet.ts';
