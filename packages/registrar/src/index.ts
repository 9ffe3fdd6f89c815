export { type AllServices, followAllServices } from './all-services.ts';
export { announcementOf, type Circumstances, ORDINARY } from './announcement.ts';
export { type Check, type CheckContext, type ProbeResult, type Schedule } from './check.ts';
export { type CheckConfig, CheckSection, createCheck, resolveCheckFiles } from './checks/kinds.ts';
export { type RegisterConfig, RegisterSection, type ServiceRegistration } from './config.ts';
export { type Finder, type FinderScene, type Found } from './finder.ts';
export { createFinders, type FindersConfig, resolveFinderFiles } from './finders/kinds.ts';
export {
  combineHealth,
  createHealth,
  type Health,
  type HealthLimits,
  type HealthState,
  nextHealth,
  type Verdict,
} from './health.ts';
export { type Clock } from './clock.ts';
export { RegistrarSection, type RegistrarSettings } from './host-config.ts';
export { createRegistrar, openRegistrar, type RegistrarDeps } from './host-registrar.ts';
export {
  type DrainCause,
  type FlapHold,
  type OverrideAnswer,
  type Registrar,
  type ServiceStatus,
  type WeightStatus,
} from './registrar.ts';
export { createReports, type Report, type ReportAnswer, type Reports } from './reports.ts';
export { type CheckFactory, type CheckStatus } from './service.ts';
