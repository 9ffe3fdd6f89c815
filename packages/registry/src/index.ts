export type { Announcer, Place, Registry, RegistryStatus } from './registry.ts';
