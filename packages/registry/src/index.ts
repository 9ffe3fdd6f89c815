export {
  findRegistryProblems,
  openRegistry,
  type RegistryConfig,
  RegistrySection,
  resolveRegistryFiles,
  servicePath,
} from './kinds.ts';
export { NODE_TYPES, type NodeType } from './registry.ts';
export type { AnnounceOptions, Announcer, Place, Registry, RegistryStatus } from './registry.ts';
