import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { after, before, describe, test } from 'node:test';
import * as fc from 'fast-check';
import { startEmbeddedZooKeeper, type EmbeddedZooKeeper } from '@tandem/embedded-zookeeper';
import {
  askWord,
  connectWire,
  WireReader,
  WireWriter,
  zk,
  type WireClient,
} from '../../support/zookeeper-wire.ts';

// A suite of its own: all unit test files share one process, and hooks outside of a suite would be everybody's.
describe('embedded ZooKeeper: protocol', { timeout: 30_000 }, () => {
  let server: EmbeddedZooKeeper;
  let bystander: WireClient;

  before(async () => {
    server = await startEmbeddedZooKeeper({ maxRequestBytes: 1000 });
    bystander = await connectWire(server.port);
  });

  after(async () => {
    await server.close();
  });

  function frame(body: WireWriter): Buffer {
    const bytes = body.bytes();
    return new WireWriter().int(bytes.length).raw(bytes).bytes();
  }

  const greeting = () => frame(new WireWriter().int(0).long(0n).int(5000).long(0n).text(Buffer.alloc(16)));

  /** Sends the bytes and collects all that comes back until the server hangs up. */
  async function converse(bytes: Buffer): Promise<Buffer> {
    const socket = connect(server.port, '127.0.0.1');
    socket.write(bytes);
    const chunks: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.on('error', () => {});
    await once(socket, 'close');
    return Buffer.concat(chunks);
  }

  test('requests may arrive in any pieces', async () => {
    const requests = [
      frame(new WireWriter().int(1).int(3).text('/').boolean(false)),
      frame(new WireWriter().int(-2).int(11)),
      frame(new WireWriter().int(2).int(4).text('/missing').boolean(false)),
      frame(new WireWriter().int(3).int(-11)),
    ];
    const bytes = Buffer.concat([greeting(), ...requests]);
    const cuts = fc.array(fc.integer({ min: 1, max: bytes.length - 1 }), { maxLength: 6 });
    await fc.assert(
      fc.asyncProperty(cuts, async (cuts) => {
        const socket = connect({ port: server.port, host: '127.0.0.1', noDelay: true });
        const chunks: Buffer[] = [];
        socket.on('data', (chunk: Buffer) => chunks.push(chunk));
        const closed = once(socket, 'close');
        let from = 0;
        for (const to of [...cuts.toSorted((a, b) => a - b), bytes.length]) {
          socket.write(bytes.subarray(from, to));
          // A turn of the event loop, so that the server reads this piece by itself.
          await new Promise((resolve) => setImmediate(resolve));
          from = to;
        }
        await closed;
        const reader = new WireReader(Buffer.concat(chunks));
        reader.offset += 4 + reader.bytes.readInt32BE(0);
        const answers: [number, number][] = [];
        while (reader.remaining > 0) {
          const end = reader.offset + 4 + reader.int();
          const xid = reader.int();
          reader.long();
          answers.push([xid, reader.int()]);
          reader.offset = end;
        }
        assert.deepEqual(answers, [
          [1, 0],
          [-2, 0],
          [2, -101],
          [3, 0],
        ]);
      }),
      { numRuns: 30 },
    );
  });

  test('whatever bytes arrive, only their own connection can suffer', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.boolean(),
        fc.uint8Array({ minLength: 1, maxLength: 60 }),
        async (isGreeted, noise) => {
          const socket = connect(server.port, '127.0.0.1');
          socket.on('error', () => {});
          const closed = once(socket, 'close');
          socket.end(
            Buffer.concat([
              isGreeted ? greeting() : Buffer.alloc(0),
              frame(new WireWriter().raw(Buffer.from(noise))),
            ]),
          );
          socket.resume();
          await closed;
          assert.equal((await bystander.ping()).code, 0);
        },
      ),
      { numRuns: 60 },
    );
  });

  test('a handshake cut short ends its connection without a word', async () => {
    assert.equal((await converse(frame(new WireWriter().int(0).long(0n)))).length, 0);
  });

  test('a request larger than the limit ends its connection', async () => {
    const client = await connectWire(server.port);
    client.sendFrame(Buffer.alloc(1000));
    assert.equal((await client.ping().catch(() => 'ended')) === 'ended', true, 'opcode 0 is unknown');
    const other = await connectWire(server.port);
    const path = `/${'x'.repeat(900)}`;
    assert.equal((await zk.create(other, { path })).code, 0);
    await assert.rejects(zk.create(other, { path, data: 'y'.repeat(100) }), /ended/);
  });

  test('a body that cannot be read gets an error and costs nothing else', async () => {
    const client = await connectWire(server.port);
    assert.equal((await client.request(1, (body) => body.text('/a'))).code, -5);
    assert.equal((await client.request(4, (body) => body.int(1 << 30))).code, -5);
    assert.equal((await client.ping()).code, 0);
    client.destroy();
  });

  test('an unknown operation gets an error and ends the connection; the session lives', async () => {
    const client = await connectWire(server.port);
    assert.equal((await client.request(77)).code, -6);
    await client.closed;
    const { sessionId, password } = client;
    const resumed = await connectWire(server.port, { sessionId, password });
    assert.equal(resumed.sessionId, sessionId);
    resumed.destroy();
  });

  test('a proven name is shown by whoAmI and stands for auth in an ACL', async () => {
    const client = await connectWire(server.port);
    const auth = [{ permissions: 31, scheme: 'auth', id: '' }];
    assert.equal((await zk.create(client, { path: '/auth', acl: auth })).code, -114);
    assert.equal((await zk.auth(client, 'digest', 'bob:secret')).code, 0);
    assert.equal((await zk.create(client, { path: '/auth', acl: auth })).code, 0);
    assert.deepEqual((await zk.getAcl(client, '/auth')).acl, [
      { permissions: 31, scheme: 'digest', id: 'bob:fyVmFCwVbTJYrznoSu1koqYEYF0=' },
    ]);
    assert.deepEqual((await zk.whoAmI(client)).clients, [
      { scheme: 'ip', user: '127.0.0.1' },
      { scheme: 'digest', user: 'bob' },
    ]);
    assert.equal((await zk.auth(client, 'nonsense', '')).code, -115);
    await client.closed;
  });

  test('four-letter words are answered, also in pieces', async () => {
    assert.equal(await askWord(server.port, 'ruok'), 'imok');
    assert.match(await askWord(server.port, 'srvr'), /^Mode: standalone$/m);
    assert.match(await askWord(server.port, 'mntr'), /not in the whitelist/);
    const socket = connect({ port: server.port, host: '127.0.0.1', noDelay: true });
    for (const letter of 'ruok') {
      socket.write(letter);
      await new Promise((resolve) => setImmediate(resolve));
    }
    const [answer] = (await once(socket, 'data')) as [Buffer];
    assert.equal(answer.toString(), 'imok');
  });

  test('an answer may be much larger than a request', async () => {
    const client = await connectWire(server.port);
    await zk.create(client, { path: '/many' });
    const paths = Array.from({ length: 2000 }, (_, index) => `/many/${'name'.repeat(20)}${index}`);
    await Promise.all(paths.map((path) => zk.create(client, { path })));
    assert.equal((await zk.getChildren(client, '/many')).children?.length, 2000);
    client.destroy();
  });

  test('packets are counted, the handshake and pings among them', async () => {
    await using server = await startEmbeddedZooKeeper();
    const client = await connectWire(server.port);
    await client.ping();
    await zk.exists(client, '/');
    assert.equal(server.packetsReceived, 3);
    assert.equal(server.connectString, `127.0.0.1:${server.port}`);
    client.destroy();
  });

  test('close ends every connection, may be called twice, and frees the port', async () => {
    const server = await startEmbeddedZooKeeper();
    const client = await connectWire(server.port);
    const silent = connect(server.port, '127.0.0.1');
    await once(silent, 'connect');
    silent.on('error', () => {});
    const silentClosed = once(silent, 'close');
    await Promise.all([server.close(), server.close()]);
    await Promise.all([client.closed, silentClosed]);
    await using again = await startEmbeddedZooKeeper({ port: server.port });
    assert.equal(again.port, server.port);
  });

  test('a port that is taken is reported to the one who asked for it', async () => {
    await assert.rejects(startEmbeddedZooKeeper({ port: server.port }), { code: 'EADDRINUSE' });
  });
});
