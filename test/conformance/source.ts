import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { compareInstances, type Instance, type Snapshot } from '@tandem/core';
import type { Source } from '@tandem/discovery/testing';

import { eventually } from '../support/eventually.ts';

/** One source, the backend that it reads, and a hand on that backend. Members are told apart by small numbers. */
export interface SourceSubject {
  readonly source: Source;
  /** The instance that the source is to make of a member. */
  readonly instanceOf: (member: number) => Instance;
  /** What the backend has from now on, in this order. */
  serve(...members: number[]): Promise<void> | void;
  /** The backend is away, or says nothing that has a meaning. What it had is there again after `restore`. */
  hide(): Promise<void> | void;
  restore(): Promise<void> | void;
  /** These members, and between them something that cannot be an instance. */
  serveWithBroken(...members: number[]): Promise<void> | void;
  /** What the watches have open at the backend, or in this process. */
  leftovers(): number;
  close(): Promise<void> | void;
}

/** What a kind of source cannot do at all, each with the reason. */
export interface SourceLimits {
  readonly changes?: string;
  readonly away?: string;
  readonly broken?: string;
  readonly empty?: string;
  readonly identity?: string;
}

/**
 * What every kind of source must keep, wherever it looks. Each test gets a subject of its own, whose backend has nothing
 * yet but what `start` is told to let it have: without members it is away.
 */
export function sourceConformance(
  kind: string,
  start: (...members: number[]) => Promise<SourceSubject> | SourceSubject,
  limits: SourceLimits = {},
): void {
  const withBackend = (what: string, limit: string | undefined, body: () => Promise<void>) => {
    if (limit === undefined) test(`${kind}: ${what}`, body);
  };

  test(`${kind}: the first snapshot is full and in order, and every watch gets one`, async () => {
    await using subject = disposable(await start(3, 1, 2));
    for (const _ of ['first', 'second']) {
      await using watch = follow(subject.source);
      await watch.shows(...[1, 2, 3].map(subject.instanceOf));
      assert.equal(watch.snapshots[0]?.instances.length, 3);
      assert.deepEqual(watch.latest?.rejected, []);
    }
  });

  test(`${kind}: a watch that has ended before it began yields nothing and opens nothing`, async () => {
    await using subject = disposable(await start(1));
    const signal = AbortSignal.abort();
    for await (const _ of subject.source.watch(signal)) assert.fail('it yields');
    assert.equal(subject.leftovers(), 0);
    assert.equal(getEventListeners(signal, 'abort').length, 0);
  });

  test(`${kind}: ends with its signal, and leaves nothing behind`, async () => {
    await using subject = disposable(await start(1));
    await eventually(() => assert.equal(subject.leftovers(), 0));
    const controller = new AbortController();
    for await (const _ of subject.source.watch(controller.signal)) {
      // The next one is waited for when it comes.
      setImmediate(() => controller.abort());
    }
    assert.equal(getEventListeners(controller.signal, 'abort').length, 0, 'a listener stays on the signal');
    await eventually(() => assert.equal(subject.leftovers(), 0));
  });

  test(`${kind}: leaves nothing behind when its reader leaves`, async () => {
    await using subject = disposable(await start(1));
    const { signal } = new AbortController();
    for await (const _ of subject.source.watch(signal)) break;
    assert.equal(getEventListeners(signal, 'abort').length, 0, 'a listener stays on the signal');
    await eventually(() => assert.equal(subject.leftovers(), 0));
  });

  test(`${kind}: what one reader does to its watch is nothing to another`, async () => {
    await using subject = disposable(await start(1));
    await using stays = follow(subject.source);
    const leaves = follow(subject.source);
    await Promise.all([stays, leaves].map((watch) => watch.shows(subject.instanceOf(1))));
    await leaves.stop();
    assert.equal(stays.isOver, false);
    if (limits.changes !== undefined) return;
    await subject.serve(1, 2);
    await stays.shows(...[1, 2].map(subject.instanceOf));
    assert.equal(leaves.latest?.instances.length, 1);
  });

  withBackend('every change is followed by a full snapshot', limits.changes, async () => {
    await using subject = disposable(await start(1, 2));
    await using watch = follow(subject.source);
    for (const members of [[1, 2], [1, 2, 3], [3, 4], [4], [4, 5, 6, 7], [5]]) {
      await subject.serve(...members);
      await watch.shows(...members.map(subject.instanceOf));
    }
    watch.isWellFormed();
  });

  withBackend('an instance that stands there twice is one', limits.changes, async () => {
    await using subject = disposable(await start(2, 1, 2));
    await using watch = follow(subject.source);
    await watch.shows(...[1, 2].map(subject.instanceOf));
    await subject.serve(3, 1, 3, 1);
    await watch.shows(...[1, 3].map(subject.instanceOf));
    watch.isWellFormed();
  });

  withBackend('a backend without instances is an empty snapshot, not silence', limits.empty, async () => {
    await using subject = disposable(await start(1));
    await using watch = follow(subject.source);
    await watch.shows(subject.instanceOf(1));
    await subject.serve();
    await watch.shows();
    await subject.serve(2);
    await watch.shows(subject.instanceOf(2));
  });

  withBackend('silent until its backend is there for the first time', limits.away, async () => {
    await using subject = disposable(await start());
    await using watch = follow(subject.source);
    await sleep(150);
    assert.equal(watch.snapshots.length, 0);
    await subject.serve(1, 2);
    await subject.restore();
    await watch.shows(...[1, 2].map(subject.instanceOf));
    assert.equal(watch.snapshots[0]?.instances.length, 2);
  });

  withBackend('silent while its backend is away, and goes on afterwards', limits.away, async () => {
    await using subject = disposable(await start(1, 2));
    await using watch = follow(subject.source);
    await watch.shows(...[1, 2].map(subject.instanceOf));
    const before = watch.snapshots.length;
    await subject.hide();
    await sleep(300);
    assert.equal(watch.snapshots.length, before);
    assert.equal(watch.isOver, false);
    await subject.serve(2, 3);
    await subject.restore();
    await watch.shows(...[2, 3].map(subject.instanceOf));
    for (const { instances } of watch.snapshots) assert.equal(instances.length, 2);
  });

  withBackend('a record that cannot be an instance costs itself only', limits.broken, async () => {
    await using subject = disposable(await start(1));
    await using watch = follow(subject.source);
    await watch.shows(subject.instanceOf(1));
    await subject.serveWithBroken(1, 2);
    await watch.shows(...[1, 2].map(subject.instanceOf));
    await eventually(() => {
      const [rejection] = watch.latest?.rejected ?? [];
      assert.match(rejection?.place ?? '', /\S/);
      assert.match(rejection?.reason ?? '', /\S/);
    });
    await subject.serve(2);
    await watch.shows(subject.instanceOf(2));
    await eventually(() => assert.deepEqual(watch.latest?.rejected, []));
  });

  withBackend('an instance that has not changed stays the same object', limits.identity, async () => {
    await using subject = disposable(await start(1, 2));
    await using watch = follow(subject.source);
    await watch.shows(...[1, 2].map(subject.instanceOf));
    const [first, second] = watch.latest?.instances ?? [];
    await subject.serve(1, 2, 3);
    await watch.shows(...[1, 2, 3].map(subject.instanceOf));
    const after = watch.snapshots.at(-1)?.instances ?? [];
    assert.equal(after[0], first);
    assert.equal(after[1], second);
  });
}

