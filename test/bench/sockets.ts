// What this process sends and receives, counted at its sockets.
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { Socket } from 'node:net';

export interface Traffic {
  readonly received: number;
  readonly sent: number;
}

export interface SocketMeter {
  /** In bytes, since the meter began, over every socket that was opened since. */
  read(): Traffic;
  end(): void;
}

export function meterSockets(): SocketMeter {
  const sockets = new Set<Socket>();
  const note = (message: unknown) => void sockets.add((message as { socket: Socket }).socket);
  subscribe('net.client.socket', note);
  return {
    read() {
      let received = 0;
      let sent = 0;
      for (const socket of sockets) {
        received += socket.bytesRead;
        sent += socket.bytesWritten;
      }
      return { received, sent };
    },
    end: () => unsubscribe('net.client.socket', note),
  };
}
