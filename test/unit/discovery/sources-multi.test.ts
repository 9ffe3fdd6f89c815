import assert from 'node:assert/strict';
import { mkdtempSync, renameSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { type Instance, type Log, parseYaml, silentLog } from '@tandem/core';
import {
  createSource,
  pickPart,
  resolveSourceFiles,
  type Source,
  SourceSection,
} from '@tandem/discovery/testing';
import { openRegistry, type Registry, RegistrySection } from '@tandem/registry';
import * as fc from 'fast-check';

import { follow, sourceConformance, type SourceSubject } from '../../conformance/source.ts';
import { eventually } from '../../support/eventually.ts';
import { listen } from '../../support/registries.ts';

async function sourceOf(
  directory: string,
  multi: object,
  { log = silentLog, registry }: { log?: Log; registry?: Registry } = {},
): Promise<Source> {
  const scene = {
    registry: registry ?? (await openRegistry(RegistrySection.parse({ memory: {} }), { log: silentLog })),
    path: '/services/web',
    format: { kind: 'nerve' },
    hostName: 'host-1',
    log,
  } as const;
  const config = resolveSourceFiles(SourceSection.parse({ multi }), (file) => path.join(directory, file));
  return createSource(config, scene);
}

function member(number: number): Instance {
  return { name: `i-${number}`, host: '10.0.0.1', port: 8000 + number };
}

function timers(): number {
  return process.getActiveResourcesInfo().filter((name) => /^(Timeout|FSEVENTWRAP)$/i.test(name)).length;
}

/** Files of a directory, each a source of its own. */
function files() {
  const directory = mkdtempSync(path.join(tmpdir(), 'tandem-multi-source-'));
  const writeText = (name: string, text: string) => {
    writeFileSync(path.join(directory, `${name}.new`), text);
    renameSync(path.join(directory, `${name}.new`), path.join(directory, name));
  };
  return {
    directory,
    writeText,
    write: (name: string, ...members: number[]) => writeText(name, JSON.stringify(members.map(member))),
    remove: (name: string) => unlinkSync(path.join(directory, name)),
    close: () => rmSync(directory, { recursive: true, force: true }),
  };
}

const ODD_AND_EVEN = { sources: { odd: { file: { path: 'odd' } }, even: { file: { path: 'even' } } } };

/** A union of those with odd numbers and those with even ones. */
async function unionSubject(...first: number[]): Promise<SourceSubject> {
  const { directory, writeText, remove, close } = files();
  const before = timers();
  let members: (Instance | string)[] = [];
  let isHidden = first.length === 0;
  const show = () => {
    if (isHidden) return;
    for (const [name, rest] of [
      ['odd', 1],
      ['even', 0],
    ] as const) {
      const own = members.filter((one) => typeof one === 'string' || one.port % 2 === rest);
      writeText(name, JSON.stringify(own));
    }
  };
  const serve = (...numbers: number[]) => {
    members = numbers.map(member);
    show();
  };
  serve(...first);
  return {
    source: await sourceOf(directory, ODD_AND_EVEN),
    instanceOf: member,
    serve,
    hide() {
      isHidden = true;
      remove('odd');
      remove('even');
    },
    restore() {
      isHidden = false;
      show();
    },
    serveWithBroken(...numbers) {
      members = ['broken', ...numbers.map(member)];
      show();
    },
    leftovers: () => Math.max(0, timers() - before),
    close,
  };
}

sourceConformance('multi', unionSubject);

async function watching(t: TestContext, multi: object, first: Record<string, number[]> = {}) {
  const { log, lines } = listen();
  const world = files();
  for (const [name, members] of Object.entries(first)) world.write(name, ...members);
  const watch = follow(await sourceOf(world.directory, multi, { log }));
  t.after(async () => {
    await watch.stop();
    world.close();
  });
  return { world, watch, lines };
}

const AB = { a: { file: { path: 'a' } }, b: { file: { path: 'b' } } };

describe('a union of sources', () => {
  test('says nothing before all of them have, and keeps what each last said', async (t) => {
    const { world, watch } = await watching(t, { sources: AB }, { a: [1] });
    await sleep(300);
    assert.equal(watch.latest, undefined);
    world.write('b', 2);
    await watch.shows(member(1), member(2));
    world.remove('a');
    world.write('b', 3);
    await watch.shows(member(1), member(3));
    assert.equal(watch.snapshots.length, 2);
  });

  test('of two records of one instance shows that of the earlier source', async (t) => {
    const { world, watch } = await watching(t, { sources: AB }, { a: [1] });
    world.writeText('b', JSON.stringify([{ ...member(1), weight: 9 }, member(2)]));
    await watch.shows(member(1), member(2));
    world.write('a');
    await watch.shows({ ...member(1), weight: 9 }, member(2));
  });

  test('tells what was set aside with the name of the source', async (t) => {
    const { world, watch } = await watching(t, { sources: AB }, { a: [1] });
    world.writeText('b', JSON.stringify([member(2), 7]));
    await watch.shows(member(1), member(2));
    assert.match(watch.latest?.rejected[0]?.place ?? '', /^b: .*b:1:\d+$/);
  });

  test('goes on without a silent source when it has been told to wait for so long only', async (t) => {
    const { world, watch, lines } = await watching(t, { sources: AB, wait: '200ms' }, { a: [1] });
    await watch.shows(member(1));
    assert.ok(lines.flatMap(({ facts }) => facts['silent'] ?? []).includes('b'));
    world.write('b', 2);
    await watch.shows(member(1), member(2));
  });

  test('says nothing however long it has waited when there is nobody to go on with', async (t) => {
    const { world, watch } = await watching(t, { sources: AB, wait: '100ms' });
    await sleep(400);
    assert.equal(watch.latest, undefined);
    world.write('b', 2);
    await watch.shows(member(2));
  });

  test('a source that fails is watched again, and keeps what it last said', async (t) => {
    const { log, lines } = listen();
    const world = files();
    t.after(world.close);
    world.write('a', 1);
    let watches = 0;
    const memory = await openRegistry(RegistrySection.parse({ memory: {} }), { log: silentLog });
    const registry: Registry = Object.create(memory, {
      watch: {
        async *value() {
          watches += 1;
          await sleep(20);
          yield { instances: [member(watches)], rejected: [] };
          throw new Error('the registry is broken');
        },
      },
    });
    const multi = { sources: { registry: { registry: {} }, a: AB.a } };
    await using watch = follow(await sourceOf(world.directory, multi, { log, registry }));
    await watch.shows(member(1));
    await eventually(() => assert.equal(watches, 2));
    await watch.shows(member(1), member(2));
    const [failure] = lines.filter(({ message }) => message.includes('has failed'));
    assert.deepEqual(failure?.facts, { source: 'registry', err: 'the registry is broken' });
  });
});

describe('the first of several sources', () => {
  const multi = { sources: AB, combine: 'first' };

  test('that has instances is the one; the later ones are not waited for', async (t) => {
    const { world, watch } = await watching(t, multi, { a: [1] });
    await watch.shows(member(1));
    world.write('a');
    world.write('b', 2);
    await watch.shows(member(2));
    world.write('a', 3);
    await watch.shows(member(3));
    assert.equal(watch.snapshots.length, 3);
  });

  test('is waited for: what comes after it is not known to be wanted', async (t) => {
    const { world, watch } = await watching(t, multi, { b: [2] });
    await sleep(300);
    assert.equal(watch.latest, undefined);
    world.write('a', 1);
    await watch.shows(member(1));
    assert.equal(watch.snapshots.length, 1);
  });

  test('that has said something before it went away stays the one', async (t) => {
    const { world, watch } = await watching(t, multi, { a: [1], b: [2] });
    await watch.shows(member(1));
    world.remove('a');
    world.write('b', 3);
    await sleep(300);
    assert.equal(watch.snapshots.length, 1);
  });

  test('none with instances is an empty snapshot', async (t) => {
    const { watch } = await watching(t, multi, { a: [], b: [] });
    await watch.shows();
  });
});

describe('a weighted choice of sources', () => {
  test('is one of them, by the weights; the others are not even watched', async (t) => {
    const weights = { a: 0, b: 1 };
    const { watch } = await watching(t, { sources: AB, combine: 'weighted', weights }, { b: [2] });
    await watch.shows(member(2));
  });

  const NAMES = ['a', 'b', 'c'];
  const HOSTS = Array.from({ length: 600 }, (_, index) => `host-${index}`);
  const picksOf = (weights: readonly number[], order: readonly string[] = NAMES) =>
    HOSTS.map((hostName) => {
      const parts = order.map((name) => ({
        name,
        source: { kind: 'registry' } as const,
        weight: weights[NAMES.indexOf(name)] ?? 0,
      }));
      return pickPart(parts, { hostName, path: '/services/web' })[0]?.name;
    });
  const weightsOf = fc
    .array(fc.integer({ min: 0, max: 20 }), { minLength: 3, maxLength: 3 })
    .filter((weights) => weights.some((weight) => weight > 0));

  test('hosts are spread in proportion to the weights', () => {
    fc.assert(
      fc.property(weightsOf, (weights) => {
        const picks = picksOf(weights);
        const total = weights.reduce((sum, weight) => sum + weight, 0);
        for (const [index, name] of NAMES.entries()) {
          const share = picks.filter((pick) => pick === name).length / HOSTS.length;
          const wanted = (weights[index] ?? 0) / total;
          assert.ok(Math.abs(share - wanted) < 0.08, `${name}: ${share}, not ${wanted} of ${weights.join()}`);
          if (wanted === 0) assert.equal(share, 0);
        }
      }),
      { numRuns: 40 },
    );
  });

  test('a weight that grows draws hosts to its source and moves no others', () => {
    fc.assert(
      fc.property(weightsOf, fc.nat(2), fc.integer({ min: 1, max: 20 }), (weights, grown, by) => {
        const before = picksOf(weights);
        const after = picksOf(weights.map((weight, index) => (index === grown ? weight + by : weight)));
        for (const [index, pick] of after.entries())
          assert.ok(pick === before[index] || pick === NAMES[grown]);
      }),
      { numRuns: 40 },
    );
  });

  test('only the names and the proportions of the weights count', () => {
    fc.assert(
      fc.property(weightsOf, fc.integer({ min: 2, max: 50 }), (weights, factor) => {
        const picks = picksOf(weights);
        assert.deepEqual(picksOf(weights.map((weight) => weight * factor)), picks);
        assert.deepEqual(picksOf(weights, NAMES.toReversed()), picks);
      }),
      { numRuns: 20 },
    );
  });

  test('not all services of a host are drawn alike', () => {
    const parts = NAMES.map((name) => ({ name, source: { kind: 'registry' } as const, weight: 1 }));
    const picks = HOSTS.map((path) => pickPart(parts, { hostName: 'host-1', path })[0]?.name);
    for (const name of NAMES) assert.ok(picks.filter((pick) => pick === name).length > 120);
  });
});

describe('the configuration of several sources', () => {
  const problemOf = (text: string) => {
    const loaded = parseYaml(`multi: ${text}`, 'web.yaml', SourceSection);
    return loaded.ok
      ? ''
      : loaded.problems.map(({ path, reason, remedy = '' }) => `${path}: ${reason}. ${remedy}`).join('\n');
  };
  const two = 'sources: { a: { registry: {} }, b: { file: { path: x } } }';

  test('sources may be of several sources again, and files are found in all of them', () => {
    const config = SourceSection.parse({
      multi: { sources: { a: { multi: { sources: { b: { file: { path: 'x' } } } } }, c: { registry: {} } } },
    });
    const resolved = JSON.stringify(resolveSourceFiles(config, (file) => `/etc/tandem/${file}`));
    assert.match(resolved, /"path":"\/etc\/tandem\/x"/);
  });

  test('the same sources in another order are another configuration', () => {
    const [one, other] = [
      { a: { registry: {} }, b: { file: { path: 'x' } } },
      { b: { file: { path: 'x' } }, a: { registry: {} } },
    ].map((sources) => SourceSection.parse({ multi: { sources } }));
    assert.notDeepEqual(one, other);
  });

  test('mistakes are told where they are', () => {
    assert.equal(problemOf(`{ ${two}, combine: weighted, weights: { a: 1, b: 2 } }`), '');
    assert.match(problemOf('{ sources: {} }'), /multi.sources: must have at least one source/);
    assert.match(
      problemOf('{ sources: { 7: { registry: {} } } }'),
      /the key "7" cannot be used: must not be a number/,
    );
    assert.match(
      problemOf('{ sources: { a: { dnss: {} } } }'),
      /multi.sources.a: "dnss" is not known here. Known: .*Did you mean "dns"/,
    );
    assert.match(problemOf(`{ ${two}, combine: last }`), /multi.combine: .*Known: union, first, weighted/);
    assert.match(problemOf(`{ ${two}, weights: { a: 1 } }`), /multi.weights: need combine: weighted/);
    assert.match(problemOf(`{ ${two}, combine: weighted }`), /multi.weights: are required/);
    assert.match(
      problemOf(`{ ${two}, combine: weighted, weights: { a: 1 } }`),
      /multi.weights: must say how much b gets/,
    );
    assert.match(
      problemOf(`{ ${two}, combine: weighted, weights: { a: 1, b: 1, c: 1 } }`),
      /multi.weights.c: is not one of the sources \(known: a, b\)/,
    );
    assert.match(
      problemOf(`{ ${two}, combine: weighted, weights: { a: 0, b: 0 } }`),
      /multi.weights: must not all be 0/,
    );
    assert.match(
      problemOf(`{ ${two}, combine: weighted, weights: { a: 0, b: 1 }, wait: 1s }`),
      /multi.wait: is not for combine: weighted/,
    );
  });
});
