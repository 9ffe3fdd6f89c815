import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { silentLog } from '@tandem/core';
import { openRegistry, RegistrySection } from '@tandem/registry';
import { createMemoryStore, type MemoryStore } from '@tandem/registry/testing';

import { registryConformance } from '../../conformance/registry.ts';
import { announce, type RegistrySubject } from '../../conformance/scene.ts';
import { follow, instanceOf, labelOf, limit, listen } from '../../support/registries.ts';

const CONFIG = RegistrySection.parse({ memory: {} });
const WEB = '/services/web';

function subjectOf(store: MemoryStore): RegistrySubject {
  return {
    open: (options) => openRegistry(CONFIG, { log: silentLog, store, ...options }),
    standing: (path) =>
      Promise.resolve(
        store.below(path).map(({ number, text }) => ({ mark: String(number), label: labelOf(text) })),
      ),
  };
}

registryConformance('registry in memory', () => subjectOf(createMemoryStore()));

describe('registry in memory', () => {
  test('without a store to share, every registry is alone, and says so', async () => {
    const { log, lines } = listen();
    const registries = await Promise.all([1, 2].map(() => openRegistry(CONFIG, { log })));
    const [first, second] = registries;
    assert.ok(first !== undefined && second !== undefined);
    assert.deepEqual(
      lines.map(({ message }) => message),
      Array(2).fill('the registry is in the memory of this process, nobody else sees it'),
    );
    await announce(first, WEB, instanceOf('i-1'));
    for await (const snapshot of second.watch(WEB, limit())) {
      assert.deepEqual(snapshot.instances, []);
      break;
    }
    await Promise.all(registries.map((registry) => registry.close()));
  });

  test('the choice of a format changes nothing', async () => {
    const registry = await subjectOf(createMemoryStore()).open();
    const format = { kind: 'nerve' } as const;
    registry.announce(WEB, instanceOf('i-1'), { format }).set(instanceOf('i-1'));
    const watcher = follow(registry, WEB);
    await watcher.shows('i-1');
    await watcher.stop();
    await registry.close();
  });

  test('what cannot be read as an instance is set aside with its reason, as it would be anywhere', async () => {
    const registry = await subjectOf(createMemoryStore()).open();
    await announce(registry, WEB, { ...instanceOf('i-1'), host: 'x'.repeat(300) });
    await announce(registry, WEB, instanceOf('i-2'));
    const watcher = follow(registry, WEB);
    await watcher.shows('i-2');
    assert.match(watcher.latest?.rejected[0]?.reason ?? '', /host/);
    await watcher.stop();
    await registry.close();
  });

  test('what is kept without a name to resume it by goes with its client', async () => {
    const store = createMemoryStore();
    const subject = subjectOf(store);
    const registry = await subject.open();
    await announce(registry, WEB, instanceOf('i-1'));
    await registry.close({ keep: true });
    assert.deepEqual(store.below(WEB), []);
  });

  test('a wish that comes back to what stands writes nothing', async () => {
    const store = createMemoryStore();
    const registry = await subjectOf(store).open();
    const announcer = await announce(registry, WEB, instanceOf('i-1', 1));
    const before = store.below(WEB);
    announcer.set(instanceOf('i-1', 2));
    announcer.set(instanceOf('i-1', 1));
    await announcer.agreed(limit());
    assert.equal(store.below(WEB), before);
    await registry.close();
  });
});
