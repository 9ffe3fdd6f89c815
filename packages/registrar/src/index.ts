export { announcementOf, type Circumstances, ORDINARY } from './announcement.ts';
export { type Check, type CheckContext, type ProbeResult, type Schedule } from './check.ts';
export { type CheckConfig, CheckSection, createCheck } from './checks/kinds.ts';
export { type RegisterConfig, RegisterSection, type ServiceRegistration } from './config.ts';
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
