import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { eventually } from '../../support/eventually.ts';
import { startFaultProxy } from '../../support/fault-proxy.ts';

/** A server that says everything back, a proxy in front of it, and a client that remembers what it has heard. */
async function enter() {
  const accepted = new Set<Socket>();
  const server = createServer((socket) => {
    accepted.add(socket);
    socket.on('error', () => {});
    socket.pipe(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const proxy = await startFaultProxy((server.address() as AddressInfo).port);
  const client = connect(proxy.port, '127.0.0.1');
  client.setNoDelay(true);
  await once(client, 'connect');
  let heard = '';
  let isClosed = false;
  client.on('data', (chunk: Buffer) => (heard += chunk.toString()));
  client.on('error', () => {});
  client.on('close', () => (isClosed = true));
  return {
    proxy,
    client,
    accepted,
    heard: () => heard,
    isClosed: () => isClosed,
    async [Symbol.asyncDispose]() {
      client.destroy();
      await proxy.close();
      for (const socket of accepted) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

describe('fault proxy', () => {
  test('a delay holds for every byte, each way', async () => {
    await using scene = await enter();
    scene.proxy.delay(60);
    const since = performance.now();
    scene.client.write('slow');
    await eventually(() => assert.equal(scene.heard(), 'slow'));
    // Timers may be a millisecond early.
    assert.ok(performance.now() - since >= 118, `${performance.now() - since} ms`);
  });

  test('bytes arrive in order though the delay changes all the time', async () => {
    await using scene = await enter();
    let said = '';
    for (const [index, ms] of [80, 5, 0, 40, 0, 20, 1, 0].entries()) {
      scene.proxy.delay(ms);
      const text = `(${index}:${'x'.repeat(index * 100)})`;
      said += text;
      scene.client.write(text);
      await sleep(4);
    }
    await eventually(() => assert.equal(scene.heard(), said));
  });

  test('an end that comes from the server is as late as what was said before it', async () => {
    await using scene = await enter();
    scene.proxy.delay(30);
    scene.client.write('last words');
    await eventually(() => assert.equal(scene.proxy.bytesToClient, 10));
    for (const socket of scene.accepted) socket.destroy();
    await eventually(() => assert.ok(scene.isClosed()));
    assert.equal(scene.heard(), 'last words');
  });

  test('what is under way when everything is killed never arrives', async () => {
    await using scene = await enter();
    scene.proxy.delay(30);
    scene.client.write('lost');
    await eventually(() => assert.equal(scene.proxy.bytesToServer, 4));
    scene.proxy.kill();
    await eventually(() => assert.ok(scene.isClosed()));
    await sleep(60);
    assert.equal(scene.heard(), '');
    assert.equal(scene.proxy.open, 0);
  });

  test('what is injected reaches the client as if the server had said it', async () => {
    await using scene = await enter();
    scene.client.write('a');
    await eventually(() => assert.equal(scene.heard(), 'a'));
    scene.proxy.inject(Buffer.from('b'));
    await eventually(() => assert.equal(scene.heard(), 'ab'));
  });
});
