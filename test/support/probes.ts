// Checks as a service file has them, probed once.
import assert from 'node:assert/strict';

import { createAddressResolver } from '@tandem/core';
import { type Check, CheckSection, createCheck, createReports, type ProbeResult } from '@tandem/registrar';

import { eventually } from './eventually.ts';

export function checkOf(entry: Record<string, unknown>, servicePort = 1): Check {
  const context = {
    service: 'web',
    port: servicePort,
    resolver: createAddressResolver(),
    reports: createReports(),
  };
  return createCheck(CheckSection.parse(entry), context);
}

/** One probe, which ends with its deadline as it does in the daemon. */
export async function probe(check: Check, timeoutMs = 20_000): Promise<ProbeResult> {
  const deadline = new AbortController();
  const timer = setTimeout(() => deadline.abort(), timeoutMs);
  try {
    return await check.probe(deadline.signal);
  } finally {
    clearTimeout(timer);
  }
}

/** What a result says: `passed`, the warning with which it did, or why it did not. */
export function wordsOf(result: ProbeResult): string {
  if (!result.ok) return result.reason;
  return result.warning === undefined ? 'passed' : `passed, but ${result.warning}`;
}

export async function wordsFor(entry: Record<string, unknown>, servicePort = 1): Promise<string> {
  return wordsOf(await probe(checkOf(entry, servicePort)));
}

/** Waits until a server that was launched serves; what it says until then is told. */
export async function untilPasses(check: Check): Promise<ReadonlySet<string>> {
  const before = new Set<string>();
  await eventually(
    async () => {
      const words = wordsOf(await probe(check));
      if (words !== 'passed') before.add(words);
      assert.equal(words, 'passed');
    },
    { withinMs: 60_000, everyMs: 20 },
  );
  return before;
}

/** A server that is frozen takes the connection and says nothing, until its probe is ended. */
export async function assertFrozen(
  check: Check,
  server: { signal(name: NodeJS.Signals): void },
): Promise<void> {
  server.signal('SIGSTOP');
  try {
    assert.deepEqual(await probe(check, 300), { ok: false, reason: 'called off' });
  } finally {
    server.signal('SIGCONT');
  }
  await untilPasses(check);
}

export async function assertKilled(check: Check, server: { kill(): Promise<void> }): Promise<void> {
  await server.kill();
  // Of some servers another process holds the port for a moment longer, and answers nobody.
  await eventually(async () => {
    const result = await probe(check);
    if (result.ok) throw new Error('it passes without a server');
    assert.equal(result.reason, 'connection refused');
  });
}
