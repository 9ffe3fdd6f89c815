export {
  findRegistryProblems,
  openRegistry,
  type RegistryConfig,
  RegistrySection,
  resolveRegistryFiles,
  servicePath,
} from './kinds.ts';
export type { Announcer, Place, Registry, RegistryStatus } from './registry.ts';
