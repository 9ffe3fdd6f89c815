import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, test } from 'node:test';

import { type Instance, instanceId, parseYaml, silentLog, type Snapshot } from '@tandem/core';
import {
  createSource,
  publishedBy,
  reuseRecords,
  type SourceScene,
  SourceSection,
} from '@tandem/discovery/testing';
import { openRegistry, RegistrySection } from '@tandem/registry';
import { createMemoryStore } from '@tandem/registry/testing';
import * as fc from 'fast-check';

import { sourceConformance, type SourceSubject } from '../../conformance/source.ts';
import { eventually } from '../../support/eventually.ts';

const WEB = '/services/web';

async function sceneOf(store = createMemoryStore()): Promise<SourceScene> {
  const registry = await openRegistry(RegistrySection.parse({ memory: {} }), { log: silentLog, store });
  return { registry, path: WEB, format: { kind: 'nerve' }, hostName: 'host-1', log: silentLog };
}

function member(number: number): Instance {
  return { name: `i-${number}`, host: '10.0.0.1', port: 8000 + number, labels: { number: `${number}` } };
}

async function registrySubject(...first: number[]): Promise<SourceSubject> {
  const store = createMemoryStore();
  const scene = await sceneOf(store);
  const serve = (...members: number[]) => {
    const wanted = members.map((number, index) => ({
      id: instanceId(member(number)),
      text: JSON.stringify(member(number)),
      session: 100 + members.slice(0, index).filter((other) => other === number).length,
    }));
    for (const record of store.below(WEB)) {
      const isWanted = wanted.some(({ id, session }) => id === record.id && session === record.session);
      if (!isWanted) store.remove(WEB, record);
    }
    for (const wish of wanted) store.write(WEB, wish);
  };
  serve(...first);
  const open = { count: 0 };
  const source = createSource({ kind: 'registry' }, scene);
  return {
    source: {
      async *watch(signal) {
        open.count += 1;
        try {
          yield* source.watch(signal);
        } finally {
          open.count -= 1;
        }
      },
    },
    instanceOf: member,
    serve,
    hide: () => assert.fail('it cannot be away'),
    restore: () => assert.fail('it cannot be away'),
    serveWithBroken(...members) {
      serve(...members);
      store.write(WEB, { id: instanceId({ ...member(0) }), text: '{"host":7}', session: 100 });
    },
    leftovers: () => open.count,
    close: () => scene.registry.close(),
  };
}

sourceConformance('registry', registrySubject, {
  away: 'the registry in memory is never away; the conformance suite of registries takes others away',
  identity: 'the registry in memory keeps text; the mirror of ZooKeeper reads only what is new',
});

sourceConformance(
  'static',
  async (...members) => ({
    source: createSource(
      { kind: 'static', options: { instances: [...members, ...members].map(member) } },
      await sceneOf(),
    ),
    instanceOf: member,
    serve: () => assert.fail('it cannot change'),
    hide: () => assert.fail('it cannot be away'),
    restore: () => assert.fail('it cannot be away'),
    serveWithBroken: () => assert.fail('it cannot be broken'),
    leftovers: () => 0,
    close: () => {},
  }),
  {
    changes: 'what stands in the configuration changes with it: that is another source',
    away: 'it needs nobody',
    broken: 'a mistake is told when the configuration is read',
    empty: 'the configuration has at least one',
    identity: 'there is one snapshot only',
  },
);

function problemOf(source: string): string {
  const loaded = parseYaml(source, 'web.yaml', SourceSection);
  if (loaded.ok) return '';
  return loaded.problems
    .map(({ line, column, path, reason, remedy = '' }) => `${line}:${column} ${path}: ${reason}. ${remedy}`)
    .join('\n');
}

