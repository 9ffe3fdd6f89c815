/**
 * The inner parts of the registrar, for the project's own tests and for nobody else: production code imports the package
 * itself. Nothing here is promised to stay.
 */
export { createTarget, type Target } from './checks/address.ts';
export { compilePattern } from './checks/pattern.ts';
export {
  type ContainerRoster,
  lookAgainIn,
  NO_CONTAINERS,
  noteDoubt,
  noteEnd,
  noteList,
  present,
} from './finders/container-roster.ts';
export { type FoundContainer, type LabelOptions, readContainer } from './finders/docker-labels.ts';
export { mergeServices } from './all-services.ts';
export { chooseAddress, createAddresses } from './addresses.ts';
export { createDrainFiles } from './drain-files.ts';
export { CALM, type FlapDamping, type FlapState, heldForMs, noteDown, offencesAt } from './flap.ts';
export { createForgetfulMemory, openMemory } from './memory.ts';
export { openOverridesStore } from './overrides-store.ts';
export { isDrained, NO_OVERRIDES, withDrain, withoutDrain, withWeight } from './overrides.ts';
export { createSpread, nextInterval } from './pacing.ts';
export { slowWeight } from './slow-start.ts';
export { watchStalls } from './stalls.ts';
export { createHostThrottle, createThrottle } from './throttle.ts';
