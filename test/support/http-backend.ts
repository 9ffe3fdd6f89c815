// An HTTP server of a test that can be away, come back at the same place, and be counted.
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import type { AddressInfo, Socket } from 'node:net';

export interface HttpBackend {
  /** `http://127.0.0.1:PORT`, or what stands for a socket. */
  readonly origin: string;
  /** Connections that are open now. */
  readonly open: () => number;
  /** What was asked so far, as `GET /path`, and with which headers. */
  readonly requests: readonly { readonly line: string; readonly headers: http.IncomingHttpHeaders }[];
  /** Refuses connections, and cuts those that are there. */
  readonly hide: () => Promise<void>;
  readonly restore: () => Promise<void>;
  /** Cuts what is open, and goes on. */
  readonly cut: () => void;
  readonly close: () => Promise<void>;
}

export interface BackendPlace {
  readonly socketPath?: string;
  readonly tls?: https.ServerOptions;
}

export async function startHttpBackend(
  listener: http.RequestListener,
  place: BackendPlace = {},
): Promise<HttpBackend> {
  const requests: { line: string; headers: http.IncomingHttpHeaders }[] = [];
  const sockets = new Set<Socket>();
  let port = 0;
  let server: http.Server | undefined;

  function create(): http.Server {
    const listen: http.RequestListener = (request, response) => {
      requests.push({ line: `${request.method} ${request.url}`, headers: request.headers });
      listener(request, response);
    };
    const made = place.tls === undefined ? http.createServer(listen) : https.createServer(place.tls, listen);
    made.on('connection', (socket: Socket) => {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.once('close', () => sockets.delete(socket));
    });
    return made;
  }
  async function restore(): Promise<void> {
    if (server !== undefined) return;
    server = create();
    if (place.socketPath === undefined) server.listen(port, '127.0.0.1');
    else server.listen(place.socketPath);
    await once(server, 'listening');
    if (place.socketPath === undefined) ({ port } = server.address() as AddressInfo);
  }
  function cut(): void {
    for (const socket of sockets) socket.destroy();
  }
  async function hide(): Promise<void> {
    if (server === undefined) return;
    const closed = once(server, 'close');
    server.close();
    cut();
    await closed;
    server = undefined;
    if (place.socketPath !== undefined) rmSync(place.socketPath, { force: true });
  }

  await restore();
  const scheme = place.tls === undefined ? 'http' : 'https';
  return {
    origin: place.socketPath === undefined ? `${scheme}://127.0.0.1:${port}` : `unix://${place.socketPath}`,
    open: () => sockets.size,
    requests,
    hide,
    restore,
    cut,
    close: hide,
  };
}

export function answerJson(response: http.ServerResponse, value: unknown, status = 200): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(`${JSON.stringify(value)}\n`);
}

/** What a server on a unix socket answers to a GET, as JSON. */
export async function askUnix(socketPath: string, path: string): Promise<unknown> {
  const request = http.get({ socketPath, path, agent: false });
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  return JSON.parse(Buffer.concat(chunks).toString('utf8')) as unknown;
}
