import assert from 'node:assert/strict';
import net from 'node:net';
import { describe, test } from 'node:test';

import type { Endpoint, VetDeps } from '@tandem/discovery/testing';
import { formatBind, parseEndpoint, vetStructure, whyTaken } from '@tandem/discovery/testing';

import { service } from '../../support/haproxy.ts';
import { structureOf } from './support.ts';

const web = service('web', '127.0.0.1:3210');
const api = service('api', '127.0.0.1:3211');
const odd = service('odd', '127.0.0.1:3212', { server_options: 'nonsense' });

function endpoint(bind: string): Endpoint {
  const parsed = parseEndpoint(bind);
  assert.ok(parsed !== undefined, bind);
  return parsed;
}

function deps(own: Partial<VetDeps> = {}): VetDeps {
  return {
    good: undefined,
    own: [],
    check: (text) => Promise.resolve(text.includes('nonsense') ? 'unknown word' : undefined),
    whyTaken: () => Promise.resolve(undefined),
    ...own,
  };
}

function namesOf(vetted: Awaited<ReturnType<typeof vetStructure>>): string[] {
  assert.equal(vetted.kind, 'accepted');
  return vetted.kind === 'accepted' ? vetted.structure.proxies.map(({ name }) => name) : [];
}

describe('vetting a structure', () => {
  test('takes one that is in order as it is', async () => {
    const wanted = structureOf([web, api]);

    assert.deepEqual(await vetStructure(wanted, deps()), {
      kind: 'accepted',
      structure: wanted,
      setAside: [],
    });
  });

  test('sets the service aside that HAProxy refuses, and only that', async () => {
    const vetted = await vetStructure(structureOf([web, api, odd]), deps());

    assert.deepEqual(namesOf(vetted), ['api', 'web']);
    assert.deepEqual(vetted.kind === 'accepted' && vetted.setAside, [
      { service: 'odd', reason: 'unknown word' },
    ]);
  });

  test('goes on with the last good version of a service that is refused', async () => {
    const before = service('odd', '127.0.0.1:3212');
    const vetted = await vetStructure(structureOf([web, odd]), deps({ good: structureOf([before]) }));

    assert.deepEqual(namesOf(vetted), ['odd', 'web']);
    assert.equal(vetted.kind === 'accepted' && vetted.structure.proxies[0]?.serverOptions, '');
  });

  test('refuses the whole when what is common to all services is wrong', async () => {
    const vetted = await vetStructure(
      structureOf([web]),
      deps({ check: () => Promise.resolve('bad global') }),
    );

    assert.deepEqual(vetted, { kind: 'refused', complaint: 'bad global' });
  });

  test('tries new addresses, and none that HAProxy listens on itself', async () => {
    const tried: string[] = [];
    const taken = (endpoint: Endpoint) => {
      tried.push(formatBind(endpoint));
      return Promise.resolve('taken');
    };
    const wanted = structureOf([service('web', '*:3210'), api]);

    const vetted = await vetStructure(wanted, deps({ own: [endpoint('127.0.0.1:3210')], whyTaken: taken }));

    assert.deepEqual(tried, ['127.0.0.1:3211']);
    assert.deepEqual(namesOf(vetted), ['web']);
  });

  test('tries no address while a HAProxy runs whose structure nobody knows', async () => {
    const vetted = await vetStructure(
      structureOf([web]),
      deps({ own: undefined, whyTaken: () => Promise.resolve('taken') }),
    );

    assert.deepEqual(namesOf(vetted), ['web']);
  });

  test('knows an address that is taken from one that is free', async () => {
    const server = net.createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    const { port } = server.address() as net.AddressInfo;
    try {
      assert.match((await whyTaken(endpoint(`127.0.0.1:${port}`))) ?? '', /is taken by another process/);
    } finally {
      await new Promise((resolve) => server.close(resolve));
    }
    assert.equal(await whyTaken(endpoint(`127.0.0.1:${port}`)), undefined);
    assert.equal(await whyTaken(endpoint(`[::1]:${port}`)), undefined);
  });
});
