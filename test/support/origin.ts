// Servers behind HAProxy: real ones, in the test's own process, on loopback only.
import { once } from 'node:events';
import http from 'node:http';
import net, { type AddressInfo } from 'node:net';

import type { Instance } from '@tandem/core';

export interface Origin {
  readonly host: string;
  readonly port: number;
  /** Requests (or connections, for tcp) that it has answered. */
  readonly answered: () => number;
  /** The instance that a registry would announce for it. */
  instance(name: string, weight?: number): Instance;
  close(): Promise<void>;
}

/** Answers every request with its own port; `/slow` after a fifth of a second. */
export async function startHttpOrigin(host = '127.0.0.1'): Promise<Origin> {
  let answered = 0;
  const server = http.createServer((request, response) => {
    answered += 1;
    const answer = () => response.end(String((server.address() as AddressInfo).port));
    if (request.url === '/slow') setTimeout(answer, 200);
    else answer();
  });
  // Longer than HAProxy keeps an idle connection to a server.
  server.keepAliveTimeout = 60_000;
  return listen(server, host, () => answered);
}

/** Says its own port to everyone who connects. */
export async function startTcpOrigin(host = '127.0.0.1'): Promise<Origin> {
  let answered = 0;
  const server = net.createServer((socket) => {
    answered += 1;
    socket.on('error', () => {});
    socket.end(String((server.address() as AddressInfo).port));
  });
  return listen(server, host, () => answered);
}

async function listen(
  server: http.Server | net.Server,
  host: string,
  answered: () => number,
): Promise<Origin> {
  const sockets = new Set<net.Socket>();
  server.on('connection', (socket: net.Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  server.listen(0, host);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    host,
    port,
    answered,
    instance: (name, weight) => ({ name, host, port, ...(weight === undefined ? {} : { weight }) }),
    async close() {
      const closed = once(server, 'close');
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}
