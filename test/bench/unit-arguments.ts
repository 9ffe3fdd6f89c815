import { readFileSync } from 'node:fs';
import path from 'node:path';

import { root } from '../support/tandem.ts';

/** What the systemd unit of a daemon gives to Node.js, with the bundle of this checkout. */
export function unitArguments(daemon: 'registrar' | 'discovery'): string[] {
  const unit = readFileSync(path.join(root, 'deploy', 'systemd', `tandem-${daemon}.service`), 'utf8');
  const flags = /^ExecStart=\S+((?: --\S+)*) \S+\.mjs /m.exec(unit)?.[1];
  if (flags === undefined) throw new Error('the unit runs something else than node with a bundle');
  return [...flags.trim().split(' '), path.join(root, 'bundle', `tandem-${daemon}.mjs`)];
}
