import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { createFirstWords } from '@tandem/discovery/testing';

const LONG = 60_000;

describe('the wait for the first words of many services', () => {
  const never = new AbortController().signal;

  test('is over when all are known, also before it has begun', async () => {
    const words = createFirstWords({ firstMs: LONG, nextMs: LONG });
    words.hear(3, 3);
    await words.wait(never);
    const others = createFirstWords({ firstMs: LONG, nextMs: LONG });
    const waiting = others.wait(never);
    others.hear(1, 2);
    others.hear(1, 1);
    await waiting;
  });

  test('is over soon when no other one is heard of', async () => {
    const words = createFirstWords({ firstMs: LONG, nextMs: 10 });
    const waiting = words.wait(never);
    words.hear(1, 2);
    await waiting;
  });

  test('is over after a while when none is heard of', async () => {
    await createFirstWords({ firstMs: 20, nextMs: LONG }).wait(never);
  });

  test('goes on as long as there are others, but not for ever', async () => {
    const words = createFirstWords({ firstMs: 300, nextMs: LONG });
    let known = 0;
    const talking = setInterval(() => words.hear((known += 1), LONG), 5);
    await words.wait(never);
    clearInterval(talking);
    assert.ok(known > 1);
  });

  test('is over when the daemon shall end', async () => {
    await createFirstWords({ firstMs: LONG, nextMs: LONG }).wait(AbortSignal.abort());
    const controller = new AbortController();
    const waiting = createFirstWords({ firstMs: LONG, nextMs: LONG }).wait(controller.signal);
    controller.abort();
    await waiting;
  });
});
