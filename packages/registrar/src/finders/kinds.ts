import type { Finder, FinderScene } from '../finder.ts';
import {
  createDockerFinder,
  type DockerFinderConfig,
  DockerFinderSection,
  resolveDockerFinder,
} from './docker.ts';

/** Every kind of finder: a key of `registrar` in the host file, its schema here, its factory below. */
export const finderKeys = {
  docker: DockerFinderSection.optional().describe('registers containers by their labels'),
};

/** The finders that a host file asks for. */
export interface FindersConfig {
  readonly docker?: DockerFinderConfig | undefined;
}

export function createFinders({ docker }: FindersConfig, scene: FinderScene): Finder[] {
  return docker === undefined ? [] : [createDockerFinder(docker, scene)];
}

/** The same with the files that they name found: relative ones lie beside the host file. */
export function resolveFinderFiles(config: FindersConfig, absolute: (file: string) => string): FindersConfig {
  return { docker: config.docker === undefined ? undefined : resolveDockerFinder(config.docker, absolute) };
}
