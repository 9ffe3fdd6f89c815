// Ports for servers of tests, below the range from which the kernel chooses: it gives those to every connection as well.
// What was free a moment ago may be the near end of another test's connection by now, and who tries again and again to
// reach a port of that range while nobody listens there ends up connected to himself.
import { once } from 'node:events';
import { createServer, type AddressInfo, type Server } from 'node:net';

const FIRST = 10_000;
/** What is written down in tests lies above. */
const COUNT = 18_000;

/** So many ports where nobody listens, all different. Two tests that ask at the same time hardly ever get the same. */
export async function freePorts(count: number, host = '127.0.0.1'): Promise<number[]> {
  const servers: Server[] = [];
  try {
    while (servers.length < count) {
      const server = createServer().listen(FIRST + Math.floor(Math.random() * COUNT), host);
      const isFree = await once(server, 'listening').then(
        () => true,
        (error: NodeJS.ErrnoException) => {
          if (error.code !== 'EADDRINUSE') throw error;
          return false;
        },
      );
      if (isFree) servers.push(server);
    }
    return servers.map((server) => (server.address() as AddressInfo).port);
  } finally {
    await Promise.all(servers.map((server) => once(server.close(), 'close')));
  }
}

export async function freePort(host?: string): Promise<number> {
  const [port = 0] = await freePorts(1, host);
  return port;
}
