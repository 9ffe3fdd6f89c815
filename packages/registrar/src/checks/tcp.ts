import net from 'node:net';

import * as z from 'zod';

import {
  CALLED_OFF,
  type Check,
  type CheckContext,
  failure,
  PASS,
  type ProbeResult,
  scheduleKeys,
  toSchedule,
} from '../check.ts';
import { addressKeys, connectionReason } from './address.ts';

/** `tcp`: passes when the port accepts a connection. */
export const TcpSection = z
  .strictObject({ ...addressKeys, ...scheduleKeys })
  .transform(({ host, port, ...schedule }) => ({ host, port, schedule: toSchedule(schedule) }));

export type TcpConfig = z.output<typeof TcpSection>;

export function createTcpCheck(config: TcpConfig, context: CheckContext): Check {
  const target = { host: config.host, port: config.port ?? context.port };
  return { kind: 'tcp', probe: (signal) => connect(target, signal) };
}

function connect(target: { host: string; port: number }, signal: AbortSignal): Promise<ProbeResult> {
  if (signal.aborted) return Promise.resolve(CALLED_OFF);
  return new Promise((resolve) => {
    const socket = net.connect(target);
    const finish = (result: ProbeResult) => {
      signal.removeEventListener('abort', onAbort);
      socket.destroy();
      resolve(result);
    };
    const onAbort = () => finish(CALLED_OFF);
    signal.addEventListener('abort', onAbort, { once: true });
    socket.on('connect', () => finish(PASS));
    socket.on('error', (error) => finish(failure(connectionReason(error))));
  });
}
