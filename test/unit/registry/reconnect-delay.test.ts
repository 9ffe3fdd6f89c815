import assert from 'node:assert/strict';
import { describe, mock, test } from 'node:test';

import { createReconnectDelay } from '@tandem/registry/testing';

function createDelay(options: { serverCount?: number; sessionTimeoutMs?: number; random?: number } = {}) {
  const { serverCount = 1, sessionTimeoutMs = 400_000, random = 0.5 } = options;
  return createReconnectDelay(
    { serverCount: () => serverCount, sessionTimeoutMs: () => sessionTimeoutMs },
    () => random,
  );
}

function take(delay: { next(): number }, count: number): number[] {
  return Array.from({ length: count }, () => delay.next());
}

describe('reconnect delay', () => {
  test('the first attempt is immediate', () => {
    assert.equal(createDelay().next(), 0);
  });

  test('every server is tried in one quick round, then the waits double up to ten seconds', () => {
    const waits = take(createDelay({ serverCount: 3, random: 0.999_999 }), 14).map(Math.round);
    assert.deepEqual(waits, [0, 50, 50, 50, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000]);
  });

  test('chance takes off up to half, so that a fleet does not come back in step', () => {
    const waits = take(createDelay({ random: 0 }), 12);
    assert.deepEqual(waits.slice(1), [25, 50, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
  });

  test('no wait is longer than a quarter of the session timeout, and the longest ones differ too', () => {
    for (const random of [0, 0.5, 0.999]) {
      const waits = take(createDelay({ sessionTimeoutMs: 4000, random }), 40);
      assert.ok(Math.max(...waits) <= 1000);
    }
    const [low, high] = [0, 0.999].map((random) =>
      take(createDelay({ sessionTimeoutMs: 4000, random }), 40).at(-1),
    );
    assert.ok(low !== undefined && high !== undefined && high - low > 400, `${low} and ${high}`);
  });

  test('the limit follows the timeout that the server has settled on', () => {
    let sessionTimeoutMs = 40_000;
    const delay = createReconnectDelay(
      { serverCount: () => 1, sessionTimeoutMs: () => sessionTimeoutMs },
      () => 1,
    );
    take(delay, 20);
    assert.equal(delay.next(), 10_000);
    sessionTimeoutMs = 2000;
    assert.equal(delay.next(), 500);
  });

  test('a handshake alone does not start it over: two clients fighting for a session back off', () => {
    mock.timers.enable({ apis: ['setTimeout'] });
    try {
      const delay = createDelay();
      const waits: number[] = [];
      for (let round = 0; round < 10; round += 1) {
        waits.push(delay.next());
        delay.connected();
        mock.timers.tick(1900);
        delay.disconnected();
        mock.timers.tick(5000);
      }
      assert.ok((waits.at(-1) ?? 0) > 5000, String(waits));
    } finally {
      mock.timers.reset();
    }
  });

  test('refused credentials cost a round without delay, and then a long wait, which keeps the session alive', () => {
    for (const [sessionTimeoutMs, longest] of [
      [16_000, 8000],
      [300_000, 30_000],
    ] as const) {
      const delay = createDelay({ serverCount: 3, sessionTimeoutMs, random: 0.999_999 });
      const waits: number[] = [];
      for (let attempt = 1; attempt <= 5; attempt += 1) {
        waits.push(Math.round(delay.next()));
        assert.equal(delay.refused(), attempt >= 3, `after ${attempt} attempts`);
      }
      assert.deepEqual(waits, [0, 50, 50, longest, longest]);
    }
  });

  test('a server that takes the credentials starts the count of refusals over', () => {
    const delay = createDelay({ serverCount: 2 });
    assert.equal(delay.refused(), false);
    delay.connected();
    delay.disconnected();
    assert.equal(delay.refused(), false);
    assert.equal(delay.refused(), true);
  });

  test('a connection that stays for two seconds starts it over', () => {
    mock.timers.enable({ apis: ['setTimeout'] });
    try {
      const delay = createDelay();
      take(delay, 10);
      delay.connected();
      mock.timers.tick(2000);
      delay.disconnected();
      assert.deepEqual(take(delay, 2), [0, 37.5]);
    } finally {
      mock.timers.reset();
    }
  });
});
