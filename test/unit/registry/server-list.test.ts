import assert from 'node:assert/strict';
import { describe, mock, test } from 'node:test';

import { createServerList } from '@tandem/registry/testing';

import { listen } from '../../support/registries.ts';

type Options = Parameters<typeof createServerList>[0];

function createList(hosts: readonly string[], options: Partial<Options> = {}) {
  const { log, said } = listen();
  const list = createServerList({
    servers: hosts.map((host) => ({ host, port: 1 })),
    resolve: () => Promise.reject(new Error('nobody was to be asked')),
    random: () => 0.5,
    log,
    ...options,
  });
  const { signal } = new AbortController();
  const take = async (attempts: number) => {
    const taken: (string | undefined)[] = [];
    for (let attempt = 0; attempt < attempts; attempt += 1) taken.push((await list.next(signal))?.address);
    return taken;
  };
  return { list, take, said };
}

describe('server list', () => {
  test('addresses are taken as they are, one after the other, and round again', async () => {
    const { list, take } = createList(['10.0.0.1', '2001:db8::1', '10.0.0.3']);
    assert.equal(list.count, 3);
    assert.deepEqual(await take(5), ['10.0.0.1', '2001:db8::1', '10.0.0.3', '10.0.0.1', '2001:db8::1']);
  });

  test('a fleet begins in an order of chance', async () => {
    let seed = 0;
    const random = () => (seed = (seed * 7 + 3) % 11) / 11;
    const first = new Set<string | undefined>();
    for (let host = 0; host < 20; host += 1) {
      const [address] = await createList(['10.0.0.1', '10.0.0.2', '10.0.0.3'], { random }).take(1);
      first.add(address);
    }
    assert.equal(first.size, 3);
  });

  test('a name with several addresses is several servers; one that comes twice is one', async () => {
    const resolve = () => Promise.resolve(['10.0.0.1', '10.0.0.2', '10.0.0.1']);
    const { list, take } = createList(['zk', '10.0.0.9'], { resolve });
    assert.deepEqual(await take(3), ['10.0.0.1', '10.0.0.2', '10.0.0.9']);
    assert.equal(list.count, 3);
  });

  test('names are resolved anew for every round, and after somebody has answered', async () => {
    let asked = 0;
    const resolve = () => Promise.resolve([`10.0.0.${(asked += 1)}`, '10.0.0.99']);
    const { list, take } = createList(['zk'], { resolve });
    await take(2);
    assert.equal(asked, 1);
    // What was never tried comes first.
    assert.deepEqual(await take(2), ['10.0.0.2', '10.0.0.99']);
    await take(1);
    list.restart();
    assert.deepEqual(await take(1), ['10.0.0.4']);
  });

  test('whoever was tried last comes last, also in the next round', async () => {
    const { list, take } = createList(['10.0.0.1', '10.0.0.2', '10.0.0.3']);
    await take(2);
    list.restart();
    assert.deepEqual(await take(3), ['10.0.0.3', '10.0.0.1', '10.0.0.2']);
  });

  test('without any address there is nobody to try, and the reason is told once until it resolves', async () => {
    let answer: string[] | undefined;
    const resolve = () =>
      answer === undefined ? Promise.reject(new Error('ENOTFOUND zk')) : Promise.resolve(answer);
    const { take, said } = createList(['zk'], { resolve });
    assert.deepEqual(await take(3), [undefined, undefined, undefined]);
    assert.deepEqual(
      said('cannot resolve').map(({ facts }) => facts),
      [{ host: 'zk', reason: 'ENOTFOUND zk' }],
    );
    answer = ['10.0.0.1'];
    assert.deepEqual(await take(1), ['10.0.0.1']);
    assert.equal(said('resolves again').length, 1);
    answer = undefined;
    assert.deepEqual(await take(1), ['10.0.0.1'], 'the last known one');
    assert.deepEqual(said('using the addresses it had')[0]?.facts['addresses'], ['10.0.0.1']);
  });

  test('a slow answer is waited for in vain once, is not asked for again, and counts when it comes', async () => {
    mock.timers.enable({ apis: ['setTimeout'] });
    try {
      let asked = 0;
      let answer: ((addresses: string[]) => void) | undefined;
      const resolve = () => {
        asked += 1;
        return new Promise<string[]>((done) => (answer = done));
      };
      const { take } = createList(['zk', '10.0.0.9'], { resolve });
      const first = take(1);
      await turn();
      mock.timers.tick(250);
      assert.deepEqual(await first, ['10.0.0.9']);
      const second = take(1);
      await turn();
      answer?.(['10.0.0.1']);
      assert.deepEqual(await second, ['10.0.0.1']);
      assert.equal(asked, 1);
    } finally {
      mock.timers.reset();
    }
  });

  test('a lookup is given up when nobody wants its answer any more', async () => {
    const controller = new AbortController();
    const { list } = createList(['zk'], { resolve: () => new Promise(() => {}) });
    const next = list.next(controller.signal);
    controller.abort(new Error('closed'));
    await assert.rejects(next, { message: 'closed' });
  });
});

/** Lets everything run that waits for nothing. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
