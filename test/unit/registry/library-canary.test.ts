// The connection overrides members of an unmaintained library on the instance. This bird dies when one of them moves.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { describe, test } from 'node:test';

import { startEmbeddedZooKeeper } from '@tandem/embedded-zookeeper';

import { eventually } from '../../support/eventually.ts';
import { follow, instanceOf, limit, openTestRegistry } from '../../support/registries.ts';

const LIBRARY = 'node-zookeeper-client';
const PINNED = '1.1.3';
const root = path.resolve(import.meta.dirname, '../../../..');
const registry = path.join(root, 'packages/registry/package.json');
const requireFromRegistry = createRequire(registry);

type Member = (this: unknown, ...values: unknown[]) => unknown;

interface Manager {
  [member: string]: unknown;
  connectionManager?: never;
  on(event: 'state', listener: (state: number) => void): void;
  socket: { destroy(): void; listeners(event: string): Member[] };
}

const library = requireFromRegistry(LIBRARY) as {
  createClient(
    servers: string,
    options: object,
  ): { connectionManager: Manager; connect(): void; close(): void } & NodeJS.EventEmitter;
};
const { STATES, prototype } = requireFromRegistry(`${LIBRARY}/lib/ConnectionManager.js`) as {
  STATES: Record<string, number>;
  prototype: Record<string, Member>;
};

async function json(file: string): Promise<Record<string, unknown>> {
  return JSON.parse(await readFile(file, 'utf8')) as Record<string, unknown>;
}

function createManager(servers = '127.0.0.1:1', options: object = {}): Manager {
  return library.createClient(servers, { sessionTimeout: 4000, retries: 0, ...options }).connectionManager;
}

