// Three real ZooKeeper servers that elect a leader, each a child of the test process. On loopback only.
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { eventually } from './eventually.ts';
import { assertInstalled, createServerProcess, freePorts, type RealZooKeeper } from './real-zookeeper.ts';
import { askWord } from './zookeeper-wire.ts';

/** A server that is frozen takes connections and says nothing. */
const ANSWER_MS = 1_000;
const SETTLED_MS = 60_000;

export interface RealEnsemble {
  readonly servers: readonly RealZooKeeper[];
  readonly ports: readonly number[];
  /** Waits until so many servers serve, all by default, under one leader. The follower with most clients comes first. */
  settled(count?: number): Promise<{ leader: RealZooKeeper; followers: RealZooKeeper[] }>;
  /** Ends every server for good, whatever its state, and removes the data. */
  stop(): Promise<void>;
}

/** Starts an ensemble and waits until it serves. One that nobody stops dies with the test process. */
export async function startRealEnsemble(
  options: { size?: number; tickTimeMs?: number } = {},
): Promise<RealEnsemble> {
  assertInstalled();
  const { size = 3, tickTimeMs = 500 } = options;
  const dir = await mkdtemp(path.join(tmpdir(), 'tandem-ensemble-'));
  const ports = await freePorts(size * 3);
  const ids = Array.from({ length: size }, (_, index) => index + 1);
  const members = Object.fromEntries(
    ids.map((id) => [`server.${id}`, `127.0.0.1:${ports[id * 3 - 2]}:${ports[id * 3 - 1]}`]),
  );
  const servers = ids.map((id) =>
    createServerProcess({
      dir: path.join(dir, String(id)),
      port: ports[id * 3 - 3] ?? 0,
      tickTimeMs,
      // How many ticks a leader or a follower may be silent before the others do without it.
      settings: { ...members, syncLimit: 5 },
    }),
  );

  async function stop(): Promise<void> {
    await Promise.all(servers.map((server) => server.stop()));
    await rm(dir, { recursive: true, force: true });
  }

  try {
    for (const [index, server] of servers.entries()) {
      await mkdir(server.dir);
      await writeFile(path.join(server.dir, 'myid'), String(ids[index]));
    }
    // None serves before most of them run.
    await Promise.all(servers.map((server) => server.start()));
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    servers,
    ports: servers.map(({ port }) => port),
    settled: (count = size) => settled(servers, count),
    stop,
  };
}

function settled(servers: readonly RealZooKeeper[], count: number): ReturnType<RealEnsemble['settled']> {
  return eventually(
    async () => {
      const asked = await Promise.all(servers.map(async (server) => ({ server, ...(await roleOf(server)) })));
      const said = asked.map(({ mode }) => mode).join(', ');
      const followers = asked.filter(({ mode }) => mode === 'follower');
      const [leader, ...others] = asked.filter(({ mode }) => mode === 'leader');
      // One that was frozen while it led believes that it still does, for a moment.
      assert.ok(leader !== undefined && others.length === 0, `no single leader: ${said}`);
      assert.equal(followers.length + 1, count, said);
      const busiestFirst = followers.toSorted((a, b) => b.clients - a.clients);
      return { leader: leader.server, followers: busiestFirst.map(({ server }) => server) };
    },
    { withinMs: SETTLED_MS, everyMs: 50 },
  );
}

async function roleOf({ port }: RealZooKeeper): Promise<{ mode: string; clients: number }> {
  const answer = await askWord(port, 'srvr', { timeoutMs: ANSWER_MS }).catch(() => '');
  const read = (what: string) => new RegExp(`^${what}: (.*)$`, 'm').exec(answer)?.[1];
  return { mode: read('Mode') ?? 'none', clients: Number(read('Connections') ?? 0) };
}
