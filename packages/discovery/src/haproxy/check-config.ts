import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { silentLog } from '@tandem/core';

import type { HaproxyConfig } from '../config/haproxy.ts';
import { createHaproxyProcess } from './process.ts';

/** What `haproxy -c` says against a text; undefined when it would take it. Touches nothing that is in use. */
export async function checkConfig(config: HaproxyConfig, text: string): Promise<string | undefined> {
  const directory = await mkdtemp(path.join(tmpdir(), 'tandem-check-'));
  try {
    const file = path.join(directory, 'haproxy.cfg');
    await writeFile(file, text);
    const haproxy = createHaproxyProcess(config, { log: silentLog, onExit: () => {} });
    return await haproxy.check(file, new AbortController().signal);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
