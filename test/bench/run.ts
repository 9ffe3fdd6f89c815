// Runs the benchmarks one after the other, or only those that are named: `npm run bench -- mirror herd`.
// Exits with 1 when one of them is over a budget.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

const ALL = [
  'propagation',
  'start',
  'boot',
  'churn',
  'scale',
  'detection',
  'mirror',
  'herd',
  'blackhole',
  'probes',
  'opening',
  'isolation',
];

const named = process.argv.slice(2);
const unknown = named.filter((name) => !ALL.includes(name));
if (unknown.length > 0) {
  console.error(`no such benchmark: ${unknown.join(', ')} (there are ${ALL.join(', ')})`);
  process.exit(2);
}
for (const name of named.length === 0 ? ALL : named) {
  console.log(`\n=== ${name}`);
  const file = fileURLToPath(new URL(`${name}.js`, import.meta.url));
  const child = spawn(process.execPath, ['--enable-source-maps', file], { stdio: 'inherit' });
  const [code] = (await once(child, 'exit')) as [number | null];
  if (code !== 0) process.exitCode = 1;
}
