import { isIP } from 'node:net';

import { messageOf, Port, systemErrorCode } from '@tandem/core';
import * as z from 'zod';

/** Where a network check knocks. Only literals: looking up a name can hang in a way that no deadline ends. */
export const addressKeys = {
  host: z
    .string()
    .refine((text) => isIP(text) !== 0, 'must be an IPv4 or IPv6 address')
    .default('127.0.0.1')
    .describe('the address to probe'),
  port: Port.optional().describe('the port to probe; default: the port of the service'),
};

/** Why a connection did not come about or broke, in the words of an operator. */
export function connectionReason(error: unknown): string {
  switch (systemErrorCode(error)) {
    case 'ECONNREFUSED':
      return 'connection refused';
    case 'ECONNRESET':
    case 'EPIPE':
      return 'connection closed by the service';
    case 'ETIMEDOUT':
      return 'connection timed out';
    case 'EHOSTUNREACH':
      return 'host unreachable';
    case 'ENETUNREACH':
      return 'network unreachable';
    case 'EADDRNOTAVAIL':
      return 'no local address or port to connect from';
    case 'EMFILE':
    case 'ENFILE':
      return 'too many open files';
    default:
      return messageOf(error);
  }
}
