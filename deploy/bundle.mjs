// One bundle per daemon, for hosts that want few files and a quick start: bundle/tandem-registrar.mjs and
// bundle/tandem-discovery.mjs, and bundle/tandem.mjs for the people there, with what they load on demand beside them.
import { cpSync, rmSync } from 'node:fs';
import path from 'node:path';

import { build } from 'esbuild';

const root = path.join(import.meta.dirname, '..');
const outdir = path.join(root, 'bundle');
rmSync(outdir, { recursive: true, force: true });

// Each by itself: what they share would else be loaded whole by each of them, with all that only others need.
for (const name of ['tandem', 'tandem-registrar', 'tandem-discovery']) {
  await build({
    absWorkingDir: root,
    entryPoints: [`packages/cli/src/bin/${name}.ts`],
    outdir,
    bundle: true,
    platform: 'node',
    target: 'node20',
    format: 'esm',
    minify: true,
    splitting: true,
    sourcemap: true,
    entryNames: '[name]',
    chunkNames: 'chunk-[hash]',
    outExtension: { '.js': '.mjs' },
    conditions: ['tandem-source'],
    // pino, handlebars and the ZooKeeper client are CommonJS and require Node's own modules.
    banner: {
      js: 'import{createRequire as tandemRequire}from"node:module";const require=tandemRequire(import.meta.url);',
    },
    logLevel: 'warning',
  });
}

// The template is read from beside the code.
cpSync(path.join(root, 'packages/discovery/src/haproxy/templates'), path.join(outdir, 'templates'), {
  recursive: true,
});
