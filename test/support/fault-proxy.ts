// A TCP proxy on loopback that misbehaves on request, for whatever stands between a client and its server.
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

export interface FaultProxy {
  readonly port: number;
  /** Connections accepted so far. */
  readonly accepted: number;
  /** Connections that are open now. */
  readonly open: number;
  readonly bytesToServer: number;
  readonly bytesToClient: number;
  /** Forwards everything, also what a blackhole has swallowed: as TCP does when the network is back. */
  pass(): void;
  /** Nothing gets through in either direction and nothing is closed; new connections are accepted and ignored. */
  blackhole(): void;
  /** New connections are accepted and never answered. Those that exist go on. */
  acceptOnly(): void;
  /** New connections are closed at once. Those that exist go on. */
  acceptThenClose(): void;
  /** Cuts the connection on which these many more bytes have gone to the client, once. */
  cutAfter(bytes: number): void;
  /**
   * Keeps what the clients of the present connections send from the server until it is released, also when these
   * clients have been dropped: bytes of a dead connection that arrive late. What the server sends goes through.
   */
  holdRequests(): { bytes(): number; dropClients(): void; release(): void };
  /** Ends every connection, by a FIN or by a reset. */
  kill(): void;
  reset(): void;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

type Mode = 'pass' | 'blackhole' | 'accept-only' | 'accept-then-close';

interface Pair {
  readonly client: Socket;
  server: Socket | undefined;
  /** What is kept from the server; undefined: nothing is. */
  held: Buffer[] | undefined;
}

/** Starts a proxy in front of a port on loopback; on a free port of 127.0.0.1, unless told otherwise. */
export async function startFaultProxy(
  targetPort: number,
  at: { host?: string; port?: number } = {},
): Promise<FaultProxy> {
  const proxy = new Proxy(targetPort);
  await proxy.listen(at.port ?? 0, at.host ?? '127.0.0.1');
  return proxy;
}

class Proxy implements FaultProxy {
  readonly #targetPort: number;
  readonly #pairs = new Set<Pair>();
  readonly #listener = createServer((client) => this.#accept(client));
  #mode: Mode = 'pass';
  #cutAfter = Infinity;
  port = 0;
  accepted = 0;
  bytesToServer = 0;
  bytesToClient = 0;

  constructor(targetPort: number) {
    this.#targetPort = targetPort;
  }

  async listen(port: number, host: string): Promise<void> {
    this.#listener.listen(port, host);
    await once(this.#listener, 'listening');
    this.port = (this.#listener.address() as AddressInfo).port;
  }

  get open(): number {
    return this.#pairs.size;
  }

  pass(): void {
    const wasBlackhole = this.#mode === 'blackhole';
    this.#mode = 'pass';
    this.#cutAfter = Infinity;
    if (!wasBlackhole) return;
    for (const pair of this.#pairs) {
      if (pair.server === undefined) this.#join(pair);
      pair.client.resume();
      pair.server?.resume();
    }
  }

  blackhole(): void {
    this.#mode = 'blackhole';
    for (const { client, server } of this.#pairs) {
      client.pause();
      server?.pause();
    }
  }

  acceptOnly(): void {
    this.#mode = 'accept-only';
  }

  acceptThenClose(): void {
    this.#mode = 'accept-then-close';
  }

  cutAfter(bytes: number): void {
    this.#cutAfter = bytes;
  }

  holdRequests(): { bytes(): number; dropClients(): void; release(): void } {
    const held = [...this.#pairs];
    for (const pair of held) pair.held ??= [];
    return {
      bytes: () => held.flatMap((pair) => pair.held ?? []).reduce((sum, chunk) => sum + chunk.length, 0),
      dropClients: () => {
        for (const pair of held) pair.client.destroy();
      },
      release: () => {
        for (const pair of held) {
          for (const chunk of pair.held ?? []) pair.server?.write(chunk);
          pair.held = undefined;
        }
      },
    };
  }

  kill(): void {
    for (const pair of this.#pairs) this.#end(pair);
  }

  reset(): void {
    for (const pair of this.#pairs) {
      pair.client.resetAndDestroy();
      this.#end(pair);
    }
  }

  async close(): Promise<void> {
    const closed = once(this.#listener, 'close');
    this.#listener.close();
    this.kill();
    await closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #accept(client: Socket): void {
    this.accepted += 1;
    client.setNoDelay(true);
    client.on('error', () => {});
    if (this.#mode === 'accept-then-close') {
      client.destroy();
      return;
    }
    const pair: Pair = { client, server: undefined, held: undefined };
    this.#pairs.add(pair);
    client.on('data', (chunk: Buffer) => {
      this.bytesToServer += chunk.length;
      if (pair.held === undefined) pair.server?.write(chunk);
      else pair.held.push(chunk);
    });
    client.on('close', () => {
      if (pair.held === undefined) this.#end(pair);
    });
    if (this.#mode === 'blackhole') client.pause();
    else if (this.#mode === 'pass') this.#join(pair);
  }

  #join(pair: Pair): void {
    const server = connect({ host: '127.0.0.1', port: this.#targetPort, noDelay: true });
    pair.server = server;
    server.on('error', () => {});
    server.on('close', () => this.#end(pair));
    server.on('data', (chunk: Buffer) => {
      this.bytesToClient += chunk.length;
      if (chunk.length < this.#cutAfter) {
        this.#cutAfter -= chunk.length;
        if (!pair.client.destroyed) pair.client.write(chunk);
        return;
      }
      const last = chunk.subarray(0, this.#cutAfter);
      this.#cutAfter = Infinity;
      server.removeAllListeners('data').destroy();
      // Ended, not destroyed: the client shall see these bytes.
      pair.client.end(last);
    });
  }

  #end(pair: Pair): void {
    this.#pairs.delete(pair);
    pair.server?.destroy();
    if (!pair.client.writableEnded) pair.client.destroy();
  }
}