/** One watch of a source, read as fast as it comes. */
export interface SourceFollower extends AsyncDisposable {
  /** Everything that was yielded so far. */
  readonly snapshots: readonly Snapshot[];
  readonly latest: Snapshot | undefined;
  /** Whether the source has ended by itself. */
  readonly isOver: boolean;
  /** Waits until exactly these are the instances. */
  shows(...expected: readonly Instance[]): Promise<void>;
  /** Every snapshot so far is in order, and has each identity once. */
  isWellFormed(): void;
  stop(): Promise<void>;
}

export function follow(source: Source): SourceFollower {
  const controller = new AbortController();
  const snapshots: Snapshot[] = [];
  let isOver = false;
  const read = async () => {
    for await (const snapshot of source.watch(controller.signal)) snapshots.push(snapshot);
  };
  const done = read().finally(() => (isOver = true));
  // Whoever stops it learns of an error; until then it is nobody's.
  done.catch(() => {});
  const stop = async () => {
    controller.abort();
    await done;
  };
  return {
    snapshots,
    get latest() {
      return snapshots.at(-1);
    },
    get isOver() {
      return isOver;
    },
    async shows(...expected) {
      await eventually(() =>
        assert.deepEqual(snapshots.at(-1)?.instances, expected.toSorted(compareInstances)),
      );
    },
    isWellFormed() {
      for (const { instances } of snapshots)
        for (const [index, instance] of instances.slice(1).entries())
          assert.ok(compareInstances(instances[index] ?? instance, instance) < 0);
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

function disposable(subject: SourceSubject): SourceSubject & AsyncDisposable {
  return { ...subject, [Symbol.asyncDispose]: async () => subject.close() };
}