describe('the configuration of sources', () => {
  test('a source is one key, its kind', () => {
    assert.deepEqual(SourceSection.parse({ registry: {} }), { kind: 'registry' });
    assert.deepEqual(SourceSection.parse({ static: { instances: [{ host: '10.0.0.1', port: 80 }] } }), {
      kind: 'static',
      options: { instances: [{ name: '', host: '10.0.0.1', port: 80 }] },
    });
  });

  test('none, two and unknown kinds are told with what is known', () => {
    assert.match(problemOf('{}'), /exactly one kind of source \(known: registry, static/);
    assert.match(
      problemOf('registry: {}\nstatic: { instances: [{ host: 10.0.0.1, port: 80 }] }'),
      /exactly one kind of source/,
    );
    assert.match(problemOf('registri: {}'), /1:1 .*"registri" is not known here.*Did you mean "registry"\?/);
    assert.match(problemOf('registry: { path: /x }'), /"path" is not known here/);
  });

  test('static instances have a host and a port, and none is there twice', () => {
    assert.match(problemOf('static: { instances: [] }'), /static.instances: must be at least 1/);
    assert.match(problemOf('static:\n  instances:\n    - host: web'), /port: is required/);
    assert.match(
      problemOf('static:\n  instances:\n    - { host: a, port: 1 }\n    - { host: a, port: 1, weight: 2 }'),
      /4:7 static.instances\[1\]: is the same instance as one above/,
    );
  });
});

describe('what a task publishes', () => {
  test('the newest value is handed over, and the error of the task is the reader’s', async () => {
    const seen: number[] = [];
    await assert.rejects(async () => {
      const values = publishedBy<number>(new AbortController().signal, async (publish) => {
        publish(1);
        publish(2);
        await new Promise((resolve) => setTimeout(resolve, 20));
        throw new Error('the task is broken');
      });
      for await (const value of values) seen.push(value);
    }, /the task is broken/);
    assert.deepEqual(seen, [2]);
  });

  test('the task has ended when the iteration has', async () => {
    let hasEnded = false;
    const values = publishedBy<number>(new AbortController().signal, async (publish, signal) => {
      publish(1);
      await once(signal, 'abort');
      await new Promise((resolve) => setTimeout(resolve, 20));
      hasEnded = true;
    });
    for await (const _ of values) break;
    assert.equal(hasEnded, true);
  });

  test('the iteration has ended when the task has', async () => {
    for await (const _ of publishedBy<number>(new AbortController().signal, () => Promise.resolve()))
      assert.fail('it yields');
  });

  test('an error that comes of being ended is nobody’s', async () => {
    const controller = new AbortController();
    const values = publishedBy<number>(controller.signal, async (publish, signal) => {
      publish(1);
      await new Promise((_, reject) => signal.addEventListener('abort', reject, { once: true }));
    });
    for await (const _ of values) setImmediate(() => controller.abort());
  });

  test('a hundred parts under one signal make no warning', async () => {
    const warnings: unknown[] = [];
    const note = (warning: unknown) => void warnings.push(warning);
    process.on('warning', note);
    const controller = new AbortController();
    let begun = 0;
    const read = async () => {
      const values = publishedBy<true>(controller.signal, async (publish, signal) => {
        publish(true);
        await once(signal, 'abort');
      });
      for await (const _ of values) begun += 1;
    };
    const reading = Array.from({ length: 100 }, read);
    await eventually(() => assert.equal(begun, 100));
    controller.abort();
    await Promise.all(reading);
    process.off('warning', note);
    assert.deepEqual(warnings, []);
  });
});

const instances = fc
  .uniqueArray(
    fc.record({ name: fc.constantFrom('a', 'b', 'c', 'd'), weight: fc.integer({ min: 0, max: 1 }) }),
    { selector: ({ name }) => name },
  )
  .map((list) =>
    list
      .toSorted((a, b) => (a.name < b.name ? -1 : 1))
      .map(({ name, weight }): Instance => ({ name, weight, host: '10.0.0.1', port: 80 })),
  );
const rejections = fc.array(fc.constantFrom('x', 'y'), { maxLength: 2 });
const snapshots = fc.tuple(instances, rejections).map(([instances, places]): Snapshot => ({
  instances,
  rejected: places.map((place) => ({ place, reason: 'bad' })),
}));

/** The same in other objects. */
function copyOf({ instances, rejected }: Snapshot): Snapshot {
  return { instances: instances.map((one) => ({ ...one })), rejected: rejected.map((one) => ({ ...one })) };
}

describe('records that are used again', () => {
  test('the snapshot says what the newer one says, with every record of the older one that it can keep', () => {
    fc.assert(
      fc.property(snapshots, snapshots, (older, newer) => {
        const result = reuseRecords(older, newer);
        assert.deepEqual(result, newer);
        for (const instance of result.instances) {
          const before = older.instances.find(({ name }) => name === instance.name);
          if (before?.weight === instance.weight) assert.equal(instance, before);
        }
        assert.equal(reuseRecords(older, copyOf(older)), older);
      }),
    );
  });

  test('without an older snapshot the newer one is the result', () => {
    const newer = { instances: [member(1)], rejected: [] };
    assert.equal(reuseRecords(undefined, newer), newer);
  });
});
