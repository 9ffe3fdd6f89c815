/**
 * The inner parts of the registrar, for the project's own tests and for nobody else: production code imports the package
 * itself. Nothing here is promised to stay.
 */
export { createTarget, type Target } from './checks/address.ts';
export { compilePattern } from './checks/pattern.ts';
