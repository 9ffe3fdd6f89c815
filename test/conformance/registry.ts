import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import type { Instance } from '@tandem/core';

import { eventually } from '../support/eventually.ts';
import { instanceOf, label, limit } from '../support/registries.ts';
import { announce, enter, type RegistrySubject } from './scene.ts';

/** What every registry must keep, wherever it keeps it. Each test gets a subject of its own. */
export function registryConformance(
  kind: string,
  start: () => Promise<RegistrySubject> | RegistrySubject,
): void {
  const WEB = '/services/web';

  describe(`${kind}: announcing`, () => {
    test('a watcher sees an announced instance with everything that was said of it', async () => {
      await using scene = await enter(start);
      const instance: Instance = {
        name: 'i-1234',
        host: '10.0.0.5',
        port: 8080,
        weight: 10,
        haproxyServerOptions: 'backup',
        labels: { zone: 'eu-1', 'ä>?': '😀/+' },
      };
      const watcher = scene.follow(WEB);
      await announce(scene.registry, WEB, instance);
      assert.deepEqual(await scene.labels(WEB), ['i-1234:10']);
      await watcher.shows('i-1234:10');
      assert.deepEqual(watcher.latest, { instances: [instance], rejected: [] });
    });

    test('what was announced is not changed by what the announcer does to its own copy, nor a reader to its', async () => {
      await using scene = await enter(start);
      const labels = { zone: 'a' };
      await announce(scene.registry, WEB, { ...instanceOf('i-1'), labels });
      labels.zone = 'b';
      for (const _ of ['first', 'second']) {
        const watcher = scene.follow(WEB);
        await watcher.shows('i-1');
        const [seen] = watcher.latest?.instances ?? [];
        assert.deepEqual(seen?.labels, { zone: 'a' });
        Object.assign(seen?.labels ?? {}, { zone: 'c' });
      }
    });

    test('a wish takes its time: nobody hears of it in the turn in which it is set', async () => {
      await using scene = await enter(start);
      const watcher = scene.follow(WEB);
      await watcher.shows();
      const announcer = scene.registry.announce(WEB, instanceOf('i-1'));
      announcer.set(instanceOf('i-1'));
      let hasEnded = false;
      const agreed = announcer.agreed(limit()).then(() => (hasEnded = true));
      for (let tick = 0; tick < 100; tick += 1) await Promise.resolve();
      assert.equal(hasEnded, false);
      assert.equal(announcer.isAgreed, false);
      assert.deepEqual(label(watcher.latest), []);
      await agreed;
      assert.equal(announcer.isAgreed, true);
    });

    test('a change is a new record, which takes the place of the old one: no watcher ever sees a gap', async () => {
      await using scene = await enter(start);
      const watcher = scene.follow(WEB);
      const announcer = await announce(scene.registry, WEB, instanceOf('i-1', 1));
      await watcher.shows('i-1:1');
      const [before] = await scene.standing(WEB);
      for (let weight = 2; weight <= 6; weight += 1) {
        announcer.set(instanceOf('i-1', weight));
        await announcer.agreed(limit());
        assert.deepEqual(await scene.labels(WEB), [`i-1:${weight}`]);
      }
      await watcher.shows('i-1:6');
      assert.notEqual((await scene.standing(WEB))[0]?.mark, before?.mark);
      const firstSeen = watcher.snapshots.findIndex(({ instances }) => instances.length === 1);
      for (const snapshot of watcher.snapshots.slice(firstSeen)) assert.equal(snapshot.instances.length, 1);
    });

    test('an instance that changes all the time is in every snapshot of every watcher', async () => {
      await using scene = await enter(start);
      const announcer = await announce(scene.registry, WEB, instanceOf('i-1', 0));
      const others = await Promise.all(Array.from({ length: 4 }, () => scene.open()));
      const watchers = others.map((other) => scene.follow(WEB, other));
      await Promise.all(watchers.map((watcher) => watcher.shows('i-1:0')));
      for (let weight = 1; weight <= 200; weight += 1) {
        announcer.set(instanceOf('i-1', weight));
        await announcer.agreed(limit());
      }
      for (const watcher of watchers) {
        await watcher.shows('i-1:200');
        assert.deepEqual(
          watcher.snapshots.filter(({ instances }) => instances.length !== 1),
          [],
        );
      }
    });

    test('the same instance again changes nothing', async () => {
      await using scene = await enter(start);
      const announcer = await announce(scene.registry, WEB, instanceOf('i-1', 1));
      const before = await scene.standing(WEB);
      const watcher = scene.follow(WEB);
      await watcher.shows('i-1:1');
      announcer.set(instanceOf('i-1', 1));
      await announcer.agreed(limit());
      assert.deepEqual(await scene.standing(WEB), before);
      // The next thing that the watcher hears of is another one.
      await announce(scene.registry, WEB, instanceOf('i-2'));
      await watcher.shows('i-1:1', 'i-2');
      assert.equal(watcher.snapshots.length, 2);
    });

    test('the newest of many wishes is what stands at the end, and only it', async () => {
      await using scene = await enter(start);
      const announcer = scene.registry.announce(WEB, instanceOf('i-1'));
      for (let weight = 0; weight < 50; weight += 1) {
        announcer.set(weight % 3 === 0 ? undefined : instanceOf('i-1', weight));
        if (weight % 7 === 0) await new Promise((resolve) => setImmediate(resolve));
      }
      announcer.set(instanceOf('i-1', 99));
      await announcer.agreed(limit());
      assert.deepEqual(await scene.labels(WEB), ['i-1:99']);
    });

    test('set(undefined) withdraws, and announcing again brings it back', async () => {
      await using scene = await enter(start);
      const watcher = scene.follow(WEB);
      const announcer = await announce(scene.registry, WEB, instanceOf('i-1'));
      await watcher.shows('i-1');
      announcer.set(undefined);
      await announcer.agreed(limit());
      assert.deepEqual(await scene.labels(WEB), []);
      await watcher.shows();
      announcer.set(instanceOf('i-1'));
      await announcer.agreed(limit());
      await watcher.shows('i-1');
    });

    test('several places share a path, and each goes by itself', async () => {
      await using scene = await enter(start);
      const watcher = scene.follow(WEB);
      const first = await announce(scene.registry, WEB, instanceOf('i-1', 1, 8080));
      await announce(scene.registry, WEB, instanceOf('i-1', 2, 8081));
      await announce(scene.registry, WEB, instanceOf('i-2', 3));
      await announce(await scene.open(), WEB, instanceOf('i-3', 4));
      await watcher.shows('i-1:1', 'i-1:2', 'i-2:3', 'i-3:4');
      first.set(undefined);
      await watcher.shows('i-1:2', 'i-2:3', 'i-3:4');
    });

    test('two clients may announce one instance: the newer counts, and each withdraws only its own', async () => {
      await using scene = await enter(start);
      const watcher = scene.follow(WEB);
      const older = await announce(scene.registry, WEB, instanceOf('i-1', 1));
      const newer = await announce(await scene.open(), WEB, instanceOf('i-1', 2));
      await watcher.shows('i-1:2');
      older.set(instanceOf('i-1', 3));
      await watcher.shows('i-1:3');
      assert.deepEqual(await scene.labels(WEB), ['i-1:2', 'i-1:3']);
      older.set(undefined);
      await watcher.shows('i-1:2');
      newer.set(undefined);
      await watcher.shows();
    });

    test('a place is claimed once, until it is released; the same place below another path is another', async () => {
      await using scene = await enter(start);
      const { registry } = scene;
      const first = registry.announce(WEB, instanceOf('i-1'));
      assert.throws(() => registry.announce(WEB, instanceOf('i-1', 5)), /already/);
      registry.announce('/services/other', instanceOf('i-1'));
      first.release();
      const second = registry.announce(WEB, instanceOf('i-1'));
      // Of no effect: it has been released before.
      first.release();
      assert.throws(() => registry.announce(WEB, instanceOf('i-1')), /already/);
      second.release();
    });

    test('an announcer refuses the instance of another place', async () => {
      await using scene = await enter(start);
      const announcer = scene.registry.announce(WEB, instanceOf('i-1', 1, 8080));
      for (const other of [instanceOf('i-2'), instanceOf('i-1', 1, 8081)])
        assert.throws(() => announcer.set(other), TypeError);
    });

    test('what is released stays as it is, and whoever claims the place again finds it', async () => {
      await using scene = await enter(start);
      const first = await announce(scene.registry, WEB, instanceOf('i-1', 1));
      const before = await scene.standing(WEB);
      first.release();
      first.set(undefined);
      const second = await announce(scene.registry, WEB, instanceOf('i-1', 1));
      assert.deepEqual(await scene.standing(WEB), before);
      second.set(undefined);
      await second.agreed(limit());
      assert.deepEqual(await scene.labels(WEB), []);
    });

    test('a place that is released in the middle of an announcement and claimed again ends with one record', async () => {
      await using scene = await enter(start);
      for (let round = 0; round < 20; round += 1) {
        const early = scene.registry.announce(WEB, instanceOf('i-1'));
        early.set(instanceOf('i-1', round));
        for (let turn = 0; turn < round % 5; turn += 1)
          await new Promise((resolve) => setTimeout(resolve, 1));
        early.release();
        const late = await announce(scene.registry, WEB, instanceOf('i-1', 100));
        assert.deepEqual(await scene.labels(WEB), ['i-1:100'], `round ${round}`);
        late.release();
      }
    });

    test('agreed ends with the reason of its signal, and before the first wish there is nothing to wait for', async () => {
      await using scene = await enter(start);
      const announcer = scene.registry.announce(WEB, instanceOf('i-1'));
      await announcer.agreed(limit());
      assert.equal(announcer.isAgreed, true);
      announcer.set(instanceOf('i-1'));
      const reason = new Error('waited long enough');
      await assert.rejects(announcer.agreed(AbortSignal.abort(reason)), (error) => error === reason);
      const controller = new AbortController();
      const waiting = announcer.agreed(controller.signal);
      controller.abort(reason);
      await assert.rejects(waiting, (error) => error === reason);
      await announcer.agreed(limit());
    });
  });

  describe(`${kind}: watching`, () => {
    test('one signal serves for many places, and one for many watches, and Node warns of nothing', async () => {
      await using scene = await enter(start);
      const warnings: Error[] = [];
      const note = (warning: Error) => void warnings.push(warning);
      process.on('warning', note);
      const names = Array.from({ length: 30 }, (_, index) => `i-${index}`);
      const patience = limit();
      await Promise.all(
        names.map(async (name) => {
          const announcer = scene.registry.announce(WEB, instanceOf(name));
          announcer.set(instanceOf(name));
          await announcer.agreed(patience);
        }),
      );
      const controller = new AbortController();
      const watches = names.map(async () => {
        for await (const snapshot of scene.registry.watch(WEB, controller.signal))
          if (snapshot.instances.length === names.length) return;
      });
      await Promise.all(watches);
      controller.abort();
      process.off('warning', note);
      assert.deepEqual(warnings, []);
    });

    test('a path that does not exist has no instances and is waited for', async () => {
      await using scene = await enter(start);
      const watcher = scene.follow('/not/there/yet');
      await watcher.shows();
      assert.equal(watcher.snapshots.length, 1);
      await announce(scene.registry, '/not/there/yet', instanceOf('i-1'));
      await watcher.shows('i-1');
    });

    test('a path shows what stands below it, and nothing of its neighbours, parents and children', async () => {
      await using scene = await enter(start);
      for (const path of ['/services', '/services/web2', '/services/db'])
        await announce(scene.registry, path, instanceOf('other'));
      await announce(scene.registry, WEB, instanceOf('i-1'));
      const watcher = scene.follow(WEB);
      await watcher.shows('i-1');
      assert.deepEqual(label(watcher.snapshots[0]), ['i-1']);
    });

    test('the order of a snapshot is that of the identities, whoever came first', async () => {
      await using scene = await enter(start);
      const watcher = scene.follow(WEB);
      for (const name of ['i-3', 'i-1', 'i-2']) await announce(scene.registry, WEB, instanceOf(name));
      await watcher.shows('i-1', 'i-2', 'i-3');
      assert.deepEqual(
        watcher.latest?.instances.map(({ name }) => name),
        ['i-1', 'i-2', 'i-3'],
      );
    });

    test('two watches of one path both see everything, and one that ends leaves the other', async () => {
      await using scene = await enter(start);
      const [first, second] = [scene.follow(WEB), scene.follow(WEB)];
      await announce(scene.registry, WEB, instanceOf('i-1'));
      await Promise.all([first.shows('i-1'), second.shows('i-1')]);
      await first.stop();
      await announce(scene.registry, WEB, instanceOf('i-2'));
      await second.shows('i-1', 'i-2');
      assert.deepEqual(label(first.latest), ['i-1']);
    });

    test('a reader that takes its time is shown what is there then, not everything that was', async () => {
      await using scene = await enter(start);
      const announcer = await announce(scene.registry, WEB, instanceOf('i-1', 0));
      const watcher = scene.follow(WEB);
      const seen: (string[] | undefined)[] = [];
      for await (const snapshot of scene.registry.watch(WEB, limit())) {
        seen.push(label(snapshot));
        if (seen.at(-1)?.[0] === 'i-1:9') break;
        for (let weight = 1; weight <= 9; weight += 1) {
          announcer.set(instanceOf('i-1', weight));
          await announcer.agreed(limit());
        }
        await watcher.shows('i-1:9');
      }
      assert.ok(seen.length <= 3, `${seen.length} snapshots`);
    });

    test('hundreds of instances are read at once and none is missing', async () => {
      await using scene = await enter(start);
      const names = Array.from({ length: 400 }, (_, index) => `i-${String(index).padStart(3, '0')}`);
      await Promise.all(names.map((name) => announce(scene.registry, WEB, instanceOf(name))));
      const watcher = scene.follow(WEB, await scene.open());
      await watcher.shows(...names);
      assert.deepEqual(label(watcher.snapshots[0]), names, 'the first snapshot is whole');
    });

    test('a watch ends when its signal is aborted: before, at the first snapshot, and while it waits', async () => {
      await using scene = await enter(start);
      for await (const _ of scene.registry.watch(WEB, AbortSignal.abort()))
        assert.fail('it has ended before');
      const controller = new AbortController();
      for await (const _ of scene.registry.watch(WEB, controller.signal)) controller.abort();
      const watcher = scene.follow(WEB);
      await watcher.shows();
      await watcher.stop();
    });

    test('a reader that breaks off ends its watch', async () => {
      await using scene = await enter(start);
      for (let round = 0; round < 30; round += 1)
        for await (const snapshot of scene.registry.watch(WEB, limit())) {
          assert.deepEqual(snapshot.instances, []);
          break;
        }
      await scene.follow(WEB).shows();
    });
  });

  describe(`${kind}: ending`, () => {
    test('close takes what was announced with it, ends every watch, and is told by the status', async () => {
      await using scene = await enter(start);
      const watcher = scene.follow(WEB);
      const announcer = await announce(scene.registry, WEB, instanceOf('i-1'));
      await watcher.shows('i-1');
      assert.equal(scene.registry.status.state, 'connected');
      await Promise.all([scene.registry.close(), scene.registry.close()]);
      assert.equal(scene.registry.status.state, 'closed');
      assert.deepEqual(await scene.labels(WEB), []);
      await watcher.stop();
      for await (const _ of scene.registry.watch(WEB, limit())) assert.fail('it is closed');
      announcer.set(instanceOf('i-1', 5));
      announcer.release();
      const late = scene.registry.announce(WEB, instanceOf('i-2'));
      late.set(instanceOf('i-2'));
      await new Promise((resolve) => setTimeout(resolve, 20));
      assert.deepEqual(await scene.labels(WEB), []);
    });

    test('what a client takes with it at its end is missed by the others', async () => {
      await using scene = await enter(start);
      const leaving = await scene.open();
      await announce(leaving, WEB, instanceOf('i-1'));
      await announce(scene.registry, WEB, instanceOf('i-2'));
      const watcher = scene.follow(WEB);
      await watcher.shows('i-1', 'i-2');
      await leaving.close();
      await watcher.shows('i-2');
    });

    test('close in the same turn as opening ends at once', async () => {
      await using scene = await enter(start);
      const registry = await scene.open();
      registry.announce(WEB, instanceOf('i-1')).set(instanceOf('i-1'));
      await registry.close();
      assert.equal(registry.status.state, 'closed');
      assert.deepEqual(await scene.labels(WEB), []);
    });

    test('a successor adopts what was left to it: the same records, nothing new, and no watcher sees a change', async () => {
      await using scene = await enter(start);
      const { resumeFile } = scene;
      const first = await scene.open({ resumeFile });
      await announce(first, WEB, instanceOf('i-1', 1));
      await announce(first, WEB, instanceOf('i-2', 2));
      const before = await scene.standing(WEB);
      const watcher = scene.follow(WEB);
      await watcher.shows('i-1:1', 'i-2:2');
      const seen = watcher.snapshots.length;
      await first.close({ keep: true });
      assert.deepEqual(await scene.standing(WEB), before);

      const second = await scene.open({ resumeFile });
      await announce(second, WEB, instanceOf('i-1', 1));
      await announce(second, WEB, instanceOf('i-2', 2));
      second.withdrawUnclaimed();
      assert.deepEqual(await scene.standing(WEB), before);
      // The next change that the watcher sees is another one.
      await announce(scene.registry, WEB, instanceOf('i-3'));
      await watcher.shows('i-1:1', 'i-2:2', 'i-3');
      assert.deepEqual(watcher.snapshots.slice(seen).map(label), [['i-1:1', 'i-2:2', 'i-3']]);
      await second.close();
      assert.deepEqual(await scene.labels(WEB), ['i-3']);
    });

    test('before its first wish a successor touches nothing; what changed meanwhile is then replaced', async () => {
      await using scene = await enter(start);
      const { resumeFile } = scene;
      const first = await scene.open({ resumeFile });
      await announce(first, WEB, instanceOf('i-1', 1));
      const before = await scene.standing(WEB);
      await first.close({ keep: true });

      const second = await scene.open({ resumeFile });
      const announcer = second.announce(WEB, instanceOf('i-1'));
      second.withdrawUnclaimed();
      await announce(second, '/services/other', instanceOf('i-9'));
      assert.deepEqual(await scene.standing(WEB), before);
      announcer.set(instanceOf('i-1', 2));
      await announcer.agreed(limit());
      assert.deepEqual(await scene.labels(WEB), ['i-1:2']);
    });

    test('a successor whose first wish is nothing withdraws what was left to it', async () => {
      await using scene = await enter(start);
      const { resumeFile } = scene;
      const first = await scene.open({ resumeFile });
      await announce(first, WEB, instanceOf('i-1'));
      await first.close({ keep: true });
      const second = await scene.open({ resumeFile });
      const announcer = second.announce(WEB, instanceOf('i-1'));
      announcer.set(undefined);
      await announcer.agreed(limit());
      assert.deepEqual(await scene.labels(WEB), []);
    });

    test('withdrawUnclaimed removes what nobody claims any more, below every path, and nothing else', async () => {
      await using scene = await enter(start);
      const { resumeFile } = scene;
      const first = await scene.open({ resumeFile });
      for (const [path, name] of [
        [WEB, 'kept'],
        [WEB, 'gone'],
        ['/services/gone', 'gone'],
      ] as const)
        await announce(first, path, instanceOf(name));
      await announce(scene.registry, WEB, instanceOf('neighbour'));
      await announce(scene.registry, '/services/gone', instanceOf('neighbour'));
      await first.close({ keep: true });

      const second = await scene.open({ resumeFile });
      second.announce(WEB, instanceOf('kept'));
      second.withdrawUnclaimed();
      await eventually(async () => {
        assert.deepEqual(await scene.labels(WEB), ['kept', 'neighbour']);
        assert.deepEqual(await scene.labels('/services/gone'), ['neighbour']);
      });
    });

    test('after a close that kept nothing a successor starts anew', async () => {
      await using scene = await enter(start);
      const { resumeFile } = scene;
      const first = await scene.open({ resumeFile });
      await announce(first, WEB, instanceOf('i-1', 1));
      await first.close();
      assert.deepEqual(await scene.labels(WEB), []);
      const second = await scene.open({ resumeFile });
      second.withdrawUnclaimed();
      await announce(second, WEB, instanceOf('i-1', 2));
      assert.deepEqual(await scene.labels(WEB), ['i-1:2']);
    });
  });
}
