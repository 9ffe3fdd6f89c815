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
  /**
   * From now on every byte takes this long each way; what is under way arrives no earlier than what was sent before it.
   * Present connections are as slow as new ones; an end that comes from the other side is as late as the bytes.
   */
  delay(ms: number): void;
  /** Says this to every client of the present connections, as if the server had: to be done between its frames. */
  inject(bytes: Buffer): void;
  /** Ends every connection at once, by a FIN or by a reset. */
  kill(): void;
  reset(): void;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

type Mode = 'pass' | 'blackhole' | 'accept-only' | 'accept-then-close';

interface Pair {
  readonly client: Socket;
  server: Socket | undefined;
  readonly toServer: Lane;
  readonly toClient: Lane;
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
  #delayMs = 0;
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
          for (const chunk of pair.held ?? []) pair.toServer.send(() => pair.server?.write(chunk));
          pair.held = undefined;
        }
      },
    };
  }

  delay(ms: number): void {
    this.#delayMs = ms;
  }

  inject(bytes: Buffer): void {
    for (const { client } of this.#pairs) client.write(bytes);
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
    const [toServer, toClient] = [createLane(() => this.#delayMs), createLane(() => this.#delayMs)];
    const pair: Pair = { client, server: undefined, toServer, toClient, held: undefined };
    this.#pairs.add(pair);
    client.on('data', (chunk: Buffer) => {
      this.bytesToServer += chunk.length;
      if (pair.held === undefined) toServer.send(() => pair.server?.write(chunk));
      else pair.held.push(chunk);
    });
    client.on('close', () => {
      if (pair.held === undefined) toServer.send(() => this.#end(pair));
    });
    if (this.#mode === 'blackhole') client.pause();
    else if (this.#mode === 'pass') this.#join(pair);
  }

  #join(pair: Pair): void {
    const server = connect({ host: '127.0.0.1', port: this.#targetPort, noDelay: true });
    pair.server = server;
    server.on('error', () => {});
    server.on('close', () => pair.toClient.send(() => this.#end(pair)));
    server.on('data', (chunk: Buffer) => {
      this.bytesToClient += chunk.length;
      if (chunk.length < this.#cutAfter) {
        this.#cutAfter -= chunk.length;
        pair.toClient.send(() => {
          if (!pair.client.destroyed) pair.client.write(chunk);
        });
        return;
      }
      const last = chunk.subarray(0, this.#cutAfter);
      this.#cutAfter = Infinity;
      server.removeAllListeners('data').destroy();
      // Ended, not destroyed: the client shall see these bytes.
      pair.toClient.send(() => pair.client.end(last));
    });
  }

  #end(pair: Pair): void {
    this.#pairs.delete(pair);
    pair.toServer.end();
    pair.toClient.end();
    pair.server?.destroy();
    if (!pair.client.writableEnded) pair.client.destroy();
  }
}

/** One way of a connection: what is sent arrives in order, each after the delay of its moment. */
interface Lane {
  send(arrive: () => void): void;
  /** What is under way never arrives. */
  end(): void;
}

function createLane(delayMs: () => number): Lane {
  const underWay: { readonly dueAt: number; readonly arrive: () => void }[] = [];
  let timer: NodeJS.Timeout | undefined;
  let isOver = false;

  function deliver(): void {
    timer = undefined;
    for (let next = underWay[0]; next !== undefined; next = underWay[0]) {
      const waitMs = next.dueAt - performance.now();
      if (waitMs > 0) {
        timer = setTimeout(deliver, Math.ceil(waitMs));
        return;
      }
      underWay.shift();
      next.arrive();
    }
  }

  return {
    send(arrive) {
      if (isOver) return;
      const ms = delayMs();
      // Nothing overtakes what was sent before it, though the network has become faster meanwhile.
      if (ms === 0 && underWay.length === 0) {
        arrive();
        return;
      }
      const dueAt = Math.max(performance.now() + ms, underWay.at(-1)?.dueAt ?? 0);
      underWay.push({ dueAt, arrive });
      timer ??= setTimeout(deliver, ms);
    },
    end() {
      isOver = true;
      clearTimeout(timer);
      underWay.length = 0;
    },
  };
}