describe(`canary: ${LIBRARY}`, () => {
  test(`is exactly ${PINNED} where it is asked for, where it is locked and where it is installed`, async () => {
    const asked = (await json(registry))['dependencies'] as Record<string, string>;
    assert.equal(asked[LIBRARY], PINNED);
    const locked = (await json(path.join(root, 'package-lock.json')))['packages'] as Record<
      string,
      { version: string }
    >;
    const copies = Object.entries(locked).filter(([place]) => place.endsWith(`node_modules/${LIBRARY}`));
    assert.deepEqual(
      copies.map(([, copy]) => copy.version),
      [PINNED],
    );
    assert.equal((await json(requireFromRegistry.resolve(`${LIBRARY}/package.json`)))['version'], PINNED);
  });

  test('the states have the numbers that the connection knows', () => {
    assert.deepEqual(STATES, {
      DISCONNECTED: 0,
      CONNECTING: 1,
      CONNECTED: 2,
      CONNECTED_READ_ONLY: 3,
      CLOSING: -1,
      CLOSED: -2,
      SESSION_EXPIRED: -3,
      AUTHENTICATION_FAILED: -4,
    });
  });

  test('every member that is overridden stands on the prototype, and what is read has its type', () => {
    for (const [member, length] of [
      ['connect', 0],
      ['setState', 1],
      ['onSocketData', 1],
      ['onSocketDrain', 0],
      ['onSocketClosed', 1],
      ['onSocketTimeout', 0],
      ['queue', 2],
    ] as const) {
      assert.equal(typeof prototype[member], 'function', member);
      assert.equal(prototype[member]?.length, length, `the parameters of ${member}`);
    }
    const manager = createManager();
    assert.equal(manager['state'], STATES['DISCONNECTED']);
    assert.equal(manager['xid'], 0);
    assert.equal(manager['sessionTimeout'], 4000);
    assert.equal(manager['pendingBuffer'], null);
    assert.deepEqual(manager['pendingQueue'], []);
    assert.deepEqual((manager['packetQueue'] as { queue: unknown }).queue, []);
    for (const [member, size] of [
      ['zxid', 8],
      ['sessionId', 8],
      ['sessionPassword', 16],
    ] as const)
      assert.deepEqual(manager[member], Buffer.alloc(size), member);
  });

  test('a session to resume is taken from the options', () => {
    const sessionId = Buffer.from('0102030405060708', 'hex');
    const sessionPassword = Buffer.from('0123456789abcdef');
    const manager = createManager('127.0.0.1:1', { sessionId, sessionPassword });
    assert.deepEqual([manager['sessionId'], manager['sessionPassword']], [sessionId, sessionPassword]);
  });

  test('connect is looked up on the instance, by the client and after a connection has ended', () => {
    const client = library.createClient('127.0.0.1:1', { sessionTimeout: 4000, retries: 0 });
    const manager = client.connectionManager;
    const states: number[] = [];
    manager.on('state', (state) => states.push(state));
    let connects = 0;
    manager['connect'] = () => {
      connects += 1;
      (manager['setState'] as Member).call(manager, STATES['CONNECTING']);
    };
    client.connect();
    (manager['onSocketClosed'] as Member).call(manager);
    assert.equal(connects, 2);
    assert.deepEqual(states, [STATES['CONNECTING'], STATES['DISCONNECTED'], STATES['CONNECTING']]);
  });

  test('what a connection has left to write goes on when its socket has drained', () => {
    const manager = createManager();
    let readable = 0;
    manager['onPacketQueueReadable'] = () => (readable += 1);
    (manager['onSocketDrain'] as Member).call(manager);
    assert.equal(readable, 1);
  });

  test('a packet for auth keeps its number and waits for no answer, and the answer concerns no other packet', () => {
    const manager = createManager();
    (manager['setState'] as Member).call(manager, STATES['CONNECTED']);
    const written: unknown[] = [];
    manager.socket = { write: (bytes: unknown) => written.push(bytes) } as never;
    const request = { header: { type: 100, xid: -4 }, payload: null, toBuffer: () => 'auth' };
    (manager['queue'] as Member).call(manager, request);
    assert.deepEqual(written, ['auth']);
    assert.deepEqual([request.header.xid, manager['xid']], [-4, 0]);
    assert.deepEqual(manager['pendingQueue'], []);
  });

  test('on a connection: overrides are bound to the socket, requests are numbered and kept in order', async () => {
    await using server = await startEmbeddedZooKeeper();
    const client = library.createClient(`127.0.0.1:${server.port}`, { sessionTimeout: 4000, retries: 0 });
    const manager = client.connectionManager;
    const called: string[] = [];
    for (const member of ['connect', 'onSocketData', 'onSocketTimeout'] as const) {
      const original = prototype[member];
      manager[member] = (...values: unknown[]) => {
        called.push(member);
        return original?.call(manager, ...values);
      };
    }
    const states: number[] = [];
    manager.on('state', (state) => states.push(state));
    client.connect();
    await once(client, 'connected');
    assert.deepEqual([...new Set(called)], ['connect', 'onSocketData']);
    assert.notDeepEqual(manager['sessionId'], Buffer.alloc(8));
    assert.equal((manager['sessionPassword'] as Buffer).length, 16);

    // A request needs a header with a type, a payload that may be null, and its bytes; the xid is given on sending.
    manager['xid'] = 77;
    const request = {
      header: { type: 3, xid: 0 },
      payload: null,
      toBuffer: () => {
        const bytes = Buffer.from('000000000000000000000003000000012f00', 'hex');
        bytes.writeInt32BE(bytes.length - 4, 0);
        bytes.writeInt32BE(request.header.xid, 4);
        return bytes;
      },
    };
    const answered = new Promise<unknown>((resolve) => {
      (manager['queue'] as Member).call(manager, request, (error: unknown) => resolve(error));
    });
    assert.equal(request.header.xid, 77);
    assert.equal(manager['xid'], 78);
    assert.equal((manager['pendingQueue'] as { request: unknown }[])[0]?.request, request);
    assert.equal(await answered, null);
    assert.deepEqual(manager['pendingQueue'], []);

    const closed = new Promise<void>((resolve) => {
      manager.on('state', (state) => {
        if (state === STATES['CLOSED']) resolve();
      });
    });
    client.close();
    await closed;
    assert.deepEqual(states, [1, 2, -1, 0, -2]);
  });

  test('a broken connection fails what waits for an answer before the state changes, then connects again', async () => {
    await using server = await startEmbeddedZooKeeper();
    const client = library.createClient(`127.0.0.1:${server.port}`, { sessionTimeout: 4000, retries: 0 });
    const manager = client.connectionManager;
    client.connect();
    await once(client, 'connected');
    const order: unknown[] = [];
    (manager['pendingQueue'] as unknown[]).push({
      callback: (error: unknown) => order.push(error instanceof Error ? 'failed' : error, manager['state']),
    });
    manager.on('state', (state) => order.push(state));
    manager.socket.destroy();
    await once(client, 'connected');
    assert.deepEqual(order, ['failed', 2, 0, 1, 2]);
    client.close();
    await once(client, 'disconnected');
  });
});

