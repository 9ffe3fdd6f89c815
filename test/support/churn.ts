// Writers that change instances in every way that is in use, and what a reader should make of it in the end.
import {
  codecFor,
  compareInstances,
  type Instance,
  instanceId,
  type Rejection,
  type Snapshot,
} from '@tandem/core';

import type { Random } from './random.ts';
import { connectWire, FLAGS, type WireClient, zk } from './zookeeper-wire.ts';

const CODEC = codecFor();
const NO_NODE = -101;
/** More than these and the next change is a deletion. */
const MAX_CHILDREN = 60;

/** Changes the children of some paths, one change after the other, through whichever server answers. */
export interface Churn {
  /** One change. One whose answer is lost may or may not have happened. */
  step(): Promise<void>;
  readonly steps: number;
  end(): void;
}

export function createChurn(options: {
  ports: readonly number[];
  paths: readonly string[];
  /** Below these, names are always sequential: nothing is ever written to twice. */
  sequentialPaths: readonly string[];
  random: Random;
}): Churn {
  const { ports, paths, sequentialPaths, random } = options;
  const children = new Map<string, Set<string>>(paths.map((path) => [path, new Set()]));
  let wire: WireClient | undefined;
  let steps = 0;

  async function connected(): Promise<WireClient> {
    if (wire === undefined || wire.isClosed)
      wire = await connectWire(random.pick(ports), { timeoutMs: 10_000 });
    return wire;
  }

  const record = (): Instance => ({
    name: `i-${random.below(30)}`,
    host: `10.0.0.${1 + random.below(5)}`,
    port: 8_000 + random.below(3),
    ...(random.chance(0.5) ? { weight: random.below(10) } : {}),
  });

  async function create(client: WireClient, path: string): Promise<void> {
    const instance = record();
    const pathEncoding = random.chance(0.4);
    const prefix = CODEC.namePrefix(instance, { pathEncoding });
    const isFixed = random.chance(0.2) && !sequentialPaths.includes(path);
    const flags = isFixed ? FLAGS.persistent : FLAGS.sequential;
    const data = random.chance(0.03) ? 'no instance at all' : CODEC.encodeRecord(instance);
    const made = await zk.create(client, { path: `${path}/${prefix}`, data, flags });
    if (made.code === 0) children.get(path)?.add(String(made.path));
    if (made.code !== NO_NODE) return;
    await zk.create(client, { path: path.slice(0, path.lastIndexOf('/')) });
    await zk.create(client, { path });
  }

  async function remove(client: WireClient, path: string): Promise<void> {
    const mine = children.get(path) ?? new Set();
    if (mine.size === 0) return;
    const victim = random.pick([...mine]);
    mine.delete(victim);
    await zk.delete(client, victim);
  }

  /** Only names without a sequence number: the others are never written to again. */
  async function rewrite(client: WireClient, path: string): Promise<void> {
    const fixed = [...(children.get(path) ?? [])].filter(
      (child) => child.endsWith('_') && !child.includes('/base64_'),
    );
    if (fixed.length > 0) await zk.setData(client, random.pick(fixed), CODEC.encodeRecord(record()));
  }

  /** As a registrar does when a record changes, in one transaction or in two. */
  async function replace(client: WireClient, path: string): Promise<void> {
    const mine = children.get(path) ?? new Set();
    if (mine.size === 0) return create(client, path);
    const victim = random.pick([...mine]);
    if (random.chance(0.5)) {
      await create(client, path);
      mine.delete(victim);
      await zk.delete(client, victim);
      return;
    }
    const instance = record();
    const prefix = CODEC.namePrefix(instance, { pathEncoding: random.chance(0.5) });
    const data = CODEC.encodeRecord(instance);
    const done = await zk.multi(client, [
      { op: 'create', path: `${path}/${prefix}`, data, flags: FLAGS.sequential },
      { op: 'delete', path: victim },
    ]);
    if (done.results?.[0]?.code !== 0) return;
    mine.delete(victim);
    mine.add(String(done.results[0].path));
  }

  async function removeAll(client: WireClient, path: string): Promise<void> {
    children.get(path)?.clear();
    const { children: names = [] } = await zk.getChildren(client, path);
    for (const name of names) await zk.delete(client, `${path}/${name}`);
    await zk.delete(client, path);
  }

  return {
    async step() {
      steps += 1;
      const path = random.pick(paths);
      const dice = random.below(100);
      try {
        const client = await connected();
        const isFull = (children.get(path)?.size ?? 0) > MAX_CHILDREN;
        if (dice === 0) await removeAll(client, path);
        else if (isFull || dice < 35) await remove(client, path);
        else if (dice < 45) await rewrite(client, path);
        else if (dice < 60) await replace(client, path);
        else await create(client, path);
      } catch {
        // The server has gone: what became of the change shows in the truth.
        wire?.destroy();
        wire = undefined;
      }
    },
    get steps() {
      return steps;
    },
    end: () => wire?.destroy(),
  };
}

/** What a reader should show of a path: read past the registry, and decoded by the rules alone. */
export async function truthOf(port: number, path: string): Promise<Snapshot> {
  const client = await connectWire(port, { timeoutMs: 5_000 });
  try {
    await zk.sync(client, path);
    const { children = [] } = await zk.getChildren(client, path);
    const newest = new Map<string, { sequence: number; instance: Instance }>();
    const rejected: Rejection[] = [];
    const nodes = await Promise.all(
      children
        .map(String)
        .toSorted((a, b) => (a < b ? -1 : 1))
        .map(async (child) => ({
          name: child,
          node: await zk.getData(client, `${path}/${child}`),
        })),
    );
    for (const { name, node } of nodes) {
      const decoded = CODEC.decodeName(name) ?? CODEC.decodeRecord(Buffer.from(node.data ?? ''));
      if (!decoded.ok) {
        rejected.push({ place: name, reason: decoded.reason });
        continue;
      }
      const sequence = Number(/_(\d+)$/.exec(name)?.[1] ?? -1);
      const id = instanceId(decoded.instance);
      // Of several without a number the first name counts.
      if (sequence > (newest.get(id)?.sequence ?? -2))
        newest.set(id, { sequence, instance: decoded.instance });
    }
    return {
      instances: [...newest.values()].map(({ instance }) => instance).toSorted(compareInstances),
      rejected: rejected.toSorted((a, b) => (a.place < b.place ? -1 : 1)),
    };
  } finally {
    await zk.closeSession(client).catch(() => {});
    client.destroy();
  }
}
