import { isIP } from 'node:net';

import {
  type AddressResolver,
  type Instance,
  instanceId,
  type Log,
  type Rejection,
  type Snapshot,
  uniqueInstances,
} from '@tandem/core';

import { type AddressMemory, NO_MEMORY } from './address-memory.ts';
import { placeAfter } from './catalog.ts';
import { followHostNames, type HostNames } from './host-names.ts';
import { publishedBy, reuseRecords, type Source } from './source.ts';

/** How long a snapshot waits for the names that are new in it. */
const NEW_NAMES_MS = 1_000;

/**
 * The same instances with addresses for hosts. Each name has one address at a time, which stays as long as the name
 * stands for it, and when nobody answers, also over a restart; the announcement says whether there is an instance, the
 * DNS only where. One whose name has never been answered is set aside with the reason. A snapshot waits a second at most
 * for names that are new in it and of which nobody has said anything, so that one that takes the place of another leaves
 * no gap; nobody waits longer for the names of others.
 * While nothing at all can be told, because every name is unknown and no nameserver answers, it says nothing.
 */
export function withAddresses(
  source: Source,
  {
    resolver,
    memory = NO_MEMORY,
    log,
  }: { readonly resolver: AddressResolver; readonly memory?: AddressMemory; readonly log: Log },
): Source {
  return {
    watch: (signal) =>
      publishedBy(signal, async (publish, signal) => {
        const resolved = new WeakMap<Instance, Instance>();
        let announced: Snapshot | undefined;
        let hasNames = false;
        let shown: Snapshot | undefined;
        let hold: NodeJS.Timeout | undefined;
        let turn: NodeJS.Immediate | undefined;
        // The answers of a thousand names come together, and are one change.
        const names = followHostNames({ resolver, memory, log }, () => {
          turn ??= setImmediate(() => {
            turn = undefined;
            update();
          });
        });
        function update(): void {
          if (announced === undefined) return;
          if (names.areAwaited()) {
            hold ??= setTimeout(() => {
              // After a stall of this process, answers that have arrived in time are looked at first.
              setImmediate(() => {
                names.awaitNoLonger();
                update();
              });
            }, NEW_NAMES_MS);
            return;
          }
          clearTimeout(hold);
          hold = undefined;
          const view = hasNames ? viewOf(announced, names, resolved) : announced;
          if (view.instances.length === 0 && names.isAway()) return;
          const snapshot = view === announced ? announced : reuseRecords(shown, view);
          if (snapshot === shown) return;
          shown = snapshot;
          publish(snapshot);
        }
        try {
          for await (const snapshot of source.watch(signal)) {
            hasNames = needsNames(snapshot.instances, hasNames ? [] : announced?.instances);
            announced = snapshot;
            names.follow(hasNames ? snapshot.instances : []);
            update();
          }
        } finally {
          clearTimeout(hold);
          clearImmediate(turn);
          await names.close();
        }
      }),
  };
}

/**
 * Whether a host of these instances is a name. Those that were there before are not looked at again.
 * @param before without names, in the order of snapshots
 */
function needsNames(instances: readonly Instance[], before: readonly Instance[] = []): boolean {
  let there = 0;
  for (const instance of instances) {
    if (instance === before[there]) {
      there += 1;
      continue;
    }
    there = placeAfter(instance, before, there);
    if (instance !== before[there - 1] && isIP(instance.host) === 0) return true;
  }
  return false;
}

function viewOf(announced: Snapshot, names: HostNames, resolved: WeakMap<Instance, Instance>): Snapshot {
  const instances: Instance[] = [];
  const rejected: Rejection[] = [];
  for (const instance of announced.instances) {
    if (isIP(instance.host) !== 0) {
      instances.push(instance);
      continue;
    }
    const found = names.find(instance.host);
    if (found.kind === 'address') {
      const before = resolved.get(instance);
      const same = before?.host === found.address ? before : { ...instance, host: found.address };
      resolved.set(instance, same);
      instances.push(same);
    } else rejected.push({ place: instanceId(instance).slice(0, 128), reason: found.reason });
  }
  return { instances: uniqueInstances(instances), rejected: [...announced.rejected, ...rejected] };
}