/**
 * Faults of the library that cannot hurt whoever never calls what has them: versions of 0 in transactions (B11), trees
 * that are read or deleted one level deep (B12), a second connect (B14), a listener for every call (B18), retries that
 * repeat what was done (B21), containers that are none (B22) and mkdirp (B23).
 */
describe(`canary: what is used of ${LIBRARY}`, () => {
  const sources = path.join(root, 'packages');
  const files = readdirSync(sources, { recursive: true })
    .map(String)
    .filter((file) => /^[^/]+\/src\/.*\.ts$/.test(file) && !file.endsWith('.d.ts'));
  const importers = files.filter((file) =>
    readFileSync(path.join(sources, file), 'utf8').includes(`from '${LIBRARY}`),
  );

  test('one file imports it, and of a client it touches nothing but connect, close and the manager', () => {
    assert.deepEqual(importers, ['registry/src/zookeeper/connection.ts']);
    const text = readFileSync(path.join(sources, importers[0] ?? ''), 'utf8');
    const used = (pattern: RegExp) => new Set([...text.matchAll(pattern)].map(([, member]) => member));
    assert.deepEqual(used(/\blibrary\.(\w+)/g), new Set(['createClient']));
    assert.deepEqual(used(/#client\.(\w+)/g), new Set(['close', 'connect', 'connectionManager']));
    assert.match(text, /\bretries: 0\b/);
  });

  test('a registry at work calls nothing else, connects each client once, and leaves no watcher with it', async () => {
    const spy = spyOnLibrary();
    try {
      await using server = await startEmbeddedZooKeeper();
      for (const mirror of ['auto', 'classic'] as const) {
        const registry = await openTestRegistry(server.port, { mirror });
        const watcher = follow(registry, '/web');
        const announcer = registry.announce('/web', instanceOf('i-1'), { nodeType: 'persistent' });
        announcer.set(instanceOf('i-1', 1));
        await announcer.agreed(limit());
        await watcher.shows('i-1:1');
        announcer.set(undefined);
        await announcer.agreed(limit());
        await watcher.shows();
        const id = server.sessions()[0]?.id ?? 0n;
        server.expireSession(id);
        await eventually(() => assert.ok(server.sessions().some((session) => session.id !== id)));
        await eventually(() => assert.equal(registry.status.state, 'connected'));
        await watcher.stop();
        await registry.close();
      }
    } finally {
      spy.restore();
    }
    const { managers, called } = spy;
    assert.equal(managers.length, 4);
    assert.deepEqual(
      called.filter((member) => member !== 'close'),
      managers.map(() => 'connect'),
    );
    assert.ok(called.length <= 2 * managers.length);
    for (const { watcherManager } of managers)
      for (const watchers of Object.values(watcherManager)) assert.deepEqual(Object.keys(watchers), []);
  });
});

/** Notes every call of a method of a client, and what the library makes meanwhile. */
function spyOnLibrary() {
  interface Spied {
    connectionManager: { watcherManager: Record<string, object> };
  }
  const made = library as unknown as { createClient: (...values: unknown[]) => Spied };
  const { createClient } = made;
  const managers: Spied['connectionManager'][] = [];
  const called: string[] = [];
  const Client = createClient('127.0.0.1:1').constructor as unknown as { prototype: Record<string, Member> };
  // What the manager tells the client of is none of ours.
  const originals = Object.entries(Client.prototype).filter(([name]) => !/^on[A-Z]/.test(name));
  for (const [name, member] of originals) {
    Client.prototype[name] = function spied(this: unknown, ...values: unknown[]) {
      called.push(name);
      return member.apply(this, values);
    };
  }
  made.createClient = (...values) => {
    const client = createClient(...values);
    managers.push(client.connectionManager);
    return client;
  };
  return {
    managers,
    called,
    restore() {
      made.createClient = createClient;
      for (const [name, member] of originals) Client.prototype[name] = member;
    },
  };
}
