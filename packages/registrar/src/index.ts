export { announcementOf } from './announcement.ts';
export { type Check, type CheckContext, type ProbeResult, type Schedule } from './check.ts';
export { type CheckConfig, CheckSection, createCheck, resolveCheckFiles } from './checks/kinds.ts';
export { type RegisterConfig, RegisterSection, type ServiceRegistration } from './config.ts';
export { combineHealth, createHealth, type Health, type HealthState, nextHealth } from './health.ts';
export { type Clock } from './probe-loop.ts';
export { RegistrarSection, type RegistrarSettings } from './host-config.ts';
export { createRegistrar, type Registrar, type RegistrarDeps, type ServiceStatus } from './registrar.ts';
export { type CheckFactory, type CheckStatus } from './service.ts';
