// Fills a ZooKeeper with instances, as fast as it takes them.
import { codecFor, type Instance } from '@tandem/core';

import { FLAGS, type WireClient, zk } from '../support/zookeeper-wire.ts';

const WINDOW = 500;
const CODEC = codecFor();

export function instance(index: number, labels?: Readonly<Record<string, string>>): Instance {
  return {
    name: `i-${String(index).padStart(8, '0')}`,
    host: `10.${(index >> 16) & 255}.${(index >> 8) & 255}.${index & 255}`,
    port: 8_080,
    weight: 10,
    labels: { zone: 'eu-central-1a', ...labels },
  };
}

export async function announceAll(
  client: WireClient,
  path: string,
  instances: readonly Instance[],
  pathEncoding: boolean,
): Promise<void> {
  for (let start = 0; start < instances.length; start += WINDOW) {
    const made = await Promise.all(
      instances.slice(start, start + WINDOW).map((each) =>
        zk.create(client, {
          path: `${path}/${CODEC.namePrefix(each, { pathEncoding })}`,
          data: CODEC.encodeRecord(each),
          flags: FLAGS.sequential,
        }),
      ),
    );
    const failed = made.find(({ code }) => code !== 0);
    if (failed !== undefined) throw new Error(`a create was refused with ${failed.code}`);
  }
}
