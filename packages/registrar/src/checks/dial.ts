import net, { type Socket } from 'node:net';
import tls from 'node:tls';

import type { CheckContext } from '../check.ts';
import { connectionReason, createTarget, type TargetConfig } from './address.ts';
import { createTlsClient, type TlsConfig, tlsReason } from './tls.ts';

export interface DialConfig extends TargetConfig {
  readonly tls?: TlsConfig | undefined;
}

/** Everything that a connection needs was found, or why not. */
export type Line =
  | {
      readonly ok: true;
      /** What is not right, although one can connect. */
      readonly warning: string | undefined;
      /** Begins a new connection, which belongs to whoever asked for it. */
      connect(): Socket;
    }
  | { readonly ok: false; readonly reason: string };

/**
 * What finds the way to a service, within the signal of one probe.
 * @param protocols what is offered within TLS (ALPN)
 */
export function createDial(
  config: DialConfig,
  context: CheckContext,
  protocols?: readonly string[],
): (signal: AbortSignal) => Promise<Line> {
  const find = createTarget(config, context);
  if (config.tls === undefined)
    return async (signal) => {
      const target = await find(signal);
      if (!target.ok) return target;
      const { host, port } = target;
      return { ok: true, warning: undefined, connect: () => net.connect({ host, port }) };
    };
  const client = createTlsClient(config.tls);
  const offered = protocols === undefined ? {} : { ALPNProtocols: [...protocols] };
  return async (signal) => {
    const target = await find(signal);
    if (!target.ok) return target;
    const secured = await client.options(config.host, signal);
    if (!secured.ok) return secured;
    const { host, port } = target;
    const options = { ...secured.value, ...offered, host, port };
    return { ok: true, warning: secured.warning, connect: () => tls.connect(options) };
  };
}

/**
 * Where nobody listens on a port that the system also takes for outgoing connections, a connection to it can meet itself,
 * and would be taken for a service.
 */
export function isSelfConnected({ localPort, remotePort, localAddress, remoteAddress }: net.Socket): boolean {
  return localPort === remotePort && localAddress === remoteAddress;
}

/** Why a connection did not come about or broke. */
export function lineReason(error: unknown): string {
  return tlsReason(error) ?? connectionReason(error);
}
