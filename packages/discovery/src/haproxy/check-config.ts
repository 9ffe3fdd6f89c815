import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { silentLog } from '@tandem/core';

import type { HaproxyConfig } from '../config/haproxy.ts';
import { createHaproxyProcess } from './process.ts';
import { buildStructure, mapFilesOf } from './structure.ts';

/**
 * What `haproxy -c` says against a text; undefined when it would take it. Touches nothing that is in use: in place of
 * the map files that the text names, which may not be there yet, HAProxy gets empty ones.
 */
export async function checkConfig(config: HaproxyConfig, text: string): Promise<string | undefined> {
  const directory = await mkdtemp(path.join(tmpdir(), 'tandem-check-'));
  try {
    const file = path.join(directory, 'haproxy.cfg');
    let checked = text;
    for (const mapFile of mapFilesOf(buildStructure(config, []))) {
      const empty = path.join(directory, path.basename(mapFile));
      await writeFile(empty, '');
      checked = checked.replaceAll(`(${mapFile})`, `(${empty})`);
    }
    await writeFile(file, checked);
    const haproxy = createHaproxyProcess(config, { log: silentLog, onExit: () => {} });
    return await haproxy.check(file, new AbortController().signal);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
