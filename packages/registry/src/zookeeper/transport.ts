import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { checkServerIdentity, connect as connectTls, type SecureContext } from 'node:tls';

import type { Target } from './server-list.ts';

export interface Secure {
  readonly context: SecureContext;
  /** What the server must be called in its certificate. */
  readonly serverName: string;
}

/** The kernel's own look at a silent peer: between two pings of the longest session timeouts there is time for it. */
const KEEP_ALIVE_MS = 15_000;

/**
 * A socket on which nothing has been said yet: connected, and with TLS that the server has proved who it is. Destroyed
 * when the signal is aborted, also later. Rejects with what went wrong, or with the reason of the signal.
 */
export function openSocket(
  target: Target,
  options: { secure: Secure | undefined; signal: AbortSignal },
): Promise<Socket> {
  const { secure, signal } = options;
  const to = { host: target.address, port: target.port };
  const socket = secure === undefined ? connectTcp(to) : connectTls({ ...to, ...tlsOptions(secure) });
  return new Promise((resolve, reject) => {
    let failure: Error | undefined;
    socket.once(secure === undefined ? 'connect' : 'secureConnect', () => {
      // Not before: what is said to a socket that is not open yet is kept in part only.
      socket.setNoDelay(true);
      socket.setKeepAlive(true, KEEP_ALIVE_MS);
      resolve(socket);
    });
    // For as long as it lives: an error without a listener would end the process.
    socket.on('error', (error) => {
      failure = error;
    });
    socket.once('close', () => reject(failure ?? new Error('the connection ended')));
    const onAbort = () => {
      socket.destroy();
      reject(signal.reason as Error);
    };
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
  });
}

function tlsOptions({ context, serverName }: Secure) {
  return {
    secureContext: context,
    // Said aloud, so that no environment variable turns it off.
    rejectUnauthorized: true,
    // An address is no name that may be asked for, but it may stand in the certificate.
    ...(isIP(serverName) === 0 ? { servername: serverName } : {}),
    checkServerIdentity: (_host: string, certificate: Parameters<typeof checkServerIdentity>[1]) =>
      checkServerIdentity(serverName, certificate),
  };
}
