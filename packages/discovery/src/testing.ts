/**
 * The inner parts of discovery, for the project's own tests and for nobody else: production code imports the package
 * itself. Nothing here is promised to stay.
 */
export { type AddressResolver, createAddressResolver, withAddresses } from './addresses.ts';
export { type CatalogEntry, emptyCatalog, forgetService, recordSnapshot } from './catalog.ts';
export { queryName } from './dns.ts';
export { filtered, matchesFilter } from './filter.ts';
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
export { pickPart } from './sources/multi.ts';
export { createSource, resolveSourceFiles, type SourceConfig, SourceSection } from './sources/kinds.ts';
export { bareImage, type ContainerQuery, readContainers } from './sources/docker-containers.ts';
export {
  createLineSplitter,
  fetchBody,
  followLines,
  type HttpLimits,
  type HttpRequest,
} from './sources/http-client.ts';
export { readTasks, type TaskQuery } from './sources/marathon-tasks.ts';
export { type Listed, type Remote, remoteSource } from './sources/remote.ts';
export { createSnapshotStore, type SnapshotStore } from './snapshot-store.ts';
export { type SetAside, vetStructure, type VetDeps, whyTaken } from './haproxy/vet.ts';
