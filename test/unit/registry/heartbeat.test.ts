import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { startHeartbeat } from '@tandem/registry/testing';

/** A beat on a short session, with a peer that answers pings or does not. */
function startBeat(options: { sessionTimeoutMs: number; peer: 'answers' | 'silent' }) {
  let lastReadAt = performance.now();
  const startedAt = lastReadAt;
  const pings: { at: number; frame: Buffer }[] = [];
  const silences: { at: number; ms: number }[] = [];
  const beat = startHeartbeat({
    sessionTimeoutMs: options.sessionTimeoutMs,
    lastReadAt: () => lastReadAt,
    ping: (frame) => {
      pings.push({ at: performance.now() - startedAt, frame });
      if (options.peer === 'answers') lastReadAt = performance.now();
    },
    silent: (ms) => silences.push({ at: performance.now() - startedAt, ms }),
  });
  return {
    pings,
    silences,
    read: () => (lastReadAt = performance.now()),
    [Symbol.dispose]: () => beat.stop(),
  };
}

describe('heartbeat', { concurrency: true }, () => {
  test('pings in time for a third of the session timeout, though something is read all the time', async () => {
    using beat = startBeat({ sessionTimeoutMs: 600, peer: 'silent' });
    for (let round = 0; round < 30; round += 1) {
      await sleep(20);
      beat.read();
    }
    assert.ok(beat.pings.length >= 2, `${beat.pings.length} pings`);
    assert.deepEqual(beat.silences, []);
    assert.equal(beat.pings[0]?.frame.toString('hex'), '00000008fffffffe0000000b');
  });

  test('a peer that answers is never called silent', async () => {
    using beat = startBeat({ sessionTimeoutMs: 600, peer: 'answers' });
    await sleep(900);
    assert.deepEqual(beat.silences, []);
  });

  test('a silent peer is told once, within two thirds of the session timeout, and not before it has missed a ping', async () => {
    using beat = startBeat({ sessionTimeoutMs: 600, peer: 'silent' });
    await sleep(900);
    assert.equal(beat.silences.length, 1);
    // A third until the ping, and most of another third for its answer.
    assert.ok((beat.silences[0]?.ms ?? 0) >= 360, String(beat.silences[0]?.ms));
    assert.ok(beat.pings.length >= 1, 'it was asked before it was judged');
  });

  test('after stop there are no pings and no judgement', async () => {
    const beat = startBeat({ sessionTimeoutMs: 300, peer: 'silent' });
    beat[Symbol.dispose]();
    await sleep(400);
    assert.deepEqual([beat.pings, beat.silences], [[], []]);
  });
});

test('heartbeat: a process that was busy itself reads what is waiting before it judges its peer', async () => {
  using beat = startBeat({ sessionTimeoutMs: 600, peer: 'silent' });
  const busyUntil = performance.now() + 650;
  while (performance.now() < busyUntil);
  // What the socket had for us is read in the poll phase that follows.
  setImmediate(() => beat.read());
  await sleep(60);
  assert.deepEqual(beat.silences, []);
});
