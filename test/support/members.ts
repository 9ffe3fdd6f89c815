// Instances in a ZooKeeper, each with a session and an ephemeral node of its own, as a registrar holds them.
import assert from 'node:assert/strict';

import { codecFor, type Instance } from '@tandem/core';

import { connectWire, FLAGS, type WireClient, zk } from './zookeeper-wire.ts';

const PING_EVERY_MS = 2_000;
const CODEC = codecFor();

export interface Member {
  /** Its session and its node end; also when the server has forgotten both. */
  leave(): Promise<void>;
}

/** Announces an instance below a path, which it creates where it is missing. */
export async function announceMember(
  zookeeperPort: number,
  path: string,
  instance: Instance,
): Promise<Member> {
  const wire = await connectWire(zookeeperPort);
  await createParents(wire, path);
  const made = await zk.create(wire, {
    path: `${path}/${CODEC.namePrefix(instance, { pathEncoding: false })}`,
    data: CODEC.encodeRecord(instance),
    flags: FLAGS.ephemeralSequential,
  });
  assert.equal(made.code, 0);
  const pinger = setInterval(() => void wire.ping().catch(() => clearInterval(pinger)), PING_EVERY_MS);
  // A server that is killed cuts the connection: that is no fault of the member.
  wire.closed.catch(() => {});
  return {
    async leave() {
      clearInterval(pinger);
      if (!wire.isClosed) await zk.closeSession(wire).catch(() => {});
      wire.destroy();
    },
  };
}

/** A path with everything above it; what is there stays. */
export async function createParents(wire: WireClient, path: string): Promise<void> {
  for (let end = path.indexOf('/', 1); end !== -1; end = path.indexOf('/', end + 1))
    await zk.create(wire, { path: path.slice(0, end) });
  await zk.create(wire, { path });
}
