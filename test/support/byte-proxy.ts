// A proxy on loopback that hands on what the server says one byte at a time, as the worst of networks may.
import { once } from 'node:events';
import net from 'node:net';

import { sleep } from '@tandem/core';

export interface ByteProxy {
  readonly port: number;
  readonly open: () => number;
  readonly close: () => Promise<void>;
}

/** @param pauseMs between one byte and the next */
export async function startByteProxy(targetPort: number, pauseMs = 0): Promise<ByteProxy> {
  const sockets = new Set<net.Socket>();
  const server = net.createServer((client) => {
    const upstream = net.connect({ port: targetPort, host: '127.0.0.1' });
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.setNoDelay(true);
      socket.on('error', () => {});
      socket.on('close', () => sockets.delete(socket));
    }
    client.on('close', () => upstream.destroy());
    client.pipe(upstream);
    void (async () => {
      for await (const chunk of upstream as AsyncIterable<Buffer>) {
        for (const byte of chunk) {
          if (client.destroyed) return;
          client.write(Buffer.from([byte]));
          await (pauseMs === 0 ? nextTurn() : sleep(pauseMs));
        }
      }
      client.end();
    })().catch(() => client.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as net.AddressInfo).port,
    open: () => sockets.size,
    close: async () => {
      const closed = once(server, 'close');
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

/** When everything that waits for the network has had its turn. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}
