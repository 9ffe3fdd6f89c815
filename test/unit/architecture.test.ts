import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, test } from 'node:test';

const root = path.join(import.meta.dirname, '..', '..', '..');

/** Which packages of ours each package may import. Imports run one way: cli, daemons, registry, core. */
const PACKAGES: Readonly<Record<string, readonly string[]>> = {
  core: [],
  'embedded-zookeeper': [],
  registry: ['core'],
  registrar: ['core', 'registry'],
  discovery: ['core', 'registry'],
  cli: ['core', 'registry', 'registrar', 'discovery', 'embedded-zookeeper'],
};

/** Which files may import each npm package; `*` stands for part of a name. Schemas (zod) are everybody's. */
const DRIVERS: Readonly<Record<string, readonly string[]>> = {
  'node-zookeeper-client': ['registry/src/zookeeper/connection.ts', 'registry/src/zookeeper/opcodes.ts'],
  execa: ['core/src/run-command.ts', 'registrar/src/checks/command.ts'],
  handlebars: ['discovery/src/haproxy/render.ts', 'discovery/src/outputs/template-engine.ts'],
  pino: ['core/src/log.ts'],
  yaml: ['core/src/config/yaml.ts'],
  yargs: ['cli/src/run-cli.ts', 'cli/src/commands/*.ts'],
};

/** Folders whose files only their `kinds.ts` and each other may import, and `testing.ts` for tests. */
const KINDS: Readonly<Record<string, string>> = {
  'registrar/src/checks/': 'registrar/src/checks/kinds.ts',
  'registrar/src/finders/': 'registrar/src/finders/kinds.ts',
  'discovery/src/outputs/': 'discovery/src/outputs/kinds.ts',
  'discovery/src/sources/': 'discovery/src/sources/kinds.ts',
  'registry/src/zookeeper/': 'registry/src/kinds.ts',
  'registry/src/memory/': 'registry/src/kinds.ts',
};

interface Import {
  /** Such as `core/src/log.ts` */
  readonly file: string;
  readonly specifier: string;
}

const files = Object.keys(PACKAGES).flatMap((name) =>
  readdirSync(path.join(root, 'packages', name, 'src'), { recursive: true })
    .map((file) => `${name}/src/${String(file).replaceAll('\\', '/')}`)
    .filter((file) => file.endsWith('.ts') && !file.endsWith('.d.ts')),
);
const sources = new Map(files.map((file) => [file, readFileSync(path.join(root, 'packages', file), 'utf8')]));
const imports = [...sources].flatMap(([file, text]): Import[] =>
  [
    ...text.matchAll(
      /(?:^|\n)\s*(?:import|export)\b[^'";]*?from\s*'([^']+)'|\bimport\(\s*'([^']+)'\s*\)|(?:^|\n)import\s*'([^']+)'/g,
    ),
  ].map((match) => ({ file, specifier: match[1] ?? match[2] ?? match[3] ?? '' })),
);

function packageOf(file: string): string {
  return file.slice(0, file.indexOf('/'));
}

/** The file that a relative import means, such as `core/src/log.ts`. */
function target({ file, specifier }: Import): string {
  return path.posix.join(path.posix.dirname(file), specifier);
}

function offenders(isWrong: (one: Import) => boolean): string[] {
  return imports.filter(isWrong).map(({ file, specifier }) => `${file} imports ${specifier}`);
}

describe('the architecture', () => {
  test('the scan sees the imports of every package', () => {
    for (const name of Object.keys(PACKAGES)) {
      assert.ok(
        imports.some(({ file }) => packageOf(file) === name),
        `no imports found in ${name}`,
      );
    }
  });

  test('packages import only those below them, and only by their front door', () => {
    const wrong = offenders(({ file, specifier }) => {
      if (!specifier.startsWith('@tandem/')) return false;
      const allowed = PACKAGES[packageOf(file)] ?? [];
      return !allowed.some((name) => specifier === `@tandem/${name}`);
    });

    assert.deepEqual(wrong, []);
  });

  test('no relative import leaves its package', () => {
    const wrong = offenders(
      (one) => one.specifier.startsWith('.') && !target(one).startsWith(`${packageOf(one.file)}/src/`),
    );

    assert.deepEqual(wrong, []);
  });

  test('every npm driver stands behind its one file', () => {
    const wrong = offenders(({ file, specifier }) => {
      if (specifier.startsWith('.') || specifier.startsWith('node:') || specifier.startsWith('@tandem/'))
        return false;
      if (specifier === 'zod') return false;
      const allowed = DRIVERS[specifier] ?? [];
      return !allowed.some((pattern) =>
        new RegExp(`^${pattern.replaceAll('.', '\\.').replace('*', '[^/]+')}$`).test(file),
      );
    });

    assert.deepEqual(wrong, []);
  });

  test('what stands beside a kinds.ts is imported only through it', () => {
    const wrong = offenders((one) => {
      if (!one.specifier.startsWith('.') || one.file.endsWith('/testing.ts')) return false;
      const folder = Object.keys(KINDS).find(
        (prefix) => target(one).startsWith(prefix) && !one.file.startsWith(prefix),
      );
      return folder !== undefined && one.file !== KINDS[folder] && target(one) !== KINDS[folder];
    });

    assert.deepEqual(wrong, []);
  });

  test('sources and haproxy never import each other', () => {
    const wrong = offenders((one) => {
      const to = target(one);
      const crosses = (from: string, into: string) =>
        one.file.startsWith(`discovery/src/${from}/`) && to.startsWith(`discovery/src/${into}/`);
      return crosses('sources', 'haproxy') || crosses('haproxy', 'sources');
    });

    assert.deepEqual(wrong, []);
  });

  test('only the cli ends the process or listens for its signals', () => {
    const wrong = [...sources]
      .filter(([file]) => packageOf(file) !== 'cli')
      .filter(([, text]) => /\bprocess\s*\.\s*(exit|exitCode|on|once)\b/.test(text))
      .map(([file]) => file);

    assert.deepEqual(wrong, []);
  });

  test('only the cli reads the environment, but for the search path of children', () => {
    const wrong = [...sources]
      .filter(([file]) => packageOf(file) !== 'cli')
      .filter(([, text]) => /\bprocess\.env\b(?!\['PATH'\])/.test(text))
      .map(([file]) => file)
      .filter((file) => file !== 'registrar/src/checks/command.ts');

    assert.deepEqual(wrong, []);
  });

  test('the code says by itself which packages it needs', () => {
    for (const name of Object.keys(PACKAGES)) {
      const manifest = JSON.parse(
        readFileSync(path.join(root, 'packages', name, 'package.json'), 'utf8'),
      ) as {
        dependencies?: Record<string, string>;
      };
      const used = new Set(
        imports
          .filter(({ file, specifier }) => packageOf(file) === name && !/^(\.|node:)/.test(specifier))
          .map(({ specifier }) =>
            specifier
              .split('/')
              .slice(0, specifier.startsWith('@') ? 2 : 1)
              .join('/'),
          ),
      );

      assert.deepEqual(Object.keys(manifest.dependencies ?? {}).toSorted(), [...used].toSorted(), name);
    }
  });
});
