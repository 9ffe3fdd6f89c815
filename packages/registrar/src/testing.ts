/**
 * The inner parts of the registrar, for the project's own tests and for nobody else: production code imports the package
 * itself. Nothing here is promised to stay.
 */
export { createTarget, type Target } from './checks/address.ts';
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
