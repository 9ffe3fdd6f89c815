export { openRegistry, type RegistryConfig, RegistrySection, servicePath } from './kinds.ts';
export type { Announcer, Place, Registry, RegistryStatus } from './registry.ts';
