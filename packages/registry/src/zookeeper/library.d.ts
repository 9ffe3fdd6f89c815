// The narrow part of node-zookeeper-client 1.1.3 that the connection touches. The published types lack all of it.
declare module 'node-zookeeper-client' {
  import type { EventEmitter } from 'node:events';
  import type { Socket } from 'node:net';

  interface Packet {
    request: { header: { type: number; xid: number }; payload: null; toBuffer(): Buffer };
    callback?: (error: unknown, frame?: Buffer) => void;
  }

  interface ConnectionManager extends EventEmitter {
    state: number;
    socket?: Socket;
    xid: number;
    zxid: Buffer;
    sessionId: Buffer;
    sessionPassword: Buffer;
    sessionTimeout: number;
    pendingBuffer: Buffer | null;
    pendingQueue: Packet[];
    packetQueue: { queue: Packet[] };
    connect(): void;
    setState(state: number): void;
    onSocketData(chunk: Buffer): void;
    onSocketDrain(): void;
    onSocketClosed(): void;
    onSocketTimeout(): void;
    queue(request: Packet['request'], callback: NonNullable<Packet['callback']>): void;
  }

  interface Client extends EventEmitter {
    connectionManager: ConnectionManager;
    connect(): void;
    close(): void;
  }

  interface Options {
    sessionTimeout: number;
    retries: 0;
    sessionId?: Buffer;
    sessionPassword?: Buffer;
  }

  const library: { createClient(connectionString: string, options: Options): Client };
  export default library;
  export type { Client, ConnectionManager, Options, Packet };
}
