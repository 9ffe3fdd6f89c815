import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test } from 'node:test';

import type { Check } from '@tandem/registrar';

/** A check and the thing it looks at. */
export interface CheckSubject {
  readonly check: Check;
  /** How much of the probes is still there: connections at the other end, living processes. */
  readonly leftovers: () => number;
  readonly close: () => Promise<void>;
}

/** How to make one kind of check meet each kind of service. */
export interface CheckHarness {
  healthy(): Promise<CheckSubject>;
  /** Nobody is there: refuses the connection, does not exist. */
  absent(): Promise<CheckSubject>;
  /** Takes the probe and never gives an answer. `begun` resolves when it has taken one. */
  hanging(): Promise<CheckSubject & { begun: () => Promise<void> }>;
}

/** What every kind of check must do, whatever it probes. */
export function checkConformance(kind: string, harness: CheckHarness): void {
  test(`${kind}: passes against a healthy service, again and again`, async () => {
    await using subject = disposable(await harness.healthy());
    const { signal } = new AbortController();
    for (let round = 0; round < 3; round += 1) {
      assert.deepEqual(await subject.check.probe(signal), { ok: true });
    }
    await nothingLeft(subject);
    assert.equal(getEventListeners(signal, 'abort').length, 0, 'a listener stays on the signal');
  });

  test(`${kind}: fails with a reason, not an exception, when nobody is there`, async () => {
    await using subject = disposable(await harness.absent());
    const { signal } = new AbortController();
    const result = await subject.check.probe(signal);
    assert.equal(result.ok, false);
    assert.match(reasonOf(result), /\w/);
    await nothingLeft(subject);
    assert.equal(getEventListeners(signal, 'abort').length, 0, 'a listener stays on the signal');
  });

  test(`${kind}: ends with its signal when the service hangs, and leaves nothing behind`, async () => {
    await using subject = disposable(await harness.hanging());
    const controller = new AbortController();
    const probe = subject.check.probe(controller.signal);
    await subject.begun();
    controller.abort();
    assert.equal((await probe).ok, false);
    await nothingLeft(subject);
    assert.equal(getEventListeners(controller.signal, 'abort').length, 0, 'a listener stays on the signal');
  });

  test(`${kind}: fails without trying when its signal has ended before`, async () => {
    await using subject = disposable(await harness.healthy());
    assert.equal((await subject.check.probe(AbortSignal.abort())).ok, false);
    assert.equal(subject.leftovers(), 0);
  });

  test(`${kind}: names itself`, async () => {
    await using subject = disposable(await harness.healthy());
    assert.equal(subject.check.kind, kind);
  });
}

function reasonOf(result: Awaited<ReturnType<Check['probe']>>): string {
  return result.ok ? '' : result.reason;
}

function disposable<T extends CheckSubject>(subject: T): T & AsyncDisposable {
  return { ...subject, [Symbol.asyncDispose]: () => subject.close() };
}

/** The other end learns of a closed connection a moment later. */
async function nothingLeft(subject: CheckSubject): Promise<void> {
  const deadline = Date.now() + 5000;
  while (subject.leftovers() > 0) {
    assert.ok(Date.now() < deadline, `${subject.leftovers()} left behind`);
    await new Promise((resolve) => {
      setTimeout(resolve, 2);
    });
  }
}
