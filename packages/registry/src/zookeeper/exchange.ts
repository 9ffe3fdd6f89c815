import { TandemError } from '@tandem/core';

import { JuteReader } from './jute.ts';
import { OPCODE, type Operation, refusal, removeWatches } from './opcodes.ts';
import { type Answer, isOurs, type LibraryQueues, packRequest, unpackAnswer } from './packets.ts';
import { createWatchTable, type WatchListener, type WatchTable } from './watches.ts';
import { createWindow, type Wish } from './window.ts';

/** Requests out, answers and events in, over whatever connection the library has at the time. */
export interface Exchange {
  /** As `Connection` promises. */
  run<T>(operation: Operation<T>, options: { signal: Wish; onWatch?: WatchListener }): Promise<T>;
  forgetWatch(listener: WatchListener): void;
  readonly watches: WatchTable;
  /** Takes an event, or an answer to a request of ours; false: it is the library's. */
  takeFrame(frame: Buffer): boolean;
  /** Fails what has not been sent, and at the end what has not been answered either. */
  fail(options: { isOver: boolean }): void;
}

/** ZooKeeper throttles all clients of a server together at 1,000 outstanding requests. */
const MAX_IN_FLIGHT = 250;
/** The server closes the connection on larger requests, with everything else that is in flight (B20). */
const MAX_REQUEST_BYTES = 1_000_000;
const MAX_XID = 0x7fff_fff0;
const NOTIFICATION_XID = -1;
const PING_XID = -2;
const LOST = new Error('connection lost');
const NEVER = new AbortController().signal;

export function createExchange(options: {
  queues: LibraryQueues;
  isConnected: () => boolean;
  /** What the server says makes no sense: the connection has to end. */
  drop: (reason: string) => void;
}): Exchange {
  return new LibraryExchange(options);
}

class LibraryExchange implements Exchange {
  readonly #queues: LibraryQueues;
  readonly #isConnected: () => boolean;
  readonly #drop: (reason: string) => void;
  readonly #window = createWindow(MAX_IN_FLIGHT);
  readonly watches = createWatchTable();
  /** The server knows recursive watches. */
  #hasRecursive = false;

  constructor({ queues, isConnected, drop }: Parameters<typeof createExchange>[0]) {
    this.#queues = queues;
    this.#isConnected = isConnected;
    this.#drop = drop;
    // 0 is below what 3.4 and 3.5 take for a request (B15).
    queues.xid = 1;
  }

  run<T>(
    operation: Operation<T>,
    { signal, onWatch }: { signal: Wish; onWatch?: WatchListener },
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (!this.#isConnected()) {
        reject(connectionLost(operation));
        return;
      }
      if (operation.body.length > MAX_REQUEST_BYTES) {
        reject(
          new TandemError(
            'REGISTRY_REFUSED',
            `a request to ${operation.name} ${operation.path} is larger than 1 MB`,
          ),
        );
        return;
      }
      const settle = (frame: Buffer) => {
        const answer = this.#answer(operation, frame, signal.aborted ? undefined : onWatch);
        if (answer.ok) resolve(answer.value);
        else reject(answer.error);
      };
      this.#window.enter({
        signal,
        send: () => this.#send(operation, settle, () => reject(connectionLost(operation))),
        fail: reject,
      });
    });
  }

  forgetWatch(listener: WatchListener): void {
    const left = this.watches.forget(listener);
    // A server that cannot set them would end the connection over it.
    if (!this.#hasRecursive) return;
    for (const path of left) {
      // A server that does not hear it sends events that nobody listens to, until the connection ends.
      this.run(removeWatches(path), { signal: NEVER }).catch(() => {});
    }
  }

  takeFrame(frame: Buffer): boolean {
    const xid = frame.readInt32BE(4);
    if (xid === NOTIFICATION_XID) {
      const reader = new JuteReader(frame, 20);
      const type = reader.int();
      reader.int();
      this.watches.fire({ type, path: reader.text() });
      return true;
    }
    if (xid === PING_XID) return false;
    const packet = this.#queues.pendingQueue[0];
    if (packet?.request.header.xid !== xid) {
      // The library would drop the request that waits at the head, too, and nobody would ever hear of it.
      this.#drop(`the server answered request ${xid}, which is not the one that waits`);
      return true;
    }
    if (!isOurs(packet.request)) return false;
    this.#queues.pendingQueue.shift();
    const zxid = frame.readBigInt64BE(8);
    if (zxid > 0n) this.#queues.zxid = Buffer.from(frame.subarray(8, 16));
    packet.callback?.(null, frame);
    return true;
  }

  fail({ isOver }: { isOver: boolean }): void {
    const { packetQueue, pendingQueue } = this.#queues;
    const packets = [...packetQueue.queue.splice(0), ...(isOver ? pendingQueue.splice(0) : [])];
    for (const packet of packets) packet.callback?.(LOST);
    this.#window.failWaiting(connectionLost());
  }

  #send<T>(operation: Operation<T>, settle: (frame: Buffer) => void, lost: () => void): void {
    if (this.#queues.xid > MAX_XID) this.#queues.xid = 1;
    this.#queues.queue(packRequest(operation.opcode, operation.body), (error, frame) => {
      if (frame === undefined || error !== null) {
        this.#window.lost();
        lost();
        return;
      }
      settle(frame);
      this.#window.answered();
    });
  }

  #answer<T>(operation: Operation<T>, frame: Buffer, onWatch: WatchListener | undefined): Answer<T> {
    const code = frame.readInt32BE(16);
    // Before anything is awaited: an event may follow in the same chunk.
    const kind = operation.watchKind?.(code);
    if (onWatch !== undefined && kind !== undefined) this.watches.add(kind, operation.path, onWatch);
    if (code === 0 && operation.opcode === OPCODE.setWatches2) this.#hasRecursive = true;
    if (code === 0) return unpackAnswer(operation, frame);
    const recovered = operation.recover?.(code);
    return recovered === undefined
      ? { ok: false, error: refusal(operation, code) }
      : { ok: true, value: recovered.value };
  }
}

function connectionLost(operation?: Pick<Operation<unknown>, 'name' | 'path'>): TandemError {
  const what = operation === undefined ? '' : ` to ${operation.name} ${operation.path}`;
  return new TandemError('REGISTRY_CONNECTION_LOST', `no connection to ZooKeeper${what}`);
}
