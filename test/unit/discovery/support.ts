import { once } from 'node:events';
import net from 'node:net';
import path from 'node:path';

import type { Instance } from '@tandem/core';
import { buildStructure, type DiscoveredService, HaproxySection } from '@tandem/discovery';

import {
  buildMembership,
  type Desired,
  type Membership,
  type Offers,
  type Server,
  type Structure,
} from '@tandem/discovery/testing';

import { inDirectory } from '../../support/directory.ts';
import { service } from '../../support/haproxy.ts';

export const HAPROXY = HaproxySection.parse({});

export function membersOf(instances: readonly Instance[], name = 'web'): Membership {
  return buildMembership(offersOf({ [name]: instances })).membership;
}

/** What is known of these services. */
export function offersOf(known: Readonly<Record<string, readonly Instance[]>>): Offers {
  return new Map(
    Object.entries(known).map(([name, instances]) => [
      name,
      { service: service(name, '127.0.0.1:3210'), instances, holds: new Map() },
    ]),
  );
}

export function serversOf(instances: readonly Instance[]): readonly Server[] {
  return membersOf(instances).get('web') ?? [];
}

export function structureOf(
  services: readonly DiscoveredService[] = [service('web', '127.0.0.1:3210')],
): Structure {
  return buildStructure(HAPROXY, services);
}

/** What HAProxy shall be, with nothing that it might refuse. */
export function desiredWith(parts: Pick<Desired, 'structure' | 'membership' | 'routes'>): Desired {
  return { ...parts, allowances: [], within: () => parts };
}

/** Answers a whole conversation; undefined says nothing, ever. */
type Script = (request: string) => string | undefined;

/** A unix socket that answers as HAProxy's runtime socket does: in prompt mode, then it closes. */
export async function withFakeSocket<T>(
  script: Script,
  body: (socket: string, heard: string[]) => Promise<T>,
): Promise<T> {
  return inDirectory(async (directory) => {
    const heard: string[] = [];
    const connections = new Set<net.Socket>();
    const server = net.createServer((connection) => {
      connections.add(connection);
      let request = '';
      connection.on('error', () => {});
      connection.on('data', (chunk) => {
        request += chunk.toString();
        if (!request.endsWith('quit\n')) return;
        heard.push(request);
        const answer = script(request);
        if (answer !== undefined) connection.end(answer);
      });
    });
    const socket = path.join(directory, 'haproxy.sock');
    server.listen(socket);
    await once(server, 'listening');
    try {
      return await body(socket, heard);
    } finally {
      for (const connection of connections) connection.destroy();
      server.close();
    }
  });
}

/** Everything that HAProxy writes to a client that sends `prompt`, commands and `quit`. */
export function prompted(answers: readonly string[]): string {
  return `\n> ${answers.map((answer) => `${answer}\n> `).join('')}`;
}

export function info(fields: Readonly<Record<string, string>> = {}): string {
  const all = {
    Name: 'HAProxy',
    Version: '2.6.12',
    Pid: '42',
    Start_time_sec: '1700000000',
    Stopping: '0',
    description: 'tandem 0123456789abcdef',
    ...fields,
  };
  return `${Object.entries(all)
    .map(([key, value]) => `${key}: ${value}`)
    .join('\n')}\n`;
}
